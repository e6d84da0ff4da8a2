//! The replica lock: held by a process for one store and its record, by the arbiter for a few remote stores.
//!
//! One word: 0 free, else the number of the process that holds it ([`ARBITER`] for the arbiter). It is taken by one
//! compare-exchange and given back by one plain store; who wants to sleep says so in `waiters` and makes the
//! holder's side visible with the heavy half of an asymmetric [`Barrier`], so that the common path has a single
//! locked instruction.
//!
//! Invariants (checked by `tests/loom.rs`):
//! - at most one party is between `acquire` and `release`;
//! - a sleeper is woken: either its re-check sees the word free, or the holder sees `waiters != 0` after freeing it
//!   (and every sleep is short, so that a holder killed between its two steps costs milliseconds);
//! - a dead holder's lock is taken only by the arbiter, which knows of the death ([`Lock::seize`]).

use crate::control::Producer;
use crate::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::{Barrier, spin};
use crate::sys::futex;
use std::time::Duration;

/// The arbiter's number in the lock word.
pub const ARBITER: u32 = 0xffff;
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
    barrier: Barrier,
}

impl<'a> Lock<'a> {
    /// The lock in `state`.
    #[inline(always)]
    pub fn new(state: &'a Producer, barrier: Barrier) -> Self {
        Self { state, barrier }
    }

    /// Takes the lock if it is free.
    #[inline(always)]
    pub fn try_acquire(&self, me: u32) -> bool {
        // Acquire: pairs with the Release in `release`, and in `seize` of the arbiter.
        self.state.lock.compare_exchange(0, me, Acquire, Relaxed).is_ok()
    }

    /// Takes the lock. `stalled` is called after every sleep; it may end the process, or return false to give up.
    /// Returns whether the lock is held.
    #[inline(always)]
    pub fn acquire(&self, me: u32, stalled: impl FnMut() -> bool) -> bool {
        self.acquire_letting(me, || false, || (), stalled)
    }

    /// As [`Lock::acquire`]. After a sleep, when `holds` says that there is something to let in, calls `let_in`: it may
    /// run what does not come back (a signal handler that jumps), so this thread is not counted as waiting then.
    #[inline(always)]
    pub fn acquire_letting(
        &self,
        me: u32,
        holds: impl Fn() -> bool,
        let_in: impl Fn(),
        mut stalled: impl FnMut() -> bool,
    ) -> bool {
        self.try_acquire(me) || self.acquire_contended(me, &holds, &let_in, &mut stalled)
    }

    #[cold]
    #[inline(never)]
    fn acquire_contended(
        &self,
        me: u32,
        holds: &dyn Fn() -> bool,
        let_in: &dyn Fn(),
        stalled: &mut dyn FnMut() -> bool,
    ) -> bool {
        for round in 0..SPINS + YIELDS {
            if round < SPINS {
                spin();
            } else {
                futex::give_way();
            }
            if self.state.lock.load(Relaxed) == 0 && self.try_acquire(me) {
                return true;
            }
        }
        self.count();
        let held = loop {
            if self.try_acquire(me) {
                break true;
            }
            let holder = self.state.lock.load(Relaxed);
            if self.state.lock_waiters.load(Relaxed) == 0 {
                // Somebody has ended and all waiters were forgotten: say again that we are here.
                self.count();
            } else if holder != 0 {
                futex::wait(&self.state.lock, holder, NAP);
                if holds() {
                    self.uncount();
                    let_in();
                    self.count();
                }
                if !stalled() {
                    break self.try_acquire(me);
                }
            } else {
                spin();
            }
        };
        self.uncount();
        held
    }

    /// Says that one more waits.
    fn count(&self) {
        self.state.lock_waiters.fetch_add(1, Relaxed);
        // Heavy: pairs with the light barrier in `release`. Either we see the word free, or the holder sees us.
        self.barrier.heavy();
    }

    fn uncount(&self) {
        // They may have been forgotten meanwhile.
        let _ = self.state.lock_waiters.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
    }

    /// Frees the lock, which the caller holds.
    #[inline(always)]
    pub fn release(&self) {
        // Release: what the holder wrote is visible to whoever acquires next.
        self.state.lock.store(0, Release);
        self.barrier.light();
        if self.state.lock_waiters.load(Relaxed) != 0 {
            self.wake();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        futex::wake(&self.state.lock, 1);
    }

    /// As [`Lock::release`], and a full barrier for the caller's own accesses.
    #[inline(always)]
    pub fn release_fully(&self) {
        self.state.lock.swap(0, SeqCst);
        if self.state.lock_waiters.load(Relaxed) != 0 {
            self.wake();
        }
    }

    /// The arbiter takes over the lock of a process that has died holding it.
    ///
    /// Also forgets who waits: whoever ended while it did would be counted for ever, and cost every later release a
    /// system call. Those who still wait say so again after their nap.
    pub fn seize(&self, dead: u32) -> bool {
        if self.state.lock_waiters.load(Relaxed) != 0 {
            self.state.lock_waiters.store(0, Relaxed);
        }
        dead != 0 && self.state.lock.compare_exchange(dead, ARBITER, Acquire, Relaxed).is_ok()
    }

    /// As [`Lock::release`] after [`Lock::seize`], which has forgotten who waits: all are woken, and look.
    pub fn release_to_all(&self) {
        self.release();
        futex::wake(&self.state.lock, u32::MAX >> 1);
    }

    /// Who holds it now: 0 for nobody.
    pub fn holder(&self) -> u32 {
        self.state.lock.load(Relaxed)
    }
}
