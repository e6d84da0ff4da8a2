//! The pending index: which bytes lie under own records that are not ordered yet. The tables, and why their entries are
//! never removed: see the head of [`crate::log`].

use super::{HostLog, in_line};
use crate::limits::{LINE, PAGE};
use crate::record::{HEADER_WORDS, Kind, MASKED, shape};
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

impl<'a, const RING: usize, const INDEX: usize, const PAGES: usize, const SEATS: usize>
    HostLog<'a, RING, INDEX, PAGES, SEATS>
{
    #[inline(always)]
    pub(super) fn store_bucket(&self, offset: u64, len: usize) -> &'a AtomicU64 {
        if offset % 8 + len as u64 <= 8 {
            self.word_bucket(offset)
        } else {
            &self.area.lines[(offset / LINE) as usize & (INDEX - 1)]
        }
    }

    #[inline(always)]
    pub(super) fn word_bucket(&self, offset: u64) -> &'a AtomicU64 {
        &self.area.words[(offset / 8) as usize & (INDEX - 1)]
    }

    #[inline(always)]
    pub(super) fn page_bucket(&self, offset: u64) -> &'a AtomicU64 {
        &self.area.pages[(offset / PAGE) as usize & (PAGES - 1)]
    }

    /// Distance from a record at `tail` back to the newest pending one of its bucket, or, where that one is
    /// `shadowed` by the new one, to the one before it. 0 when there is none.
    #[inline(always)]
    pub(super) fn link(&self, bucket: &AtomicU64, tail: u64, shadowed: impl Fn(u64, u64) -> bool) -> u32 {
        // Not older than `acked_seen`: the ring still holds it. An empty bucket wraps around, to a position in no ring.
        let oldest = self.control().producer.acked_seen.load(Relaxed);
        let newest = bucket.load(Relaxed).wrapping_sub(1);
        let age = newest.wrapping_sub(oldest);
        if age >= tail.wrapping_sub(oldest) {
            return 0;
        }
        let distance = tail.wrapping_sub(newest);
        let head = self.word(newest).load(Relaxed);
        if shadowed(head, self.word(newest.wrapping_add(1)).load(Relaxed)) {
            let prev = head >> 32;
            return if prev == 0 || age < prev { 0 } else { distance.wrapping_add(prev) as u32 };
        }
        distance as u32
    }

    /// Of the bytes of the line at `offset` that `needed` selects, those under own pending stores. The caller holds
    /// the lock.
    pub fn covered(&self, offset: u64, needed: u64) -> u64 {
        let producer = &self.control().producer;
        let tail = producer.tail.load(Relaxed);
        let acked = self.control().arbiter.acked.load(Relaxed);
        if tail == acked {
            return 0;
        }
        // Both words may hold anything: what is pending is never more than the ring holds.
        let acked = acked.max(tail.saturating_sub(RING as u64));
        let line = offset - offset % LINE;
        let mut mask = self.walk(&self.area.lines[(line / LINE) as usize & (INDEX - 1)], tail, acked, line, needed);
        for word in 0..8 {
            let wanted = needed & (0xff << (word * 8)) & !mask;
            if wanted != 0 {
                let at = (line / 8 + word) as usize & (INDEX - 1);
                mask |= self.walk(&self.area.words[at], tail, acked, line, wanted);
            }
        }
        if needed & !mask != 0 {
            mask |= self.walk(self.page_bucket(line), tail, acked, line, needed & !mask);
        }
        mask & needed
    }

    /// Follows one chain. Ends, whatever the ring holds: positions only fall, and stay within `[acked, tail)`, which
    /// the caller has made sure is no longer than the ring.
    fn walk(&self, bucket: &AtomicU64, tail: u64, acked: u64, line: u64, needed: u64) -> u64 {
        let mut mask = 0;
        let entry = bucket.load(Relaxed);
        if entry == 0 || entry > tail {
            return 0;
        }
        let mut position = entry - 1;
        while position >= acked {
            let head = self.word(position).load(Relaxed);
            let place = self.word(position + 1).load(Relaxed);
            match shape(head, place) {
                Some((Kind::Store, _, _, len)) if place / LINE == line / LINE => mask |= in_line(place, len),
                Some((Kind::Bulk, flags, _, _)) if place <= line => {
                    let (at, count) = ((line - place) / LINE, head >> 16 & 0xffff);
                    if at < count && flags & MASKED == 0 {
                        mask = u64::MAX;
                    } else if at < count {
                        mask |= self.word(position.wrapping_add(HEADER_WORDS as u64 + at)).load(Relaxed);
                    }
                }
                _ => {}
            }
            let prev = head >> 32;
            if needed & !mask == 0 || prev == 0 || prev > position {
                break;
            }
            position -= prev;
        }
        mask
    }
}
