//! The host log: one ring of records per session and host, in memory that all its processes and the arbiter share.
//!
//! Every captured store goes through [`HostLog::store`], under the replica lock:
//!
//! 1. write the record beyond the tail (nobody looks there);
//! 2. `intent = tail + 1`: from here on the operation will happen, whoever dies;
//! 3. enter it in the pending index, 4. store the bytes in the replica, 5. move the tail past the record.
//!
//! Steps 3 to 5 only depend on the record and may be repeated, so a takeover repeats them ([`HostLog::recover`]): the
//! record is a redo log of one entry (of two, for a leased atomic on two lines). A death before step 2 leaves nothing
//! behind.
//!
//! A record stays in the ring until its acknowledgement, so `[acked, tail)` is the set of own pending operations.
//! Three hash tables lead from an address to the newest pending record there: for records within one 8-byte word,
//! within one line, and for bulk records of one page. Records of a bucket are linked backwards by `prev`; entries are
//! never removed, a position before `acked` just means nothing any more. A record that lies wholly under a newer one
//! is left out of the chain (the newer stays pending longer), which keeps chains short on hot words.

mod lease;
mod pending;
mod recovery;

use crate::bias::{BIASES, Bias, Favour};
use crate::control::{ASLEEP, AWAKE, Control, Ended, GONE};
use crate::limits::{LINE, LINE_INDEX, PAGE, PAGE_INDEX, RING_WORDS, SLOTS};
use crate::lock::{Hold, Lock};
use crate::memory::Memory;
use crate::record::{HEADER_WORDS, Kind, LONGEST, MASKED, Malformed, by_line, header, records, shape};
use crate::slot::Slot;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU64, Barrier, compiler_fence, count_down};
use crate::sys::futex;
use std::fmt;
use std::time::Duration;

/// What lies in the shared memory of a session on one host. All zeros is the empty log.
#[repr(C, align(4096))]
pub struct Area<const RING: usize, const INDEX: usize, const PAGES: usize, const SEATS: usize> {
    /// The control block.
    pub control: Control,
    slots: [Slot; SEATS],
    words: [AtomicU64; INDEX],
    lines: [AtomicU64; INDEX],
    pages: [AtomicU64; PAGES],
    ring: [AtomicU64; RING],
    biases: [Bias; BIASES],
}

/// Without its words, of which there are megabytes.
impl<const RING: usize, const INDEX: usize, const PAGES: usize, const SEATS: usize> fmt::Debug
    for Area<RING, INDEX, PAGES, SEATS>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Area").field("control", &self.control).finish_non_exhaustive()
    }
}

/// The sizes that all programs use; simulations and model checks use smaller ones.
pub type SharedArea = Area<RING_WORDS, LINE_INDEX, PAGE_INDEX, SLOTS>;

impl<const RING: usize, const INDEX: usize, const PAGES: usize, const SEATS: usize> Area<RING, INDEX, PAGES, SEATS> {
    /// An empty log on the heap.
    pub fn boxed(host: u16) -> Box<Self> {
        let zeros = |_| AtomicU64::new(0);
        Box::new(Self {
            control: Control::new(host, false),
            slots: std::array::from_fn(|_| Slot::new()),
            words: std::array::from_fn(zeros),
            lines: std::array::from_fn(zeros),
            pages: std::array::from_fn(zeros),
            ring: std::array::from_fn(zeros),
            biases: std::array::from_fn(|_| Bias::new()),
        })
    }

    /// The log in this area.
    pub fn log(&self) -> HostLog<'_, RING, INDEX, PAGES, SEATS> {
        self.log_with(Barrier::new(self.control.fixed.asymmetric.load(Relaxed) != 0))
    }

    /// As [`Area::log`], for who knows the barrier that all parties use, and does not ask memory that they all can write.
    pub fn log_with(&self, barrier: Barrier) -> HostLog<'_, RING, INDEX, PAGES, SEATS> {
        HostLog { area: self, barrier }
    }
}

/// Through which door a store came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A typed accessor.
    Direct,
    /// A trapped instruction.
    Trap,
}

