//! Shared bytes: read and written with atomic accesses only, never through references or slices, because another
//! thread, process or host may change them at any moment.
//!
//! Up to 8 bytes these are relaxed atomics of std, so that two accesses of one word race with nothing; 16 bytes and whole
//! lines are assembly, for want of such a type (under Miri, several of 8). Accesses of different widths that overlap, when
//! a line is copied while a word of it is stored, are none that the language speaks of: each is one instruction.

use crate::sync;
// Not those that loom replaces: they are laid over memory that is there.
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// The bytes of a session as one host sees them, addressed by offset. Callers have checked the bounds.
///
/// Whoever implements it keeps rule 4 of the memory model: an aligned word of 1, 2, 4, 8 or 16 bytes is never torn.
pub trait Memory {
    /// Writes all of `bytes` at `offset`.
    fn write(&self, offset: u64, bytes: &[u8]);
    /// Reads into all of `out`.
    fn read(&self, offset: u64, out: &mut [u8]);

    /// Writes a naturally aligned word of 1, 2, 4 or 8 bytes.
    #[inline(always)]
    fn write_word<const N: usize>(&self, offset: u64, word: [u8; N]) {
        self.write(offset, &word);
    }

    /// Reads a naturally aligned word of 1, 2, 4 or 8 bytes.
    #[inline(always)]
    fn read_word<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut word = [0; N];
        self.read(offset, &mut word);
        word
    }

    /// Writes those of at most 64 bytes whose bit in `mask` is set (bit 0 for the first). The caller keeps everybody
    /// else from writing (it holds the replica lock): what lies beside them may be written again as it is, so that a
    /// word of which only some bytes change is not torn either.
    fn write_masked(&self, offset: u64, bytes: &[u8], mask: u64) {
        let mut at = 0;
        let mut left = if bytes.len() >= 64 { mask } else { mask & ((1 << bytes.len()) - 1) };
        while left != 0 {
            let skip = left.trailing_zeros();
            left >>= skip;
            let run = left.trailing_ones();
            at += skip as usize;
            if let Some(piece) = bytes.get(at..at + run as usize) {
                self.write(offset + at as u64, piece);
            }
            at += run as usize;
            left = if run == 64 { 0 } else { left >> run };
        }
    }
}

/// Memory that is mapped, at a constant distance from its offsets.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    base: *mut u8,
}

// SAFETY: a base address; every access goes through atomics or single instructions.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Memory whose offset 0 is at `base`.
    ///
    /// # Safety
    /// For as long as this value is used, every offset given to its methods must lie in a writable mapping.
    pub unsafe fn new(base: *mut u8) -> Self {
        Self { base }
    }

    /// Where offset 0 is.
    #[inline(always)]
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    #[inline(always)]
    fn at(&self, offset: u64) -> *mut u8 {
        self.base.wrapping_add(offset as usize)
    }
}

/// Writes one word with one instruction, so that no reader sees half of it.
macro_rules! store_word {
    ($to:expr, $bytes:expr, $atomic:ty, $word:ty) => {{
        let mut word = [0u8; size_of::<$word>()];
        word.copy_from_slice($bytes);
        // SAFETY: the caller's contract makes the address writable, and it has been checked for alignment; nobody has
        // a reference to what is there but to an atomic.
        unsafe { <$atomic>::from_ptr($to.cast()) }.store(<$word>::from_ne_bytes(word), Relaxed)
    }};
}

/// Reads one word with one instruction.
macro_rules! load_word {
    ($from:expr, $out:expr, $atomic:ty) => {{
        // SAFETY: the caller's contract makes the address readable, and it has been checked for alignment; nobody has
        // a reference to what is there but to an atomic.
        let word = unsafe { <$atomic>::from_ptr($from.cast()) }.load(Relaxed);
        $out.copy_from_slice(&word.to_ne_bytes());
    }};
}

