//! The replica lock: held by a process for one store and its record, by the arbiter for a few remote stores.
//!
//! One word. Free, it is 0. Held, its lower half is the number of the process that holds it ([`ARBITER`] for the
//! arbiter). It is taken by one compare-exchange and given back by one plain store; who wants to sleep says so in
//! `waiters` and makes the holder's side visible with the heavy half of an asymmetric [`Barrier`], so that the common
//! path has a single locked instruction.
//!
//! Or it is biased to a thread, named by its number with [`BIASED`]: that thread takes it without any (see
//! [`crate::bias`]). Somebody else first puts the number, plus one, into the upper half of the word, and himself into the
//! lower; only when that thread is out has he got the lock. If it stays, he leaves the word without a holder, but with
//! the number: whoever tries next has to see that the thread is out in the same way.
//!
//! Invariants (checked by `tests/loom.rs`):
//! - at most one party is between `acquire` and `release`, or `enter` and `leave`;
//! - only a thread that holds the lock makes it biased, and only to itself;
//! - a sleeper is woken: either its re-check sees the word free, or the holder sees `waiters != 0` after freeing it; one
//!   that waits for a favoured thread to get out, by that thread, which sees another word than its own
//!   (and every sleep is short, so that a holder killed between its two steps costs milliseconds);
//! - the lock of the dead, held or biased, is taken only by the arbiter, which knows of the death ([`Lock::seize`]).

use crate::bias::{Bias, Favour};
use crate::control::Producer;
use crate::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::{Barrier, count_down, spin};
use crate::sys::futex;
use std::time::Duration;

/// The arbiter's number in the lock word.
pub const ARBITER: u32 = 0xffff;
/// In the lock word: biased, to the thread that the other bits name.
pub const BIASED: u32 = 1 << 31;
/// In the lock word: who holds it.
const HOLDER: u32 = 0xffff;
/// Rounds of spinning before the processor is given away.
const SPINS: u32 = if cfg!(loom) { 1 } else { 40 };
/// Rounds of giving the processor away before sleeping.
const YIELDS: u32 = if cfg!(loom) { 1 } else { 20 };
/// One sleep.
const NAP: Duration = Duration::from_millis(2);

/// The replica lock of one control block.
#[derive(Clone, Copy, Debug)]
pub struct Lock<'a> {
    state: &'a Producer,
    biases: &'a [Bias],
    barrier: Barrier,
}

/// One that waits, as long as it does: it may be unwound.
struct Counted<'l, 'a>(&'l Lock<'a>);

impl<'l, 'a> Counted<'l, 'a> {
    fn new(lock: &'l Lock<'a>) -> Self {
        lock.count();
        Self(lock)
    }
}

impl Drop for Counted<'_, '_> {
    fn drop(&mut self) {
        self.0.uncount();
    }
}

/// How a thread has the lock.
#[derive(Debug)]
#[must_use = "the lock is held until `leave`"]
pub struct Hold<'a> {
    /// By the bias to it.
    bias: Option<&'a Bias>,
    favour: Option<&'a Favour>,
}

impl Hold<'_> {
    /// This one, in place of which the caller puts another before anybody looks.
    pub(crate) fn take(&mut self) -> Self {
        Self { bias: self.bias.take(), favour: self.favour }
    }
}

/// What came of [`Lock::seize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seizure {
    /// The dead have nothing to do with the lock.
    Free,
    /// They held it; now the arbiter does.
    Taken,
    /// Somebody is about to find out whether one of the dead is still inside: to be tried again.
    Later,
}

impl<'a> Lock<'a> {
    /// The lock in `state`, which may be biased to one of `biases`.
    #[inline(always)]
    pub fn new(state: &'a Producer, biases: &'a [Bias], barrier: Barrier) -> Self {
        Self { state, biases, barrier }
    }

    #[inline(always)]
    fn try_free(&self, me: u32) -> bool {
        // Acquire: pairs with the Release in `release`, and in `seize` of the arbiter.
        self.state.lock.compare_exchange(0, me, Acquire, Relaxed).is_ok()
    }

