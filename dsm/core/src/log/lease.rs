//! The lease of atomics: while one host alone is in the session, its processes carry out their atomics themselves,
//! under the replica lock, and log what they wrote as stores.
//!
//! Their place in the total order is then their place in this log, since no other host has operations. Invariants
//! (checked by `tests/simulation.rs`):
//! - `leased` is set only under the lock, in a state in which the server has answered every atomic of this log: what
//!   is read under the lease misses none;
//! - no atomic is logged for the server while it is set;
//! - an operand that lies on two lines is stored whole or not at all, whoever dies, although it takes two records;
//! - it is cleared, and [`Kind::Yield`] logged, under one hold of the lock: every store of a leased atomic precedes
//!   that record, and the server lets no other host touch a segment before it has it.

use super::HostLog;
use crate::limits::LINE;
use crate::lock::ARBITER;
use crate::log::Writer;
use crate::memory::Memory;
use crate::op::AtomicOp;
use crate::record::{AtomicBody, HEADER_WORDS, Kind, SyncBody, by_line, header};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::compiler_fence;

/// Set in the intent when it is for two records.
pub(super) const PAIR: u64 = 1 << 63;

impl<'a, const RING: usize, const INDEX: usize, const PAGES: usize, const SEATS: usize>
    HostLog<'a, RING, INDEX, PAGES, SEATS>
{
    /// Is authority over atomics leased to this host? Certain only under the lock.
    #[inline(always)]
    pub fn leased(&self) -> bool {
        self.control().producer.leased.load(Relaxed) != 0
    }

    /// As [`HostLog::atomic`], for an operand that is a naturally aligned word of `N` bytes, up to 8; `None`, and nothing
    /// done, also where it would have to wait for the lock or for room.
    #[inline(always)]
    pub fn try_atomic_word<const N: usize>(
        &self,
        memory: &impl Memory,
        writer: &impl Writer,
        offset: u64,
        op: &AtomicOp,
    ) -> Option<u128> {
        if !self.leased() {
            return None;
        }
        let hold = self.lock().try_enter(writer.number(), writer.favour())?;
        let tail = self.room_for_word().filter(|_| self.leased());
        let old = tail.map(|tail| {
            let mut bytes = [0; 16];
            bytes[..N].copy_from_slice(&memory.read_word::<N>(offset));
            let old = u128::from_le_bytes(bytes);
            let new = op.apply(old);
            if new != old {
                let word = std::array::from_fn::<u8, N, _>(|at| new.to_le_bytes()[at]);
                self.append_word(memory, tail, offset, word);
            }
            old
        });
        // As a locked instruction, this is a full barrier: nothing that follows is done before it.
        self.leave_fully(hold, writer);
        old
    }

    /// Carries out an atomic here and returns the old value; `None` when authority is not leased to this host. The
    /// operand must lie within one segment.
    #[inline(never)]
    pub fn atomic(&self, memory: &impl Memory, writer: &impl Writer, offset: u64, op: &AtomicOp) -> Option<u128> {
        if !self.leased() {
            return None;
        }
        let width = usize::from(op.width.min(16));
        let mut hold = self.enter(writer);
        // For two records, since the operand may lie on two lines. Making room may let others have the lock, so this
        // comes first.
        self.make_room(&mut hold, writer, 2 * (HEADER_WORDS + 2));
        let old = self.leased().then(|| {
            let mut bytes = [0; 16];
            memory.read(offset, &mut bytes[..width]);
            let old = u128::from_le_bytes(bytes);
            let new = op.apply(old);
            if new != old {
                let bytes = &new.to_le_bytes()[..width];
                if offset % LINE + width as u64 <= LINE {
                    self.append_store(&mut hold, memory, writer, offset, bytes);
                } else {
                    self.append_pair(memory, offset, bytes);
                }
            }
            old
        });
        self.leave_fully(hold, writer);
        old
    }

    /// Stores bytes on two lines: a record for each, and one intent and one step of the tail for both. There is room.
    fn append_pair(&self, memory: &impl Memory, offset: u64, bytes: &[u8]) {
        // Neighbouring lines are in different buckets, so the second record is never linked to the first.
        debug_assert!(INDEX > 1 && bytes.len() <= 16);
        let producer = &self.control().producer;
        let tail = producer.tail.load(Relaxed);
        let mut end = tail;
        for (offset, piece) in by_line(offset, bytes) {
            let mut payload = [0; 16];
            payload[..piece.len()].copy_from_slice(piece);
            let prev = self.link(self.store_bucket(offset, piece.len()), end, |_, _| false);
            let [low, high] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|byte| payload[at + byte])));
            // A word too many for a short piece: what follows it is written later.
            let words = [header(Kind::Store, 0, piece.len() as u16, prev), offset, low, high];
            for (at, word) in (0..).zip(words) {
                self.word(end.wrapping_add(at)).store(word, Relaxed);
            }
            end = end.wrapping_add(words_of(piece));
        }
        // Release, and no later store moves up: whoever finds the intent finds both records.
        producer.intent.store(tail.wrapping_add(1) | PAIR, Release);
        compiler_fence();
        let mut at = tail;
        for (offset, piece) in by_line(offset, bytes) {
            self.store_bucket(offset, piece.len()).store(at.wrapping_add(1), Relaxed);
            memory.write(offset, piece);
            at = at.wrapping_add(words_of(piece));
        }
        self.advance(tail, end.wrapping_sub(tail) as usize);
    }

    /// Logs an atomic for the server; false when authority has been leased to this host meanwhile, or when it is not
    /// `wanted` any more: see [`HostLog::submit`].
    pub fn submit_atomic(
        &self,
        writer: &impl Writer,
        wanted: impl Fn() -> bool,
        offset: u64,
        body: &AtomicBody,
    ) -> bool {
        const WORDS: usize = HEADER_WORDS + size_of::<AtomicBody>() / 8;
        let mut hold = self.enter(writer);
        self.make_room(&mut hold, writer, WORDS);
        let ours = !self.leased() && wanted();
        if ours {
            let control = self.control();
            self.put_other(control.producer.tail.load(Relaxed), Kind::Atomic, 0, offset, bytemuck::bytes_of(body));
            control.rare.atomics.store(control.producer.tail.load(Relaxed), Relaxed);
        }
        self.leave(hold, writer);
        ours
    }

    /// The arbiter begins to use the lease; false when somebody holds the lock, or an atomic is still on its way to the
    /// server.
    pub fn try_lease(&self) -> bool {
        let (lock, control) = (self.lock(), self.control());
        if !lock.try_acquire(ARBITER) {
            return false;
        }
        let quiet = control.arbiter.acked.load(Relaxed) >= control.rare.atomics.load(Relaxed);
        if quiet {
            control.producer.leased.store(1, Relaxed);
        }
        lock.release();
        quiet
    }

    /// The arbiter gives the lease back; false when somebody holds the lock or the ring is full.
    pub fn try_yield(&self) -> bool {
        const WORDS: usize = HEADER_WORDS + size_of::<SyncBody>() / 8;
        let (lock, control) = (self.lock(), self.control());
        if !lock.try_acquire(ARBITER) {
            return false;
        }
        let tail = control.producer.tail.load(Relaxed);
        let used = tail.wrapping_sub(control.arbiter.acked.load(Acquire));
        let room = used.saturating_add(WORDS as u64) <= RING as u64;
        if room {
            control.producer.leased.store(0, Relaxed);
            self.put_other(tail, Kind::Yield, 0, 0, &[0; size_of::<SyncBody>()]);
        }
        lock.release();
        room
    }
}

/// Words of the record of a store.
fn words_of(bytes: &[u8]) -> u64 {
    (HEADER_WORDS + bytes.len().div_ceil(8)) as u64
}
