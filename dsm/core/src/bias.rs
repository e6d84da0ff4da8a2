//! A replica lock that leans towards one thread, which then takes it without a locked instruction.
//!
//! Biased locking, as for monitors (Kawachiya, Koseki, Onodera: Lock Reservation, OOPSLA 2002), with the asymmetric
//! [`Barrier`](crate::sync::Barrier) instead of stopping the favoured thread (Dice, Moir, Scherer: Quickly Reacquirable
//! Locks, 2003). A thread that was the only one to take the lock for a while releases it not as free but as biased to a
//! [`Bias`] of its own. From then on it says `inside = 1`, looks whether the word still says so, and is in. Whoever else
//! wants the lock changes the word, passes a heavy barrier and waits until `inside` is 0: either the favoured thread
//! sees the new word, or the other sees it inside.
//!
//! Why every thread has a `Bias` of its own: one that has lost the lock finds out only when it comes again, and until
//! then may write its `inside` at any time.

use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64};
use crate::sys::process::thread_ended;
use std::cell::Cell;

/// Threads of one host that a lock can be biased to, in turn.
pub const BIASES: usize = if cfg!(loom) { 2 } else { 64 };
/// How often a thread must have taken the lock, and nobody else, for it to be biased: as many stores as the way back
/// costs a few times over.
pub const PATIENCE: u32 = 1000;
/// Of [`Favour::slot`]: none.
const NONE: u32 = u32::MAX;

/// Where one thread says that it is inside: a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Bias {
    /// Whose: process (upper half) and thread, as the kernel numbers it; 0 for nobody's.
    owner: AtomicU64,
    /// 1 while the owner is inside, or is about to find out that it is not.
    pub(crate) inside: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bias>() == 64 && BIASES < 1 << 15);

impl Bias {
    /// Nobody's.
    pub fn new() -> Self {
        Self { owner: AtomicU64::new(0), inside: AtomicU32::new(0) }
    }

    /// The process that it belongs to; 0 for none.
    pub fn process(&self) -> u32 {
        (self.owner.load(Acquire) >> 32) as u32
    }

    /// Is the owner inside, as far as one can see?
    pub(crate) fn is_inside(&self) -> bool {
        // Acquire: pairs with the Release with which it leaves.
        self.inside.load(Acquire) != 0
    }

    /// Nobody's again. The caller knows that the owner can store no more.
    pub(crate) fn free(&self) {
        self.inside.store(0, Release);
        self.owner.store(0, Release);
    }

    fn claim(&self, expected: u64, owner: u64) -> bool {
        self.owner.compare_exchange(expected, owner, AcqRel, Relaxed).is_ok()
    }
}

impl Default for Bias {
    fn default() -> Self {
        Self::new()
    }
}

/// What a thread knows of the lock that may be biased to it. Belongs to one thread and one session.
#[derive(Debug)]
pub struct Favour {
    /// The thread's number, and that of its process, as the kernel numbers them.
    thread: Cell<u32>,
    process: Cell<u32>,
    /// The [`Bias`] that the lock was released with, when it was, and is perhaps still.
    slot: Cell<u32>,
    /// How often in a row this thread, and nobody else, has taken the lock.
    streak: Cell<u32>,
    /// [`PATIENCE`], but in tests.
    patience: u32,
}

impl Favour {
    /// Of a thread that never had the lock. It has no number yet.
    pub const fn new() -> Self {
        Self::with_patience(PATIENCE)
    }

    /// As [`Favour::new`], with this in place of [`PATIENCE`].
    pub const fn with_patience(patience: u32) -> Self {
        Self { thread: Cell::new(0), process: Cell::new(0), slot: Cell::new(NONE), streak: Cell::new(0), patience }
    }

    /// Begins anew, as the thread with this number of the process with that.
    pub fn reset(&self, thread: u32, process: u32) {
        self.thread.set(thread);
        self.process.set(process);
        self.lose();
    }

    /// The lock is not biased to this thread any more.
    pub(crate) fn lose(&self) {
        self.slot.set(NONE);
        self.streak.set(0);
    }

    /// The number of the bias that this thread believes in.
    #[inline(always)]
    pub(crate) fn slot(&self) -> u32 {
        self.slot.get()
    }

    /// Notes that this thread has the lock, in `last` that nobody else had it since. Shall it be biased?
    #[inline(always)]
    pub(crate) fn again(&self, last: &AtomicU32) -> bool {
        if last.load(Relaxed) != self.thread.get() {
            last.store(self.thread.get(), Relaxed);
            self.streak.set(0);
        }
        let streak = self.streak.get();
        self.streak.set(streak.wrapping_add(1));
        streak >= self.patience
    }

    /// Finds a bias for this thread of `process`, which is its number on the host.
    pub(crate) fn claim(&self, biases: &[Bias], process: u32) -> Option<u32> {
        self.streak.set(0);
        let own = u64::from(process) << 32 | u64::from(self.thread.get());
        let mine = |bias: &Bias| bias.owner.load(Relaxed) == own;
        let left = |bias: &Bias| {
            let owner = bias.owner.load(Relaxed);
            let over = owner >> 32 == u64::from(process) && thread_ended(self.process.get(), owner as u32);
            // Of one that has ended inside, the arbiter knows when its process has.
            over && !bias.is_inside() && bias.claim(owner, own)
        };
        let slot = (biases.iter().position(mine))
            .or_else(|| biases.iter().position(|bias| bias.claim(0, own)))
            .or_else(|| biases.iter().position(left))?;
        self.slot.set(slot as u32);
        Some(slot as u32)
    }
}

impl Default for Favour {
    fn default() -> Self {
        Self::new()
    }
}
