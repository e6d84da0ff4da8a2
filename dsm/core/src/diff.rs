//! Twin and diff: what changed in a working copy since it was made (TreadMarks: Keleher et al., USENIX 1994, section
//! 3), as masks of bytes for whole lines.

use crate::limits::{LINE, PAGE};

/// Mask of the bytes in which two lines differ.
#[inline]
pub fn line(new: &[u8; 64], old: &[u8; 64]) -> u64 {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_movemask_epi8};
    let mut equal = 0u64;
    for (at, (new, old)) in new.as_chunks::<16>().0.iter().zip(old.as_chunks::<16>().0).enumerate() {
        let (new, old): (__m128i, __m128i) = (bytemuck::cast(*new), bytemuck::cast(*old));
        // SSE2 is part of x86-64: a bit for each of 16 bytes.
        // SAFETY: registers in, register out; the instruction set is always there.
        let same = unsafe { _mm_cmpeq_epi8(new, old) };
        // SAFETY: as above.
        let bits = unsafe { _mm_movemask_epi8(same) };
        equal |= u64::from(bits as u16) << (at * 16);
    }
    !equal
}

/// Lines of a page.
const LINES: usize = (PAGE / LINE) as usize;

/// Runs of consecutive changed lines within pages: calls `publish(offset, masks, lines)`, a mask for each line.
///
/// `new` and `old` are the same bytes of a session, starting at `offset`.
pub fn changes(offset: u64, new: &[u8], old: &[u8], mut publish: impl FnMut(u64, &[u64], &[[u8; 64]])) {
    let lead = ((LINE - offset % LINE) % LINE) as usize;
    let (first_new, new) = new.split_at(lead.min(new.len()));
    let (first_old, old) = old.split_at(lead.min(old.len()));
    let mut edge = |at: u64, new: &[u8], old: &[u8]| {
        let within = (at % LINE) as usize;
        let (mut a, mut b) = ([0; 64], [0; 64]);
        a[within..within + new.len()].copy_from_slice(new);
        b[within..within + old.len()].copy_from_slice(old);
        let mask = line(&a, &b);
        if mask != 0 {
            publish(at - at % LINE, &[mask], &[a]);
        }
    };
    edge(offset, first_new, first_old);
    let mut at = offset + first_new.len() as u64;
    let (mut lines, last_new) = new.as_chunks::<64>();
    let (mut twins, last_old) = old.as_chunks::<64>();
    edge(at + lines.len() as u64 * LINE, last_new, last_old);
    let mut masks = [0; LINES];
    while !lines.is_empty() {
        let here = ((PAGE - at % PAGE) / LINE) as usize;
        let (page, twin);
        (page, lines) = lines.split_at(here.min(lines.len()));
        (twin, twins) = twins.split_at(here.min(twins.len()));
        for (mask, (new, old)) in masks.iter_mut().zip(page.iter().zip(twin)) {
            *mask = line(new, old);
        }
        let mut from = 0;
        for run in masks[..page.len()].chunk_by(|a, b| (*a == 0) == (*b == 0)) {
            if run[0] != 0 {
                publish(at + from as u64 * LINE, run, &page[from..from + run.len()]);
            }
            from += run.len();
        }
        at += page.len() as u64 * LINE;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_changed_bytes_are_marked() {
        let mut state = 3u64;
        for _ in 0..if cfg!(miri) { 40 } else { 2000 } {
            let (mut old, mut new) = ([0u8; 64], [0u8; 64]);
            let mut expected = 0u64;
            for i in 0..64 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                old[i] = (state >> 33) as u8;
                new[i] = if state >> 60 < 8 { old[i] } else { (state >> 41) as u8 };
                expected |= u64::from(old[i] != new[i]) << i;
            }
            assert_eq!(line(&new, &old), expected);
        }
    }

    #[test]
    fn runs_end_at_pages_and_at_unchanged_lines() {
        let (old, mut new) = (vec![0u8; 3 * 4096 + 24], vec![0u8; 3 * 4096 + 24]);
        new[0] = 1;
        new[64..4096 + 64].fill(2);
        new[3 * 4096 + 23] = 3;
        let mut copy = old.clone();
        let mut runs = Vec::new();
        let base = 4096 + 16u64;
        changes(base, &new, &old, |offset, masks, lines| {
            assert!(offset % 64 == 0 && offset % 4096 + lines.len() as u64 * 64 <= 4096 && masks.len() == lines.len());
            runs.push((offset, lines.len()));
            for (at, (mask, bytes)) in masks.iter().zip(lines).enumerate() {
                for bit in (0..64).filter(|bit| mask >> bit & 1 == 1) {
                    let to = offset + at as u64 * 64 + bit - base;
                    copy[to as usize] = bytes[bit as usize];
                }
            }
        });
        assert_eq!(copy, new);
        // The first line, which the bytes do not fill; the rest of its page; what reaches into the next; the last line.
        assert_eq!(runs.len(), 4, "{runs:?}");
    }
}