/// Stores 16 aligned bytes with one instruction (atomic on every processor with AVX).
#[inline(always)]
fn store_16(to: *mut u8, bytes: &[u8; 16]) {
    #[cfg(not(miri))]
    // SAFETY: `to` is writable by the contract of `Mapped::new` and 16-byte aligned, checked by the caller.
    unsafe {
        std::arch::asm!(
            "movups {t}, [{from}]", "movaps [{to}], {t}",
            t = out(xmm_reg) _, from = in(reg) bytes.as_ptr(), to = in(reg) to,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(miri)]
    for (to, word) in [to, to.wrapping_add(8)].into_iter().zip(bytes.as_chunks::<8>().0) {
        store_word!(to, word, AtomicU64, u64);
    }
}

/// Loads 16 aligned bytes with one instruction (atomic on every processor with AVX).
#[inline(always)]
fn load_16(from: *mut u8) -> [u8; 16] {
    let mut out = [0; 16];
    #[cfg(not(miri))]
    // SAFETY: `from` is readable by the contract of `Mapped::new` and 16-byte aligned, checked by the caller.
    unsafe {
        std::arch::asm!(
            "movaps {t}, [{from}]", "movups [{out}], {t}",
            t = out(xmm_reg) _, from = in(reg) from, out = in(reg) out.as_mut_ptr(),
            options(nostack, preserves_flags)
        );
    }
    #[cfg(miri)]
    for (from, word) in [from, from.wrapping_add(8)].into_iter().zip(out.as_chunks_mut::<8>().0) {
        load_word!(from, word, AtomicU64);
    }
    out
}

/// A byte of ones for every bit that is set.
#[inline(always)]
fn spread(bits: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Byte i has bit i of `bits`, and nothing else.
    let each = (u64::from(bits) * ONES) & 0x8040_2010_0804_0201;
    ((each + 0x7f * ONES) >> 7 & ONES) * 0xff
}

/// Copies whole lines between memory that others may change meanwhile and memory of our own, 16 bytes at a time:
/// on every processor with AVX an aligned access of 16 bytes is one (Intel's manual, volume 3, 9.1.1; AMD's, volume 2,
/// 7.3.2), so that no word is torn where the lines are aligned.
///
/// # Safety
/// `from` must be readable and `to` writable for `lines * 64` bytes; they must not overlap.
#[cfg(not(any(miri, loom)))]
#[inline(always)]
pub(crate) unsafe fn copy_lines(to: *mut u8, from: *const u8, lines: usize) {
    // SAFETY: by this function's contract. Assembly, because others may write what is read and read what is
    // written here: no reference or slice to it exists.
    unsafe {
        std::arch::asm!(
            "test {n}, {n}", "jz 3f",
            "2:",
            "movups {a}, [{from}]", "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]", "movups {d}, [{from} + 48]",
            "movups [{to}], {a}", "movups [{to} + 16], {b}",
            "movups [{to} + 32], {c}", "movups [{to} + 48], {d}",
            "add {from}, 64", "add {to}, 64", "dec {n}", "jnz 2b",
            "3:",
            n = inout(reg) lines => _, from = inout(reg) from => _, to = inout(reg) to => _,
            a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
            options(nostack)
        );
    }
}

impl Memory for Mapped {
    #[inline(always)]
    fn write(&self, offset: u64, bytes: &[u8]) {
        let to = self.at(offset);
        let address = to as usize;
        match bytes.len() {
            1 => store_word!(to, bytes, AtomicU8, u8),
            2 if address.is_multiple_of(2) => store_word!(to, bytes, AtomicU16, u16),
            4 if address.is_multiple_of(4) => store_word!(to, bytes, AtomicU32, u32),
            8 if address.is_multiple_of(8) => store_word!(to, bytes, AtomicU64, u64),
            16 if address.is_multiple_of(16) => match bytes.try_into() {
                Ok(word) => store_16(to, word),
                Err(_) => write_any(to, bytes),
            },
            _ => write_any(to, bytes),
        }
    }

    fn write_masked(&self, offset: u64, bytes: &[u8], mask: u64) {
        let to = self.at(offset);
        let mask = if bytes.len() >= 64 { mask } else { mask & ((1 << bytes.len()) - 1) };
        // In aligned pieces of 16 bytes, the first of which may begin before `to`.
        let before = to as usize % 16;
        let (mask, start) = (u128::from(mask) << before, to.wrapping_sub(before));
        for piece in 0..(before + bytes.len()).div_ceil(16) {
            let wanted = (mask >> (piece * 16)) as u16;
            if wanted == 0 {
                continue;
            }
            let (from, place) = (piece * 16, start.wrapping_add(piece * 16));
            let whole = from.checked_sub(before).and_then(|at| bytes.get(at..)?.first_chunk());
            let mut new = whole.copied().unwrap_or_else(|| {
                let byte = |at: usize| (from + at).checked_sub(before).and_then(|at| bytes.get(at)).copied();
                std::array::from_fn(|at| byte(at).unwrap_or(0))
            });
            if wanted != u16::MAX {
                let select = u128::from(spread(wanted as u8)) | u128::from(spread((wanted >> 8) as u8)) << 64;
                let merged = u128::from_le_bytes(new) & select | u128::from_le_bytes(load_16(place)) & !select;
                new = merged.to_le_bytes();
            }
            store_16(place, &new);
        }
    }

    #[inline(always)]
    fn read(&self, offset: u64, out: &mut [u8]) {
        let from = self.at(offset);
        match out.len() {
            1 => load_word!(from, out, AtomicU8),
            2 if (from as usize).is_multiple_of(2) => load_word!(from, out, AtomicU16),
            4 if (from as usize).is_multiple_of(4) => load_word!(from, out, AtomicU32),
            8 if (from as usize).is_multiple_of(8) => load_word!(from, out, AtomicU64),
            _ => read_any(from, out),
        }
    }

    #[inline(always)]
    fn write_word<const N: usize>(&self, offset: u64, word: [u8; N]) {
        let to = self.at(offset);
        debug_assert!((to as usize).is_multiple_of(N));
        match N {
            1 => store_word!(to, &word, AtomicU8, u8),
            2 => store_word!(to, &word, AtomicU16, u16),
            4 => store_word!(to, &word, AtomicU32, u32),
            8 => store_word!(to, &word, AtomicU64, u64),
            _ => self.write(offset, &word),
        }
    }

    #[inline(always)]
    fn read_word<const N: usize>(&self, offset: u64) -> [u8; N] {
        let from = self.at(offset);
        debug_assert!((from as usize).is_multiple_of(N));
        let mut out = [0; N];
        match N {
            1 => load_word!(from, &mut out, AtomicU8),
            2 => load_word!(from, &mut out, AtomicU16),
            4 => load_word!(from, &mut out, AtomicU32),
            8 => load_word!(from, &mut out, AtomicU64),
            _ => self.read(offset, &mut out),
        }
        out
    }
}

/// The widest access of at most 16 bytes that is aligned at `address` and within `left` bytes. Accesses chosen so, one
/// after another, take every naturally aligned word that lies in the range whole.
#[inline(always)]
fn step(address: usize, left: usize) -> usize {
    let aligned = address.trailing_zeros().min(4);
    1 << aligned.min(left.checked_ilog2().unwrap_or(0))
}

/// Any length at any alignment, in the widest steps that there are.
#[inline(never)]
fn write_any(to: *mut u8, bytes: &[u8]) {
    let (mut to, mut bytes) = (to, bytes);
    while !bytes.is_empty() {
        #[cfg(not(any(miri, loom)))]
        if (to as usize).is_multiple_of(16) && bytes.len() >= 64 {
            let (lines, rest) = bytes.as_chunks::<64>();
            // SAFETY: writable by the contract of `Mapped::new`; `lines` is our own, so that nothing overlaps.
            unsafe { copy_lines(to, lines.as_ptr().cast(), lines.len()) };
            (to, bytes) = (to.wrapping_add(lines.len() * 64), rest);
            continue;
        }
        let (piece, rest) = bytes.split_at(step(to as usize, bytes.len()));
        match piece.len() {
            1 => store_word!(to, piece, AtomicU8, u8),
            2 => store_word!(to, piece, AtomicU16, u16),
            4 => store_word!(to, piece, AtomicU32, u32),
            8 => store_word!(to, piece, AtomicU64, u64),
            _ => piece.first_chunk().into_iter().for_each(|word| store_16(to, word)),
        }
        (to, bytes) = (to.wrapping_add(piece.len()), rest);
    }
}

/// As [`write_any`], the other way.
fn read_any(from: *mut u8, out: &mut [u8]) {
    let (mut from, mut out) = (from, out);
    while !out.is_empty() {
        #[cfg(not(any(miri, loom)))]
        if (from as usize).is_multiple_of(16) && out.len() >= 64 {
            let (lines, rest) = out.as_chunks_mut::<64>();
            // SAFETY: readable by the contract of `Mapped::new`; `lines` is our own, so that nothing overlaps.
            unsafe { copy_lines(lines.as_mut_ptr().cast(), from, lines.len()) };
            (from, out) = (from.wrapping_add(lines.len() * 64), rest);
            continue;
        }
        let (piece, rest) = out.split_at_mut(step(from as usize, out.len()));
        match piece.len() {
            1 => load_word!(from, piece, AtomicU8),
            2 => load_word!(from, piece, AtomicU16),
            4 => load_word!(from, piece, AtomicU32),
            8 => load_word!(from, piece, AtomicU64),
            _ => piece.copy_from_slice(&load_16(from)),
        }
        (from, out) = (from.wrapping_add(piece.len()), rest);
    }
}

/// Memory made of cells on the heap, for simulations and model checks.
#[derive(Debug)]
pub struct Cells(Vec<sync::AtomicU64>);

impl Cells {
    /// `len` zero bytes, rounded up to whole words.
    pub fn zeroed(len: usize) -> Self {
        Self((0..len.div_ceil(8)).map(|_| sync::AtomicU64::new(0)).collect())
    }

    /// All bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.iter().flat_map(|cell| cell.load(Relaxed).to_ne_bytes()).collect()
    }
}

