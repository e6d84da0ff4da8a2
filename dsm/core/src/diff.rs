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

/// Runs of consecutive changed lines within pages: calls `publish(offset, lines)` with their masks and bytes.
///
/// `new` and `old` are the same bytes of a session, starting at `offset`.
pub fn changes(offset: u64, new: &[u8], old: &[u8], mut publish: impl FnMut(u64, &[(u64, [u8; 64])])) {
    let mut run: Vec<(u64, [u8; 64])> = Vec::with_capacity((PAGE / LINE) as usize);
    let mut start = 0;
    let mut at = offset - offset % LINE;
    let end = offset + new.len() as u64;
    while at < end {
        let (a, b) = (cut(at, offset, new), cut(at, offset, old));
        let mask = line(&a, &b);
        if mask != 0 {
            if run.is_empty() {
                start = at;
            }
            run.push((mask, a));
        }
        at += LINE;
        if !run.is_empty() && (mask == 0 || at.is_multiple_of(PAGE)) {
            publish(start, &run);
            run.clear();
        }
    }
    if !run.is_empty() {
        publish(start, &run);
    }
}

/// The line at `at`, of bytes that start at `offset`; zeros where they do not reach.
#[inline]
fn cut(at: u64, offset: u64, bytes: &[u8]) -> [u8; 64] {
    let mut line = [0; 64];
    if at >= offset {
        let from = (at - offset) as usize;
        if let Some(whole) = bytes.get(from..from + 64) {
            line.copy_from_slice(whole);
            return line;
        }
        let rest = bytes.get(from..).unwrap_or_default();
        line[..rest.len()].copy_from_slice(rest);
    } else {
        let skip = (offset - at) as usize;
        let count = (64 - skip).min(bytes.len());
        line[skip..skip + count].copy_from_slice(&bytes[..count]);
    }
    line
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_changed_bytes_are_marked() {
        let mut state = 3u64;
        for _ in 0..2000 {
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
        changes(base, &new, &old, |offset, lines| {
            assert!(offset % 64 == 0 && offset % 4096 + lines.len() as u64 * 64 <= 4096);
            runs.push((offset, lines.len()));
            for (at, (mask, bytes)) in lines.iter().enumerate() {
                for bit in (0..64).filter(|bit| mask >> bit & 1 == 1) {
                    let to = offset + at as u64 * 64 + bit - base;
                    copy[to as usize] = bytes[bit as usize];
                }
            }
        });
        assert_eq!(copy, new);
        assert_eq!(runs.len(), 3, "{runs:?}");
    }
}