/// What a log needs of the process that writes to it.
pub trait Writer {
    /// This process's number on its host.
    fn number(&self) -> u32;
    /// What the calling thread knows of the lock that may be biased to it. `None` for one that it is not to be biased to.
    #[inline(always)]
    fn favour(&self) -> Option<&Favour> {
        None
    }
    /// Wakes the arbiter.
    fn ring_doorbell(&self);
    /// Called every few milliseconds of waiting for the lock or for room. Ends the process (or panics) when what it
    /// waits for can no longer come.
    fn stalled(&self);
    /// Is there something that waits until this thread does not hold the lock?
    fn holds(&self) -> bool {
        false
    }
    /// Lets it in. It may not come back.
    fn let_in(&self) {}
}

/// The host log in an [`Area`].
#[derive(Clone, Copy, Debug)]
pub struct HostLog<'a, const RING: usize, const INDEX: usize, const PAGES: usize, const SEATS: usize> {
    area: &'a Area<RING, INDEX, PAGES, SEATS>,
    barrier: Barrier,
}

/// The log that all programs use.
pub type SharedLog<'a> = HostLog<'a, RING_WORDS, LINE_INDEX, PAGE_INDEX, SLOTS>;

/// How many words ahead of the tail the ring is prefetched.
#[cfg(not(any(loom, miri)))]
const AHEAD: u64 = 128;
/// Words of the record of a word.
const WORD_RECORD: u64 = HEADER_WORDS as u64 + 1;
/// Sleeping for room in the ring.
const NAP: Duration = Duration::from_millis(2);

