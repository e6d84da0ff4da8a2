//! Waiting until somebody changes a word of shared memory.
//!
//! A store pays nothing for it: the arbiter, which drains every store of its host and applies every other, is the one
//! who wakes. Lines of 64 bytes share [`BUCKETS`] buckets. A bucket has a bit in `sleeping`, set by whoever is about
//! to sleep and cleared by the arbiter when it wakes them, and an epoch, which is what they sleep on.
//!
//! Invariant (checked by `tests/loom.rs`): nobody sleeps on a change that the arbiter has seen. A waiter
//! (1) reads the epoch, (2) sets the bit, (3) passes the heavy barrier, (4) looks at the word, and (5) sleeps while the
//! epoch is what it was. The arbiter (a) drains or applies the change, (b) passes the light barrier, (c) looks at the
//! bits, (d) clears those of the buckets that were touched, (e) moves their epochs on and wakes. If (c) misses the
//! bit, then (4) sees the change, by the barriers. Else (d) comes after (2), so that (e) moves the epoch away from what
//! (1) has read, and (5) does not sleep or is woken.
//!
//! A bit that nobody waits behind any more (a timeout, a death) costs one wake-up of nobody.
//!
//! `listening` is the same for those who cannot sleep on a word: the arbiter rings the bells of their processes.

use crate::limits::LINE;
use crate::record::records;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{AtomicU32, AtomicU64, Barrier};
use crate::sys::futex;
use crate::wire::{FrameKind, Reply};
use std::time::Duration;

/// Buckets: one for each bit of a word.
pub const BUCKETS: usize = if cfg!(loom) { 2 } else { 64 };

/// The words that waiters and arbiter share.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Watch {
    sleeping: AtomicU64,
    listening: AtomicU64,
    epochs: [AtomicU32; BUCKETS],
}

/// The right to sleep, until the bucket is touched after it was given out.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    bucket: usize,
    epoch: u32,
}

/// A set of lines, as their buckets: perhaps more lines than were put in, never fewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines(u64);

fn bucket(offset: u64) -> usize {
    (offset / LINE) as usize % BUCKETS
}

impl Watch {
    /// Nobody waits.
    pub fn new() -> Self {
        let (sleeping, listening) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { sleeping, listening, epochs: std::array::from_fn(|_| AtomicU32::new(0)) }
    }

    /// Says that the caller is about to sleep until the line at `offset` changes. It looks at the line after this, and
    /// before [`Watch::sleep`].
    pub fn enter(&self, offset: u64, barrier: Barrier) -> Turn {
        let bucket = bucket(offset);
        // Acquire: pairs with the Release in `move_on`; whoever sees the new epoch sees the change.
        let epoch = self.epochs[bucket].load(Acquire);
        // Release: pairs with the Acquire in `wake`, so that the epoch above is an old one where the bit is cleared.
        self.sleeping.fetch_or(1 << bucket, AcqRel);
        // Heavy: pairs with the light barrier in `watched`.
        barrier.heavy();
        Turn { bucket, epoch }
    }

    /// Sleeps until the line has perhaps changed, or `nap` is over, or for no reason.
    pub fn sleep(&self, turn: Turn, nap: Duration) {
        futex::wait(&self.epochs[turn.bucket], turn.epoch, nap);
    }

    /// Was the line perhaps touched since?
    pub fn is_over(&self, turn: Turn) -> bool {
        self.epochs[turn.bucket].load(Acquire) != turn.epoch
    }

    /// As [`Watch::enter`], for a caller whose process has a bell: it is rung when the line has perhaps changed.
    pub fn listen(&self, offset: u64, barrier: Barrier) {
        self.listening.fetch_or(1 << bucket(offset), AcqRel);
        // Heavy: pairs with the light barrier in `watched`.
        barrier.heavy();
    }

    /// Does anybody wait? Asked after a change was drained or applied. Only the arbiter calls this.
    #[inline]
    pub fn watched(&self, barrier: Barrier) -> bool {
        barrier.light();
        self.sleeping.load(Relaxed) | self.listening.load(Relaxed) != 0
    }