    /// Takes the lock if it is free, or is biased to a thread that is not inside.
    pub fn try_acquire(&self, me: u32) -> bool {
        let word = self.state.lock.load(Relaxed);
        match named(word) {
            _ if holder(word) != 0 => false,
            None => self.try_free(me),
            Some(slot) => self.revoke(me, word, slot),
        }
    }

    /// Takes the lock from the thread that `word` names as `slot`, if that is not inside, or comes out soon.
    #[cold]
    fn revoke(&self, me: u32, word: u32, slot: usize) -> bool {
        let bias = self.biases.get(slot);
        if word & BIASED == 0 && bias.is_some_and(Bias::is_inside) {
            // Somebody has asked already, and it is not out yet: looking is enough. (It may be stopped.)
            return false;
        }
        let asked = bias.map_or(0, |_| (slot as u32 + 1) << 16);
        // Acquire: as in `try_free`.
        if self.state.lock.compare_exchange(word, asked | me, Acquire, Relaxed).is_err() {
            return false;
        }
        // Heavy: pairs with the light barriers in `try_enter` and `leave`. Either it sees that the word has changed, or
        // we see it inside.
        self.barrier.heavy();
        for round in 0..SPINS + YIELDS {
            if !bias.is_some_and(Bias::is_inside) {
                self.state.lock.store(me, Relaxed);
                return true;
            }
            if round < SPINS { spin() } else { futex::give_way() }
        }
        // Release: what whoever had it before us has written is for whoever gets it.
        self.state.lock.store(asked, Release);
        false
    }

    /// Returns whether something was let in.
    #[cold]
    #[inline(never)]
    fn acquire_contended(
        &self,
        me: &dyn Fn() -> u32,
        holds: &dyn Fn() -> bool,
        let_in: &dyn Fn(),
        stalled: &dyn Fn(),
    ) -> bool {
        for round in 0..SPINS + YIELDS {
            let word = self.state.lock.load(Relaxed);
            if holder(word) == 0 && self.try_acquire(me()) {
                return false;
            }
            if holder(word) == 0 && word != 0 {
                // The favoured thread is inside, and stays there: that was waited for already.
                break;
            }
            if round < SPINS { spin() } else { futex::give_way() }
        }
        let mut counted = Counted::new(self);
        let mut interrupted = false;
        while !self.try_acquire(me()) {
            if self.state.lock_waiters.load(Relaxed) == 0 {
                // Somebody has ended and all waiters were forgotten: say again that we are here.
                self.count();
                continue;
            }
            let word = self.state.lock.load(Relaxed);
            let favoured = self.bias_of(word).filter(|bias| bias.is_inside());
            match favoured {
                _ if holder(word) != 0 => futex::wait(&self.state.lock, word, NAP),
                Some(bias) => futex::wait(&bias.inside, 1, NAP),
                None => {
                    spin();
                    continue;
                }
            }
            if holds() {
                drop(counted);
                let_in();
                counted = Counted::new(self);
                interrupted = true;
            }
            // Before it may be unwound: whoever freed the lock has woken one, and this may be the one.
            if self.try_acquire(me()) {
                break;
            }
            stalled();
        }
        drop(counted);
        interrupted
    }