impl Memory for Cells {
    fn write(&self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            let shift = (at % 8) * 8;
            if let Some(cell) = self.0.get((at / 8) as usize) {
                let word = cell.load(Relaxed);
                cell.store(word & !(0xff << shift) | u64::from(*byte) << shift, Relaxed);
            }
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        for (at, byte) in (offset..).zip(out) {
            let word = self.0.get((at / 8) as usize).map_or(0, |cell| cell.load(Relaxed));
            *byte = (word >> ((at % 8) * 8)) as u8;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Aligned as mappings are: masked writes touch whole words of 16 bytes.
    #[repr(align(64))]
    struct Backing(#[expect(dead_code, reason = "its bytes are used by their address")] [u8; 512]);

    /// Miri takes minutes for all; every seventh has odd and even ones of each.
    const STEP: usize = if cfg!(miri) { 7 } else { 1 };

    #[test]
    fn mapped_memory_agrees_with_a_slice_at_every_alignment() {
        let mut backing = Backing([0; 512]);
        // SAFETY: offsets below stay within the 512 bytes of `backing`.
        let memory = unsafe { Mapped::new((&raw mut backing).cast()) };
        let mut expected = [0u8; 512];
        for offset in (0..24usize).step_by(STEP) {
            for len in (1..80usize).step_by(STEP) {
                let bytes: Vec<u8> = (0..len).map(|i| (offset * 31 + len * 7 + i) as u8).collect();
                memory.write(offset as u64, &bytes);
                expected[offset..offset + len].copy_from_slice(&bytes);
                let mut found = [0u8; 512];
                memory.read(0, &mut found);
                assert_eq!(found, expected, "offset {offset} len {len}");
            }
        }
    }

    #[test]
    fn steps_split_no_aligned_word() {
        for start in (0..64usize).step_by(STEP) {
            for len in (1..64usize).step_by(STEP) {
                let (mut at, end) = (start, start + len);
                while at < end {
                    let size = step(at, end - at);
                    assert!(at.is_multiple_of(size) && at + size <= end);
                    // Whatever aligned word of this range this step touches, it has whole, or lies within it.
                    for word in [2usize, 4, 8, 16] {
                        let first = at - at % word;
                        if first >= start && first + word <= end {
                            assert!(size >= word, "{start}+{len}: {size} bytes at {at}");
                        }
                    }
                    at += size;
                }
            }
        }
    }

    #[test]
    fn masked_writes_agree_with_single_bytes() {
        let mut backing = Backing([0x11; 512]);
        // SAFETY: offsets below stay within the 512 bytes of `backing`.
        let memory = unsafe { Mapped::new((&raw mut backing).cast()) };
        let mut expected = [0x11u8; 512];
        let mut mask = 0x9e37_79b9_7f4a_7c15u64;
        for offset in (0..40usize).step_by(STEP) {
            for len in (1..=64usize).step_by(STEP) {
                mask = mask.rotate_left(7) ^ mask.wrapping_mul(5);
                let bytes: Vec<u8> = (0..len).map(|i| (offset * 31 + len * 7 + i) as u8).collect();
                memory.write_masked(offset as u64, &bytes, mask);
                for (at, byte) in bytes.iter().enumerate().filter(|(at, _)| mask >> at & 1 != 0) {
                    expected[offset + at] = *byte;
                }
                let mut found = [0u8; 512];
                memory.read(0, &mut found);
                assert_eq!(found, expected, "offset {offset} len {len} mask {mask:#x}");
            }
        }
    }

    #[test]
    fn a_mask_selects_bytes() {
        let cells = Cells::zeroed(64);
        cells.write_masked(0, &[1; 64], 0x8000_0000_0000_0005);
        let found = cells.to_vec();
        assert_eq!((found[0], found[1], found[2], found[63]), (1, 0, 1, 1));
        assert_eq!(found.iter().map(|b| u32::from(*b)).sum::<u32>(), 3);
        cells.write_masked(8, &[2; 4], u64::MAX);
        assert_eq!(&cells.to_vec()[6..14], &[0, 0, 2, 2, 2, 2, 0, 0]);
    }
}
