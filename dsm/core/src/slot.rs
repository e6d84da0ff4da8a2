//! Waiting slots: where a thread leaves word that it waits for an answer, and the arbiter puts the answer.
//!
//! A slot is claimed for one operation. Its `claim` word holds a generation (upper 48 bits) and the process that
//! holds it (lower 16, 0 for free); the token that travels with the operation is generation and slot number, so an
//! answer that comes too late, or that was made up, finds no taker.

use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64, Barrier};
use crate::sys::futex;
use crate::wire::Reply;

/// Not answered yet.
const WAITING: u32 = 0;
/// The answer is there.
const ANSWERED: u32 = 1;
/// Nobody waits any more; whoever has the answer frees the slot.
const ABANDONED: u32 = 2;

/// Somebody sleeps, or is about to, on `state`.
const SLEEPING: u32 = 1;
/// Somebody wants the bell of their process to be rung instead.
const LISTENING: u32 = 2;

/// One slot: a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Slot {
    claim: AtomicU64,
    state: AtomicU32,
    sleeping: AtomicU32,
    status: AtomicU32,
    _reserved: AtomicU32,
    value: [AtomicU64; 2],
    fence: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 64);

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// A [`crate::wire::status`] code.
    pub status: u32,
    /// The old value of an atomic, or what the status says.
    pub value: u128,
    /// Fencing token of a grant.
    pub fence: u64,
}

impl Slot {
    /// A free slot.
    pub fn new() -> Self {
        let word = || AtomicU32::new(0);
        let long = || AtomicU64::new(0);
        Self {
            claim: long(),
            state: word(),
            sleeping: word(),
            status: word(),
            _reserved: word(),
            value: [long(), long()],
            fence: long(),
        }
    }

    /// Claims the slot with this number for `process`. Returns the token, or `None` if it is taken.
    pub fn claim(&self, number: u16, process: u32) -> Option<u64> {
        let free = self.claim.load(Relaxed);
        if free & 0xffff != 0 || process == 0 || process > 0xffff {
            return None;
        }
        let generation = (free >> 16).wrapping_add(1) & 0xffff_ffff_ffff;
        let claimed = generation << 16 | u64::from(process);
        // Acquire: pairs with the Release in `free`, so that the last user's reads are over.
        self.claim.compare_exchange(free, claimed, AcqRel, Relaxed).ok()?;
        self.state.store(WAITING, Relaxed);
        self.sleeping.store(0, Relaxed);
        Some(generation << 16 | u64::from(number))
    }

    /// Gives the slot back, if it is still the one that `process` has claimed under this token. (A child of `fork` that
    /// was made in the middle of a wait is another process: the slot is its parent's.)
    pub fn free(&self, token: u64, process: u32) {
        let claimed = token & !0xffff | u64::from(process & 0xffff);
        // Release: pairs with the Acquire in `claim`.
        let _ = self.claim.compare_exchange(claimed, claimed & !0xffff, Release, Relaxed);
    }

    /// Stops waiting without an answer: the slot is freed when that comes. False when it has come already. Only for
    /// operations whose answer nobody needs.
    pub fn abandon(&self) -> bool {
        self.state.compare_exchange(WAITING, ABANDONED, Relaxed, Relaxed).is_ok()
    }

    /// Frees the slot if it belongs to a process that has ended. Only the arbiter calls this.
    pub fn reclaim(&self, process: u32) {
        let claimed = self.claim.load(Acquire);
        if claimed & 0xffff == u64::from(process) {
            let _ = self.claim.compare_exchange(claimed, claimed & !0xffff, AcqRel, Relaxed);
        }
    }

    /// The answer, if it is there.
    pub fn answer(&self) -> Option<Answer> {
        // Acquire: pairs with the Release in `deliver`.
        (self.state.load(Acquire) == ANSWERED).then(|| Answer {
            status: self.status.load(Relaxed),
            value: crate::record::whole([self.value[0].load(Relaxed), self.value[1].load(Relaxed)]),
            fence: self.fence.load(Relaxed),
        })
    }

    /// Sleeps until the answer is there, or `nap` is over, or for no reason.
    pub fn sleep(&self, nap: std::time::Duration, barrier: Barrier) {
        self.sleeping.store(SLEEPING, Relaxed);
        // Heavy: pairs with the light barrier in `deliver`.
        barrier.heavy();
        if self.state.load(Acquire) == WAITING {
            futex::wait(&self.state, WAITING, nap);
        }
        self.sleeping.store(0, Relaxed);
    }

    /// Puts the answer in, if the slot still belongs to `token`'s operation. Only the arbiter calls this.
    pub fn deliver(&self, token: u64, reply: &Reply, barrier: Barrier) -> bool {
        let claimed = self.claim.load(Acquire);
        if claimed >> 16 != token >> 16 || claimed & 0xffff == 0 || self.state.load(Relaxed) == ANSWERED {
            return false;
        }
        self.status.store(reply.status, Relaxed);
        for (to, from) in self.value.iter().zip(reply.old) {
            to.store(from, Relaxed);
        }
        self.fence.store(reply.fence, Relaxed);
        // Release: pairs with the Acquire in `answer`.
        if self.state.compare_exchange(WAITING, ANSWERED, Release, Relaxed).is_err() {
            self.free(token, claimed as u32);
            return false;
        }
        barrier.light();
        if self.sleeping.load(Relaxed) == SLEEPING {
            futex::wake(&self.state, 1);
        }
        true
    }

    /// From now on the bell of the caller's process is rung when the answer comes. It may have come by now.
    pub fn listen(&self, barrier: Barrier) {
        if self.sleeping.swap(LISTENING, Relaxed) != LISTENING {
            // Heavy: pairs with the light barrier in `deliver`.
            barrier.heavy();
        }
    }

    /// The process whose bell is to be rung, now that the answer to `token`'s operation has been delivered. Only the
    /// arbiter calls this.
    pub fn listener(&self, token: u64) -> Option<u32> {
        let claimed = self.claim.load(Acquire);
        let held = claimed >> 16 == token >> 16 && claimed & 0xffff != 0;
        (held && self.sleeping.load(Relaxed) == LISTENING).then_some(claimed as u32 & 0xffff)
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}
