//! What the arbiter does to the log after a process has died.

use super::HostLog;
use super::lease::PAIR;
use crate::memory::Memory;
use crate::record::{Kind, LONGEST, Record, records, shape};
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

    /// Completes the operation, of one record or two, that a dead holder of the lock had begun. The caller, the arbiter,
    /// has seized the lock. `allowed` says whether bytes may be stored there: what may not leaves nothing behind.
    pub fn recover(&self, memory: &impl Memory, allowed: impl Fn(u64, u64) -> bool) {
        let producer = &self.control().producer;
        let tail = producer.tail.load(Relaxed);
        let entry = tail.wrapping_add(1);
        let count = match producer.intent.load(Acquire) {
            intent if intent == entry => 1,
            intent if intent == entry | PAIR => 2,
            _ => return,
        };
        let mut bytes = Vec::with_capacity(LONGEST * 8);
        for at in 0..LONGEST as u64 {
            bytes.extend_from_slice(&self.word(tail.wrapping_add(at)).load(Relaxed).to_le_bytes());
        }
        let stored = |record: &Record<'_>| matches!(record.kind, Kind::Store | Kind::Bulk);
        let begun: Vec<_> = records(&bytes).take(count).map_while(Result::ok).filter(stored).collect();
        if begun.len() != count {
            return producer.intent.store(0, Relaxed);
        }
        let bucket = |record: &Record<'_>| match record.kind {
            Kind::Store => self.store_bucket(record.place, record.payload.len()),
            _ => self.page_bucket(record.place),
        };
        if !begun.iter().all(|record| record.extent().is_some_and(|(offset, len)| allowed(offset, len))) {
            // No records of ours: whoever made them may have entered them already, in place of what is pending there.
            producer.intent.store(0, Relaxed);
            begun.iter().map(bucket).for_each(|bucket| bucket.store(self.newest_of(bucket, tail), Relaxed));
            return;
        }
        let mut words = 0;
        for record in &begun {
            bucket(record).store(entry.wrapping_add(words as u64), Relaxed);
            words += record.words;
            if record.kind == Kind::Store {
                memory.write(record.place, record.payload);
            } else {
                for (offset, mask, line) in record.lines() {
                    memory.write_masked(offset, line, mask);
                }
            }
        }
        self.advance(tail, words);
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