impl<'a, const RING: usize, const INDEX: usize, const PAGES: usize, const SEATS: usize>
    HostLog<'a, RING, INDEX, PAGES, SEATS>
{
    const SIZES: () = assert!(RING.is_power_of_two() && INDEX.is_power_of_two() && PAGES.is_power_of_two());

    /// The shared words.
    #[inline(always)]
    pub fn control(&self) -> &'a Control {
        &self.area.control
    }

    /// The barrier that all parties of this log use.
    #[inline(always)]
    pub fn barrier(&self) -> Barrier {
        self.barrier
    }

    /// The replica lock.
    #[inline(always)]
    pub fn lock(&self) -> Lock<'a> {
        Lock::new(&self.area.control.producer, &self.area.biases, self.barrier)
    }

    /// The slots for waiting.
    pub fn slots(&self) -> &'a [Slot] {
        &self.area.slots
    }

    /// Why the session has ended on this host, if it has.
    pub fn ended(&self) -> Option<Ended> {
        Ended::from_u32(self.control().rare.ended.load(Acquire))
    }

    #[inline(always)]
    fn word(&self, position: u64) -> &'a AtomicU64 {
        let () = Self::SIZES;
        &self.area.ring[position as usize & (RING - 1)]
    }

    /// Stores bytes within one 64-byte line, and logs them: the one function in which both doors end.
    #[inline(always)]
    pub fn store(&self, memory: &impl Memory, writer: &impl Writer, door: Door, offset: u64, bytes: &[u8]) {
        debug_assert!(!bytes.is_empty() && offset % LINE + bytes.len() as u64 <= LINE);
        let mut hold = self.enter(writer);
        self.append_store(&mut hold, memory, writer, offset, bytes);
        self.count(door);
        self.leave(hold, writer);
    }

    /// As [`HostLog::store`], for a naturally aligned word of 1, 2, 4 or 8 bytes; false, and nothing done, where it would
    /// have to wait for the lock or for room. All lengths are constants, so that it is half as long.
    #[inline(always)]
    pub fn try_store_word<const N: usize>(
        &self,
        memory: &impl Memory,
        writer: &impl Writer,
        door: Door,
        offset: u64,
        word: [u8; N],
    ) -> bool {
        let Some(hold) = self.lock().try_enter(writer.number(), writer.favour()) else { return false };
        let tail = self.room_for_word();
        if let Some(tail) = tail {
            self.append_word(memory, tail, offset, word);
            self.count(door);
        }
        self.leave(hold, writer);
        tail.is_some()
    }

    /// The tail, if the record of a word is known to fit there. The caller holds the lock.
    #[inline(always)]
    fn room_for_word(&self) -> Option<u64> {
        let producer = &self.control().producer;
        let tail = producer.tail.load(Relaxed);
        let used = tail.wrapping_sub(producer.acked_seen.load(Relaxed));
        (used <= RING as u64 - WORD_RECORD).then_some(tail)
    }

    /// Counts a store. The caller holds the lock.
    #[inline(always)]
    fn count(&self, door: Door) {
        let producer = &self.control().producer;
        let counter = if door == Door::Direct { &producer.direct } else { &producer.trapped };
        counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Stores any number of bytes: a record for every line, without another store of this host in between as long as
    /// the ring has room.
    #[inline(never)]
    pub fn store_long(&self, memory: &impl Memory, writer: &impl Writer, door: Door, offset: u64, bytes: &[u8]) {
        let mut hold = self.enter(writer);
        for (offset, piece) in by_line(offset, bytes) {
            self.append_store(&mut hold, memory, writer, offset, piece);
        }
        self.count(door);
        self.leave(hold, writer);
    }

    /// Publishes changed lines of one page, the first at `offset`, with a mask of the bytes that count for each.
    pub fn publish(&self, memory: &impl Memory, writer: &impl Writer, offset: u64, masks: &[u64], lines: &[[u8; 64]]) {
        let count = lines.len();
        debug_assert!(count > 0 && count == masks.len());
        debug_assert!(offset.is_multiple_of(LINE) && offset % PAGE + count as u64 * LINE <= PAGE);
        let full = masks.iter().all(|mask| *mask == u64::MAX);
        let flags = if full { 0 } else { MASKED };
        let need = HEADER_WORDS + count * if full { 8 } else { 9 };
        let mut hold = self.enter(writer);
        self.make_room(&mut hold, writer, need);
        let tail = self.control().producer.tail.load(Relaxed);
        let mut at = tail + HEADER_WORDS as u64;
        if !full {
            for mask in masks {
                self.word(at).store(*mask, Relaxed);
                at += 1;
            }
        }
        self.put_lines(at, lines);
        self.word(tail + 1).store(offset, Relaxed);
        let bucket = self.page_bucket(offset);
        let prev = self.link(bucket, tail, |_, _| false);
        self.word(tail).store(header(Kind::Bulk, flags, count as u16, prev), Relaxed);
        self.intend(tail);
        bucket.store(tail + 1, Relaxed);
        if full {
            memory.write(offset, lines.as_flattened());
        } else {
            for ((mask, bytes), at) in masks.iter().zip(lines).zip((offset..).step_by(LINE as usize)) {
                memory.write_masked(at, bytes, *mask);
            }
        }
        self.advance(tail, need);
        let bulk = &self.control().producer.bulk;
        bulk.store(bulk.load(Relaxed).wrapping_add(1), Relaxed);
        self.leave(hold, writer);
    }

    /// Writes the words of lines at `at`.
    #[inline(always)]
    fn put_lines(&self, at: u64, lines: &[[u8; 64]]) {
        #[cfg(not(any(loom, miri)))]
        {
            let start = at as usize & (RING - 1);
            if let Some(run) = self.area.ring.get(start..start + lines.len() * 8) {
                let to = std::ptr::from_ref(run).cast::<u8>().cast_mut();
                // SAFETY: that many words of the ring, which are atomics and may be written through what is shared;
                // `lines` is the caller's own.
                unsafe { crate::memory::copy_lines(to, lines.as_ptr().cast(), lines.len()) };
                return;
            }
        }
        for (at, word) in (at..).zip(lines.iter().flat_map(|line| line.as_chunks::<8>().0)) {
            self.word(at).store(u64::from_le_bytes(*word), Relaxed);
        }
    }

    /// Appends a record that is not a store: an operation for the total order; if it is still `wanted` when lock and room are
    /// there: a signal handler that was let in while this waited for them may have made a child, and what is done once for
    /// each operation is its parent's to do.
    pub fn submit(
        &self,
        writer: &impl Writer,
        wanted: impl Fn() -> bool,
        kind: Kind,
        flags: u8,
        place: u64,
        payload: &[u8],
    ) {
        let mut hold = self.enter(writer);
        self.make_room(&mut hold, writer, HEADER_WORDS + payload.len().div_ceil(8));
        if wanted() {
            self.put_other(self.control().producer.tail.load(Relaxed), kind, flags, place, payload);
        }
        self.leave(hold, writer);
    }

    /// As [`HostLog::submit`], but instead of waiting for the lock or for room returns false. For the arbiter, for
    /// whom neither would come while it waits.
    pub fn try_submit(&self, kind: Kind, flags: u8, place: u64, payload: &[u8]) -> bool {
        let (lock, control) = (self.lock(), self.control());
        if !lock.try_acquire(crate::lock::ARBITER) {
            return false;
        }
        let tail = control.producer.tail.load(Relaxed);
        let need = HEADER_WORDS + payload.len().div_ceil(8);
        let room = tail.wrapping_sub(control.arbiter.acked.load(Relaxed)).saturating_add(need as u64) <= RING as u64;
        if room {
            self.put_other(tail, kind, flags, place, payload);
        }
        lock.release();
        room
    }

    /// Takes the lock.
    #[inline(always)]
    fn enter<'h>(&self, writer: &'h impl Writer) -> Hold<'h>
    where
        'a: 'h,
    {
        self.lock().enter(
            || writer.number(),
            writer.favour(),
            || writer.holds(),
            || writer.let_in(),
            || writer.stalled(),
        )
    }

    /// Frees the lock, and sees to it that the arbiter is up.
    #[inline(always)]
    fn leave(&self, hold: Hold<'_>, writer: &impl Writer) {
        self.lock().leave(hold, writer.number());
        self.notify(writer);
    }

    /// As [`Self::leave`], and a full barrier for the caller's own accesses.
    #[inline(always)]
    fn leave_fully(&self, hold: Hold<'_>, writer: &impl Writer) {
        self.lock().leave_fully(hold, writer.number());
        self.notify(writer);
    }

    #[inline(always)]
    fn append_store<'h>(
        &self,
        hold: &mut Hold<'h>,
        memory: &impl Memory,
        writer: &'h impl Writer,
        offset: u64,
        bytes: &[u8],
    ) where
        'a: 'h,
    {
        let need = HEADER_WORDS + bytes.len().div_ceil(8);
        self.make_room(hold, writer, need);
        let tail = self.control().producer.tail.load(Relaxed);
        self.prefetch(tail);
        let within = in_line(offset, bytes.len());
        let (chunks, rest) = bytes.as_chunks::<8>();
        let mut at = tail + HEADER_WORDS as u64;
        for chunk in chunks {
            self.word(at).store(u64::from_le_bytes(*chunk), Relaxed);
            at += 1;
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(at).store(u64::from_le_bytes(last), Relaxed);
        }
        self.word(tail + 1).store(offset, Relaxed);
        let bucket = self.store_bucket(offset, bytes.len());
        let prev = self.link(bucket, tail, |head, place| {
            place / LINE == offset / LINE && in_line(place, (head >> 16 & 0xffff) as usize) & !within == 0
        });
        self.word(tail).store(header(Kind::Store, 0, bytes.len() as u16, prev), Relaxed);
        self.intend(tail);
        bucket.store(tail + 1, Relaxed);
        memory.write(offset, bytes);
        self.advance(tail, need);
    }

    /// As [`Self::append_store`], for a naturally aligned word of 1, 2, 4 or 8 bytes, for which there is room at `tail`:
    /// of records that it may shadow only one of the same word is looked for.
    #[inline(always)]
    fn append_word<const N: usize>(&self, memory: &impl Memory, tail: u64, offset: u64, word: [u8; N]) {
        debug_assert!(matches!(N, 1 | 2 | 4 | 8) && offset.is_multiple_of(N as u64));
        self.prefetch(tail);
        let mut payload = [0; 8];
        payload[..N].copy_from_slice(&word);
        // Wrapping: another process of the host may have put anything there.
        self.word(tail.wrapping_add(2)).store(u64::from_le_bytes(payload), Relaxed);
        self.word(tail.wrapping_add(1)).store(offset, Relaxed);
        let bucket = self.word_bucket(offset);
        let own = header(Kind::Store, 0, N as u16, 0);
        let prev = self.link(bucket, tail, |head, place| place == offset && head as u32 == own as u32);
        self.word(tail).store(own | u64::from(prev) << 32, Relaxed);
        self.intend(tail);
        bucket.store(tail.wrapping_add(1), Relaxed);
        memory.write_word(offset, word);
        self.advance(tail, WORD_RECORD as usize);
    }

    /// Writes a record that is not a store at the tail, where there is room for it.
    fn put_other(&self, tail: u64, kind: Kind, flags: u8, place: u64, payload: &[u8]) {
        let need = HEADER_WORDS + payload.len().div_ceil(8);
        // Wrapping, here and below: the arbiter comes by, and `tail` may hold anything.
        for (at, word) in (HEADER_WORDS as u64..).zip(payload.as_chunks::<8>().0) {
            self.word(tail.wrapping_add(at)).store(u64::from_le_bytes(*word), Relaxed);
        }
        self.word(tail.wrapping_add(1)).store(place, Relaxed);
        self.word(tail).store(header(kind, flags, payload.len() as u16, 0), Relaxed);
        self.advance(tail, need);
    }

    /// Asks for the line that will be written some records later: the arbiter has read it last, and fetching it back
    /// takes as long as several stores.
    #[inline(always)]
    fn prefetch(&self, tail: u64) {
        #[cfg(not(any(loom, miri)))]
        {
            let ahead = std::ptr::from_ref(self.word(tail.wrapping_add(AHEAD)));
            // By hand: `_mm_prefetch` asks for a copy to write only where the build names the processor's feature, and
            // for one to read else, so that the store would wait for the line after all.
            // SAFETY: a prefetch touches nothing; a processor that does not know it does nothing.
            unsafe { std::arch::asm!("prefetchw [{}]", in(reg) ahead, options(nostack, preserves_flags, readonly)) };
        }
        #[cfg(any(loom, miri))]
        let _ = tail;
    }

    /// Step 2.
    #[inline(always)]
    fn intend(&self, tail: u64) {
        // Release, and no later store moves up: whoever finds the intent finds the whole record.
        self.control().producer.intent.store(tail.wrapping_add(1), Release);
        compiler_fence();
    }

    /// Step 5.
    #[inline(always)]
    fn advance(&self, tail: u64, words: usize) {
        // Release: pairs with the Acquire in `drain`.
        self.control().producer.tail.store(tail.wrapping_add(words as u64), Release);
    }

    #[inline(always)]
    fn make_room<'h>(&self, hold: &mut Hold<'h>, writer: &'h impl Writer, need: usize)
    where
        'a: 'h,
    {
        let producer = &self.control().producer;
        let used = producer.tail.load(Relaxed).wrapping_sub(producer.acked_seen.load(Relaxed));
        if used + need as u64 > RING as u64 {
            self.wait_for_room(hold, writer, need);
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_room<'h>(&self, hold: &mut Hold<'h>, writer: &'h impl Writer, need: usize)
    where
        'a: 'h,
    {
        let control = self.control();
        loop {
            // Acquire: pairs with the Release in `acknowledge`; what was there has been read.
            let acked = control.arbiter.acked.load(Acquire);
            control.producer.acked_seen.store(acked, Relaxed);
            if control.producer.tail.load(Relaxed).wrapping_sub(acked) + need as u64 <= RING as u64 {
                return;
            }
            self.leave(hold.take(), writer);
            control.rare.room_waiters.fetch_add(1, Relaxed);
            let seen = control.rare.room.load(Relaxed);
            // Heavy: pairs with the light barrier in `acknowledge`.
            self.barrier.heavy();
            let sleeps = control.arbiter.acked.load(Acquire) == acked;
            if sleeps {
                futex::wait(&control.rare.room, seen, NAP);
            }
            // The arbiter may have forgotten us meanwhile.
            count_down(&control.rare.room_waiters);
            if sleeps {
                writer.let_in();
                writer.stalled();
            }
            *hold = self.enter(writer);
        }
    }

    #[inline(always)]
    fn notify(&self, writer: &impl Writer) {
        // The light barrier was passed in `release`, after the tail was moved: either we see the arbiter asleep,
        // or it sees the tail.
        if self.control().rare.arbiter.word.load(Relaxed) > AWAKE {
            self.alert(writer);
        }
    }

    #[cold]
    #[inline(never)]
    fn alert(&self, writer: &impl Writer) {
        let before = self.control().rare.arbiter.word.fetch_and(!ASLEEP, Relaxed);
        if before & ASLEEP != 0 {
            writer.ring_doorbell();
        }
        if before & GONE != 0 {
            // This store is on no other host, and will not be.
            writer.stalled();
        }
    }

    /// Copies whole records from `from` on to `out`, at most `limit` words. Returns the position after the last.
    /// Only the arbiter calls this. The copy is checked, not the ring, which others may change meanwhile.
    ///
    /// # Errors
    /// [`Malformed`] when the ring holds what makes no sense.
    pub fn drain(&self, from: u64, limit: usize, out: &mut Vec<u8>) -> Result<u64, Malformed> {
        // Acquire: pairs with the Release in `advance`.
        let tail = self.control().producer.tail.load(Acquire);
        let available = tail.wrapping_sub(from);
        if available > RING as u64 {
            return Err(Malformed { header: tail, place: from });
        }
        let count = (available as usize).min(limit.max(LONGEST));
        let start = out.len();
        self.copy_out(from, count, out);
        let mut whole = 0;
        for record in records(&out[start..]) {
            match record {
                Ok(record) => whole += record.words,
                // Cut off by the limit, unless nothing at all was whole.
                Err(malformed) => {
                    let at = whole;
                    let (head, place) = (self.word(from + at as u64), self.word(from + at as u64 + 1));
                    let cut = count < available as usize
                        && shape(head.load(Relaxed), place.load(Relaxed))
                            .is_some_and(|(.., words, _)| words > count - at);
                    if !cut || at == 0 {
                        return Err(malformed);
                    }
                    break;
                }
            }
        }
        out.truncate(start + whole * 8);
        Ok(from + whole as u64)
    }

    /// Appends the bytes of `count` words from position `from` on.
    fn copy_out(&self, from: u64, count: usize, out: &mut Vec<u8>) {
        let start = from as usize & (RING - 1);
        let first = count.min(RING - start);
        let runs = [self.area.ring.get(start..start + first), self.area.ring.get(..count - first)];
        out.reserve(count * 8);
        for run in runs.into_iter().flatten() {
            let to = out.spare_capacity_mut();
            #[cfg(not(any(loom, miri)))]
            let (lines, run, to) = {
                let (lines, rest) = run.as_chunks::<8>();
                // SAFETY: that many words of the ring, read where others may write; that many bytes were reserved.
                unsafe { crate::memory::copy_lines(to.as_mut_ptr().cast(), lines.as_ptr().cast(), lines.len()) };
                (lines.len() * 8, rest, &mut to[lines.len() * 64..])
            };
            #[cfg(any(loom, miri))]
            let lines = 0;
            for (to, word) in to.as_chunks_mut::<8>().0.iter_mut().zip(run) {
                *to = word.load(Relaxed).to_le_bytes().map(std::mem::MaybeUninit::new);
            }
            // SAFETY: that many bytes were reserved, and the loop above has written them.
            unsafe { out.set_len(out.len() + (lines + run.len()) * 8) };
        }
    }

    /// Is there anything after `from`?
    #[inline]
    pub fn has_news(&self, from: u64) -> bool {
        self.control().producer.tail.load(Acquire) != from
    }

    /// Notes that own records up to `to` have their place in the order. Only the arbiter calls this.
    pub fn acknowledge(&self, to: u64) {
        let control = self.control();
        // Release: pairs with the Acquire in `wait_for_room`.
        control.arbiter.acked.store(to, Release);
        self.barrier.light();
        if control.rare.room_waiters.load(Relaxed) != 0 {
            control.rare.room.fetch_add(1, Relaxed);
            futex::wake(&control.rare.room, u32::MAX >> 1);
        }
    }

    /// Are all own records ordered? The caller holds the lock.
    #[inline]
    pub fn nothing_pending(&self) -> bool {
        let control = self.control();
        control.producer.tail.load(Relaxed) == control.arbiter.acked.load(Relaxed)
    }
}

/// The bytes of a line that `len` bytes at `offset` cover, as a mask.
#[inline(always)]
pub fn in_line(offset: u64, len: usize) -> u64 {
    let ones = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    ones << (offset % LINE)
}
