//! Reading the interrupted program's memory.

use crate::sys;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

const PAGE: usize = 4096;

/// Can all of `len` bytes at `address` be read?
pub(crate) fn readable(address: usize, len: usize) -> bool {
    let Some(last) = address.checked_add(len.max(1) - 1) else { return false };
    (address / PAGE..=last / PAGE).all(|page| sys::readable((page * PAGE).max(address)))
}

/// Copies bytes that [`readable`] said can be read. Aligned words of 2, 4 and 8 bytes are read in one access each.
///
/// # Safety
/// All of `into.len()` bytes at `address` can be read. Others may be writing them.
pub(crate) unsafe fn read(address: usize, into: &mut [u8]) {
    let mut at = 0;
    while at < into.len() {
        let place = address + at;
        let left = into.len() - at;
        // Words by words: the largest that alignment and length allow.
        let width = [8, 4, 2].into_iter().find(|width| left >= *width && place.is_multiple_of(*width)).unwrap_or(1);
        let bytes = match width {
            8 => {
                let word = std::ptr::with_exposed_provenance_mut(place);
                // SAFETY: aligned by choice of the width, readable by the caller's word; atomic, as others may write.
                unsafe { AtomicU64::from_ptr(word) }.load(Ordering::Relaxed).to_le_bytes()
            }
            4 => {
                let word = std::ptr::with_exposed_provenance_mut(place);
                // SAFETY: as above.
                u64::from(unsafe { AtomicU32::from_ptr(word) }.load(Ordering::Relaxed)).to_le_bytes()
            }
            2 => {
                let word = std::ptr::with_exposed_provenance_mut(place);
                // SAFETY: as above.
                u64::from(unsafe { AtomicU16::from_ptr(word) }.load(Ordering::Relaxed)).to_le_bytes()
            }
            _ => {
                let byte = std::ptr::with_exposed_provenance_mut(place);
                // SAFETY: as above; bytes are always aligned.
                u64::from(unsafe { AtomicU8::from_ptr(byte) }.load(Ordering::Relaxed)).to_le_bytes()
            }
        };
        into[at..at + width].copy_from_slice(&bytes[..width]);
        at += width;
    }
}

/// Reads a word of `width` bytes (up to 8), if it can be read.
pub(crate) fn word(address: usize, width: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    if !readable(address, width) {
        return None;
    }
    // SAFETY: just asked.
    unsafe { read(address, &mut bytes[..width]) };
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_odd_pieces_come_out_right() {
        let source: Vec<u8> = (0..64).collect();
        for start in 0..16 {
            for len in 0..40 {
                let mut copy = vec![0; len];
                // SAFETY: the bytes are those of `source`.
                unsafe { read(source.as_ptr().expose_provenance() + start, &mut copy) };
                assert_eq!(copy, source[start..start + len]);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel what can be read")]
    fn what_cannot_be_read_is_no_word() {
        let source: Vec<u8> = (0..8).collect();
        assert_eq!(word(source.as_ptr().expose_provenance() + 1, 2), Some(0x0201));
        assert_eq!(word(64, 8), None);
        assert!(!readable(usize::MAX - 3, 8));
    }
}
