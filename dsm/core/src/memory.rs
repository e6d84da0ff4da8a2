//! Shared bytes: read and written with atomic accesses only, never through references or slices, because another
//! thread, process or host may change them at any moment.

use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// The bytes of a session as one host sees them, addressed by offset. Callers have checked the bounds.
///
/// Whoever implements it keeps rule 4 of the memory model: an aligned word of 1, 2, 4, 8 or 16 bytes is never torn.
pub trait Memory {
    /// Writes all of `bytes` at `offset`.
    fn write(&self, offset: u64, bytes: &[u8]);
    /// Reads into all of `out`.
    fn read(&self, offset: u64, out: &mut [u8]);

    /// Writes those of at most 64 bytes whose bit in `mask` is set (bit 0 for the first).
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
    ($to:expr, $bytes:expr, $word:ty) => {{
        let mut word = [0u8; size_of::<$word>()];
        word.copy_from_slice($bytes);
        // SAFETY: the caller's contract makes the address writable, and it has been checked for alignment; a
        // volatile access of machine width is one instruction.
        unsafe { $to.cast::<$word>().write_volatile(<$word>::from_ne_bytes(word)) }
    }};
}

/// Reads one word with one instruction.
macro_rules! load_word {
    ($from:expr, $out:expr, $word:ty) => {{
        // SAFETY: the caller's contract makes the address readable, and it has been checked for alignment; a
        // volatile access of machine width is one instruction.
        let word = unsafe { $from.cast::<$word>().read_volatile() };
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
    store_word!(to, bytes.as_slice(), u128);
}

/// Copies whole lines between memory that others may change meanwhile and memory of our own, 16 bytes at a time:
/// on every processor with AVX an aligned access of 16 bytes is one (Intel's manual, volume 3, 9.1.1; AMD's, volume 2,
/// 7.3.2), so that no word is torn where the lines are aligned.
///
/// # Safety
/// `from` must be readable and `to` writable for `lines * 64` bytes; they must not overlap.
#[inline(always)]
pub(crate) unsafe fn copy_lines(to: *mut u8, from: *const u8, lines: usize) {
    #[cfg(not(any(miri, loom)))]
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
    #[cfg(any(miri, loom))]
    for at in 0..lines * 64 {
        let (to, from) = (to.wrapping_add(at), from.wrapping_add(at));
        // SAFETY: by this function's contract.
        let byte = unsafe { from.read_volatile() };
        // SAFETY: as above.
        unsafe { to.write_volatile(byte) };
    }
}

impl Memory for Mapped {
    #[inline(always)]
    fn write(&self, offset: u64, bytes: &[u8]) {
        let to = self.at(offset);
        let address = to as usize;
        match bytes.len() {
            1 => store_word!(to, bytes, u8),
            2 if address.is_multiple_of(2) => store_word!(to, bytes, u16),
            4 if address.is_multiple_of(4) => store_word!(to, bytes, u32),
            8 if address.is_multiple_of(8) => store_word!(to, bytes, u64),
            16 if address.is_multiple_of(16) => match bytes.try_into() {
                Ok(word) => store_16(to, word),
                Err(_) => write_any(to, bytes),
            },
            _ => write_any(to, bytes),
        }
    }

    #[inline(always)]
    fn read(&self, offset: u64, out: &mut [u8]) {
        let from = self.at(offset);
        match out.len() {
            1 => load_word!(from, out, u8),
            2 if (from as usize).is_multiple_of(2) => load_word!(from, out, u16),
            4 if (from as usize).is_multiple_of(4) => load_word!(from, out, u32),
            8 if (from as usize).is_multiple_of(8) => load_word!(from, out, u64),
            _ => read_any(from, out),
        }
    }
}

/// Any length at any alignment: bytes up to the first aligned word, words, bytes.
#[inline(never)]
fn write_any(to: *mut u8, bytes: &[u8]) {
    let (mut to, mut bytes) = (to, bytes);
    if to.align_offset(16) == 0 && bytes.len() >= 64 {
        let (lines, rest) = bytes.as_chunks::<64>();
        // SAFETY: writable by the contract of `Mapped::new`; `lines` is our own, so that nothing overlaps.
        unsafe { copy_lines(to, lines.as_ptr().cast(), lines.len()) };
        (to, bytes) = (to.wrapping_add(lines.len() * 64), rest);
    }
    let head = to.align_offset(8).min(bytes.len());
    let (head, rest) = bytes.split_at(head);
    for byte in head {
        store_word!(to, std::slice::from_ref(byte), u8);
        to = to.wrapping_add(1);
    }
    let (words, tail) = rest.as_chunks::<8>();
    for word in words {
        // SAFETY: aligned by `align_offset`, writable by the contract of `Mapped::new`; atomics tolerate racing
        // accesses from other threads and processes.
        let cell = unsafe { std::sync::atomic::AtomicU64::from_ptr(to.cast()) };
        cell.store(u64::from_ne_bytes(*word), std::sync::atomic::Ordering::Relaxed);
        to = to.wrapping_add(8);
    }
    let mut tail = tail;
    for size in [4usize, 2, 1] {
        if tail.len() >= size {
            let (piece, rest) = tail.split_at(size);
            match size {
                4 => store_word!(to, piece, u32),
                2 => store_word!(to, piece, u16),
                _ => store_word!(to, piece, u8),
            }
            to = to.wrapping_add(size);
            tail = rest;
        }
    }
}

/// As [`write_any`], the other way.
pub(crate) fn read_any(from: *const u8, out: &mut [u8]) {
    let (mut from, mut out) = (from, out);
    if from.align_offset(16) == 0 && out.len() >= 64 {
        let (lines, rest) = out.as_chunks_mut::<64>();
        // SAFETY: readable by the contract of `Mapped::new`; `lines` is our own, so that nothing overlaps.
        unsafe { copy_lines(lines.as_mut_ptr().cast(), from, lines.len()) };
        (from, out) = (from.wrapping_add(lines.len() * 64), rest);
    }
    let head = from.align_offset(8).min(out.len());
    let (head, rest) = out.split_at_mut(head);
    for byte in head {
        // SAFETY: readable by the contract of `Mapped::new`; a volatile byte cannot tear.
        *byte = unsafe { from.read_volatile() };
        from = from.wrapping_add(1);
    }
    let (words, tail) = rest.as_chunks_mut::<8>();
    for word in words {
        // SAFETY: aligned by `align_offset`, readable as above.
        let cell = unsafe { std::sync::atomic::AtomicU64::from_ptr(from.cast_mut().cast()) };
        *word = cell.load(std::sync::atomic::Ordering::Relaxed).to_ne_bytes();
        from = from.wrapping_add(8);
    }
    for byte in tail {
        // SAFETY: as for the head.
        *byte = unsafe { from.read_volatile() };
        from = from.wrapping_add(1);
    }
}

/// Memory made of cells on the heap, for simulations and model checks.
#[derive(Debug)]
pub struct Cells(Vec<AtomicU64>);

impl Cells {
    /// `len` zero bytes, rounded up to whole words.
    pub fn zeroed(len: usize) -> Self {
        Self((0..len.div_ceil(8)).map(|_| AtomicU64::new(0)).collect())
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

    #[test]
    fn mapped_memory_agrees_with_a_slice_at_every_alignment() {
        let mut backing = vec![0u64; 64];
        // SAFETY: offsets below stay within the 512 bytes of `backing`.
        let memory = unsafe { Mapped::new(backing.as_mut_ptr().cast()) };
        let mut expected = [0u8; 512];
        for offset in 0..24usize {
            for len in 1..80usize {
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
