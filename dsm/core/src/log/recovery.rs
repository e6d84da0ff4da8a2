//! What the arbiter does to the log after a process has died.

use super::HostLog;
use crate::memory::Memory;
use crate::record::{Kind, LONGEST, Record, shape};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed};

impl<const RING: usize, const INDEX: usize, const PAGES: usize, const SEATS: usize>
    HostLog<'_, RING, INDEX, PAGES, SEATS>
{
    /// Forgets who waits for room: whoever was killed while it did would be counted for ever, and cost every
    /// acknowledgement a system call. Those who still wait look again after their nap. Only the arbiter calls this.
    pub fn forget_room_waiters(&self) {
        if self.control().rare.room_waiters.load(Relaxed) != 0 {
            self.control().rare.room_waiters.store(0, Relaxed);
        }
    }

    /// Completes the operation that a dead holder of the lock had begun. The caller, the arbiter, has seized the
    /// lock. `allowed` says whether bytes may be stored there: what may not leaves nothing behind.
    pub fn recover(&self, memory: &impl Memory, allowed: impl Fn(u64, u64) -> bool) {
        let producer = &self.control().producer;
        let tail = producer.tail.load(Relaxed);
        let entry = tail.wrapping_add(1);
        if producer.intent.load(Acquire) != entry {
            return;
        }
        let mut bytes = Vec::with_capacity(LONGEST * 8);
        for at in 0..LONGEST as u64 {
            bytes.extend_from_slice(&self.word(tail.wrapping_add(at)).load(Relaxed).to_le_bytes());
        }
        let parsed = Record::parse(&bytes).ok().filter(|record| matches!(record.kind, Kind::Store | Kind::Bulk));
        let Some(record) = parsed else { return producer.intent.store(0, Relaxed) };
        let bucket = match record.kind {
            Kind::Store => self.store_bucket(record.place, record.payload.len()),
            _ => self.page_bucket(record.place),
        };
        if !record.extent().is_some_and(|(offset, len)| allowed(offset, len)) {
            // No record of ours: whoever made it may have entered it already, in place of what is pending there.
            producer.intent.store(0, Relaxed);
            bucket.store(self.newest_of(bucket, tail), Relaxed);
            return;
        }
        bucket.store(entry, Relaxed);
        if record.kind == Kind::Store {
            memory.write(record.place, record.payload);
        } else {
            for (offset, mask, line) in record.lines() {
                memory.write_masked(offset, line, mask);
            }
        }
        self.advance(tail, record.words);
    }

    /// The entry of the newest pending record of a bucket, found by looking at all that are pending.
    fn newest_of(&self, bucket: &AtomicU64, tail: u64) -> u64 {
        let mut newest = 0;
        let mut at = self.control().arbiter.acked.load(Relaxed).max(tail.saturating_sub(RING as u64));
        while at < tail {
            let (head, place) = (self.word(at).load(Relaxed), self.word(at.wrapping_add(1)).load(Relaxed));
            let Some((kind, _, words, len)) = shape(head, place) else { break };
            let of = match kind {
                Kind::Store => Some(self.store_bucket(place, len)),
                Kind::Bulk => Some(self.page_bucket(place)),
                _ => None,
            };
            if of.is_some_and(|of| std::ptr::eq(of, bucket)) {
                newest = at.wrapping_add(1);
            }
            let Some(next) = at.checked_add(words as u64) else { break };
            at = next;
        }
        newest
    }
}