    /// Wakes those who sleep until one of these lines changes. Returns whether bells must be rung. Only the arbiter
    /// calls this, after [`Watch::watched`].
    pub fn wake(&self, lines: Lines) -> bool {
        let woken = self.sleeping.load(Relaxed) & lines.0;
        if woken != 0 {
            // Acquire: pairs with the Release in `enter`.
            self.sleeping.fetch_and(!woken, AcqRel);
            (0..BUCKETS).filter(|bucket| woken >> bucket & 1 != 0).for_each(|bucket| self.move_on(bucket));
        }
        let heard = self.listening.load(Relaxed) & lines.0;
        if heard != 0 {
            self.listening.fetch_and(!heard, AcqRel);
        }
        heard != 0
    }

    /// Wakes everybody who sleeps, whatever for. Only the arbiter calls this.
    pub fn wake_all(&self) {
        (0..BUCKETS).for_each(|bucket| self.move_on(bucket));
    }

    fn move_on(&self, bucket: usize) {
        // Release: pairs with the Acquire in `enter`.
        self.epochs[bucket].fetch_add(1, Release);
        futex::wake(&self.epochs[bucket], u32::MAX >> 1);
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Lines {
    /// Adds the lines of `len` bytes at `offset`.
    pub fn add(&mut self, offset: u64, len: u64) {
        let (first, last) = (offset / LINE, offset.saturating_add(len.saturating_sub(1)) / LINE);
        if last - first >= BUCKETS as u64 {
            self.0 = u64::MAX;
        } else if len > 0 {
            (first..=last).for_each(|line| self.0 |= 1 << bucket(line * LINE));
        }
    }

    /// The lines that whole records store to.
    pub fn of_records(payload: &[u8]) -> Self {
        let mut lines = Self::default();
        let extents = records(payload).map_while(Result::ok).filter_map(|record| record.extent());
        extents.for_each(|(offset, len)| lines.add(offset, len));
        lines
    }

    /// The lines that an applied frame has stored to. (Nobody waits at a segment whose bytes are still to come.)
    pub fn of_frame(kind: FrameKind, payload: &[u8]) -> Self {
        let mut lines = Self::default();
        match kind {
            FrameKind::Records => return Self::of_records(payload),
            FrameKind::Reply => {
                let reply = bytemuck::try_pod_read_unaligned::<Reply>(payload);
                reply.iter().for_each(|reply| lines.add(reply.offset, u64::from(reply.width)));
            }
            _ => {}
        }
        lines
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::record::push_store;

    #[test]
    fn lines_are_those_that_were_stored_to() {
        let mut payload = Vec::new();
        push_store(&mut payload, 64, &[1; 8]);
        push_store(&mut payload, 64 * 65 + 3, &[1; 2]);
        push_store(&mut payload, 64 * 10, &[1; 64]);
        assert_eq!(Lines::of_records(&payload), Lines(1 << 1 | 1 << 10));
        let mut lines = Lines::default();
        lines.add(0, 0);
        assert_eq!(lines, Lines(0));
        lines.add(64 * 62 + 63, 66);
        assert_eq!(lines, Lines(1 << 62 | 1 << 63 | 1));
        lines.add(64, 64 * 64 + 1);
        assert_eq!(lines, Lines(u64::MAX));
        lines.add(u64::MAX, u64::MAX);
    }

    #[test]
    fn who_waits_is_woken_once_for_each_time_that_it_says_so() {
        let (watch, barrier) = (Watch::new(), Barrier::new(false));
        let mut line = Lines::default();
        line.add(64, 1);
        let mut other = Lines::default();
        other.add(128, 1);
        assert!(!watch.watched(barrier));
        let turn = watch.enter(64, barrier);
        assert!(watch.watched(barrier));
        assert!(!watch.wake(other));
        assert!(watch.watched(barrier));
        assert!(!watch.wake(line));
        assert!(!watch.watched(barrier));
        // Does not sleep: the epoch has moved on.
        watch.sleep(turn, Duration::from_secs(3600));
        watch.listen(64, barrier);
        assert!(watch.watched(barrier) && !watch.wake(other) && watch.wake(line) && !watch.watched(barrier));
    }
}