    /// That of the thread that has to be out before a lock with this word can be had.
    fn bias_of(&self, word: u32) -> Option<&'a Bias> {
        self.biases.get(named(word)?)
    }

    /// Says that one more waits.
    fn count(&self) {
        self.state.lock_waiters.fetch_add(1, Relaxed);
        // Heavy: pairs with the light barrier in `release`. Either we see the word free, or the holder sees us.
        self.barrier.heavy();
    }

    fn uncount(&self) {
        // They may have been forgotten meanwhile.
        count_down(&self.state.lock_waiters);
    }

    /// Frees the lock, which the caller has got by [`Lock::try_acquire`].
    #[inline(always)]
    pub fn release(&self) {
        self.interrupt_streak();
        self.free_as(0);
    }

    /// Whoever had it last has not had it twice in a row.
    #[inline(always)]
    fn interrupt_streak(&self) {
        if self.state.last.load(Relaxed) != 0 {
            self.state.last.store(0, Relaxed);
        }
    }

    #[inline(always)]
    fn free_as(&self, word: u32) {
        // Release: what the holder wrote is visible to whoever acquires next.
        self.state.lock.store(word, Release);
        self.barrier.light();
        self.freed();
    }

    /// After the word was stored, and a barrier passed.
    #[inline(always)]
    fn freed(&self) {
        if self.state.lock_waiters.load(Relaxed) != 0 {
            self.wake();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        futex::wake(&self.state.lock, 1);
    }

    /// Takes the lock for a thread that it may be biased to, if it is, or is free.
    #[inline(always)]
    pub fn try_enter<'h>(&self, me: u32, favour: Option<&'h Favour>) -> Option<Hold<'h>>
    where
        'a: 'h,
    {
        if let Some(favour) = favour
            && let Some(bias) = self.biases.get(favour.slot() as usize)
        {
            bias.inside.store(1, Relaxed);
            // Light: pairs with the heavy one in `revoke`.
            self.barrier.light();
            // Acquire: after a takeover, what the arbiter has written.
            if self.state.lock.load(Acquire) == BIASED | favour.slot() {
                return Some(Hold { bias: Some(bias), favour: Some(favour) });
            }
            self.get_out(bias, favour);
        }
        self.try_free(me).then_some(Hold { bias: None, favour })
    }

    /// As [`Lock::try_enter`], but waits. After a sleep, when `holds` says that there is something to let in, calls
    /// `let_in`: it may run what does not come back (a signal handler that jumps), so this thread is not counted as
    /// waiting then, and `me` is asked again behind it: the thread may be that of a child. After every sleep calls
    /// `stalled`, which may unwind or end the process.
    #[inline(always)]
    pub fn enter<'h>(
        &self,
        me: impl Fn() -> u32,
        favour: Option<&'h Favour>,
        holds: impl Fn() -> bool,
        let_in: impl Fn(),
        stalled: impl Fn(),
    ) -> Hold<'h>
    where
        'a: 'h,
    {
        self.try_enter(me(), favour).unwrap_or_else(|| {
            let interrupted = self.acquire_contended(&me, &holds, &let_in, &stalled);
            // What was let in may have turned it to another session.
            Hold { bias: None, favour: favour.filter(|_| !interrupted) }
        })
    }

    /// The thread that the lock was biased to is out, and somebody wanted that.
    #[cold]
    #[inline(never)]
    fn get_out(&self, bias: &Bias, favour: &Favour) {
        favour.lose();
        bias.inside.store(0, Release);
        futex::wake(&bias.inside, u32::MAX >> 1);
    }

    /// Frees the lock, which the caller, process `me`, has got by [`Lock::try_enter`] or [`Lock::enter`].
    #[inline(always)]
    pub fn leave(&self, hold: Hold<'_>, me: u32) {
        if let (Some(bias), Some(favour)) = (hold.bias, hold.favour) {
            // Release: what we wrote is visible to who sees us out.
            bias.inside.store(0, Release);
            return self.left(bias, favour);
        }
        self.free_as(self.next(me, hold.favour));
    }

    /// As [`Lock::leave`], and a full barrier for the caller's own accesses.
    #[inline(always)]
    pub fn leave_fully(&self, hold: Hold<'_>, me: u32) {
        if let (Some(bias), Some(favour)) = (hold.bias, hold.favour) {
            bias.inside.swap(0, SeqCst);
            return self.left(bias, favour);
        }
        self.state.lock.swap(self.next(me, hold.favour), SeqCst);
        self.freed();
    }

    #[inline(always)]
    fn left(&self, bias: &Bias, favour: &Favour) {
        // Light: as in `release`, for who waits for us.
        self.barrier.light();
        if self.state.lock.load(Relaxed) != BIASED | favour.slot() {
            self.get_out(bias, favour);
        }
    }

    /// What the word is to be when the caller frees the lock.
    #[inline(always)]
    fn next(&self, me: u32, favour: Option<&Favour>) -> u32 {
        match favour {
            Some(favour) if favour.again(&self.state.last) => self.bias(me, favour),
            Some(_) => 0,
            None => {
                self.interrupt_streak();
                0
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn bias(&self, me: u32, favour: &Favour) -> u32 {
        if !self.barrier.is_cheap() || self.state.lock_waiters.load(Relaxed) != 0 {
            return 0;
        }
        favour.claim(self.biases, me).map_or(0, |slot| BIASED | slot)
    }

    /// The arbiter takes over the lock of processes that have died holding it, or to whose threads it is biased. `dead`
    /// says of which processes it is known that they can store no more.
    ///
    /// Also forgets who waits: whoever ended while it did would be counted for ever, and cost every later release a
    /// system call. Those who still wait say so again after their nap.
    pub fn seize(&self, dead: impl Fn(u32) -> bool) -> Seizure {
        if self.state.lock_waiters.load(Relaxed) != 0 {
            self.state.lock_waiters.store(0, Relaxed);
        }
        let word = self.state.lock.load(Acquire);
        let bias = named(word).map(|slot| self.biases.get(slot));
        // One that is nobody's, or does not exist, is no reason to wait.
        let over = bias.is_some_and(|bias| bias.is_none_or(|bias| bias.process() == 0 || dead(bias.process())));
        match holder(word) {
            0 if !over => return Seizure::Free,
            holder if holder != 0 && !dead(holder) => {
                let inside = bias.flatten().is_some_and(Bias::is_inside);
                return if over && inside { Seizure::Later } else { Seizure::Free };
            }
            _ => {}
        }
        let asked = if over { 0 } else { word & !(BIASED | HOLDER) };
        if self.state.lock.compare_exchange(word, asked | ARBITER, Acquire, Relaxed).is_err() {
            return Seizure::Later;
        }
        let Some(bias) = bias.flatten() else { return Seizure::Taken };
        if over {
            bias.inside.store(0, Relaxed);
            futex::wake(&bias.inside, u32::MAX >> 1);
        } else {
            // Of who has died asking whether somebody else is inside. Heavy: as in `revoke`.
            self.barrier.heavy();
            if bias.is_inside() {
                self.state.lock.store(asked, Release);
                return Seizure::Free;
            }
        }
        self.state.lock.store(ARBITER, Relaxed);
        Seizure::Taken
    }

    /// After a [`Lock::seize`] that need not be tried again: no thread of `dead` will be favoured any more.
    pub fn forget(&self, dead: u32) {
        self.biases.iter().filter(|bias| bias.process() == dead).for_each(Bias::free);
    }

    /// As [`Lock::release`] after [`Lock::seize`], which has forgotten who waits: all are woken, and look.
    pub fn release_to_all(&self) {
        self.release();
        futex::wake(&self.state.lock, u32::MAX >> 1);
    }

    /// Does anybody but the arbiter hold it just now? For who watches.
    pub fn is_held(&self) -> bool {
        let word = self.state.lock.load(Relaxed);
        match holder(word) {
            0 => self.bias_of(word).is_some_and(Bias::is_inside),
            holder => holder != ARBITER,
        }
    }

    /// The process that holds it now, or to whose thread it is biased, and no process for one that cannot be; 0 for
    /// nobody.
    pub fn holder(&self) -> u32 {
        let word = self.state.lock.load(Relaxed);
        match (holder(word), named(word)) {
            (0, Some(slot)) => self.biases.get(slot).map_or(u32::MAX, |bias| match bias.process() {
                0 => u32::MAX,
                process => process,
            }),
            (holder, _) => holder,
        }
    }
}

/// Who holds a lock with this word.
#[inline(always)]
fn holder(word: u32) -> u32 {
    if word & BIASED != 0 { 0 } else { word & HOLDER }
}

/// The number of the thread that has to be out before a lock with this word can be had.
fn named(word: u32) -> Option<usize> {
    if word & BIASED != 0 { Some((word & !BIASED) as usize) } else { ((word >> 16) as usize).checked_sub(1) }
}
