//! A place in a mapped session: the one door through which everything typed reaches shared bytes.

use crate::region::Region;
use crate::wait;
use dsm_core::limits::LINE;
use dsm_core::memory::{Mapped, Memory};
use dsm_core::op::AtomicOp;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// An address in the view of a mapped session, good for as long as the session is borrowed.
#[derive(Clone, Copy)]
pub struct Place<'s> {
    address: *mut u8,
    region: &'s Region,
}

// SAFETY: an address whose bytes are only ever accessed by single instructions and atomics, and a `Sync` reference.
unsafe impl Send for Place<'_> {}
// SAFETY: as above.
unsafe impl Sync for Place<'_> {}

impl<'s> Place<'s> {
    /// The place at `offset`.
    pub(crate) fn new(region: &'s Region, offset: u64) -> Self {
        Self { address: region.address(offset), region }
    }

    /// The session's mapping.
    pub(crate) fn region(self) -> &'s Region {
        self.region
    }

    /// Offset in the session.
    #[inline]
    #[must_use]
    pub fn offset(self) -> u64 {
        self.region.offset_at(self.address)
    }

    /// The place `bytes` further on.
    #[inline]
    #[must_use]
    pub fn at(self, bytes: usize) -> Self {
        Self { address: self.address.wrapping_add(bytes), ..self }
    }

    /// Pointer into the view: reading through it is native, storing through it traps.
    #[inline(always)]
    #[must_use]
    pub fn as_ptr(self) -> *mut u8 {
        self.address
    }

    /// Stores one naturally aligned word of 1, 2, 4, 8 or 16 bytes: the direct door.
    ///
    /// # Panics
    /// When the session has ended.
    #[inline(always)]
    pub fn store_word<const N: usize>(self, value: [u8; N]) {
        const { assert!(matches!(N, 1 | 2 | 4 | 8 | 16)) }
        if self.region.trap_only() {
            return self.trap_store(&value);
        }
        self.region.store_word(self.offset(), value);
    }

    /// Stores any number of bytes; aligned 8-byte words in it are never torn.
    ///
    /// # Panics
    /// When the session has ended.
    pub fn store_bytes(self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.region.trap_only() {
            return self.trap_store(bytes);
        }
        let offset = self.offset();
        if offset % LINE + bytes.len() as u64 <= LINE {
            self.region.store_in_line(offset, bytes);
        } else {
            self.region.store_bytes(offset, bytes);
        }
    }

    /// Plain stores to the view.
    #[cold]
    fn trap_store(self, bytes: &[u8]) {
        // SAFETY: the place lies in a mapped segment (a handle's contract). The view is read-only: each store traps
        // and is carried out by the handler.
        unsafe { Mapped::new(self.region.address(0)) }.write(self.offset(), bytes);
    }

    /// Loads one naturally aligned word of 1, 2, 4, 8 or 16 bytes.
    #[inline(always)]
    #[must_use]
    pub fn load_word<const N: usize>(self) -> [u8; N] {
        const { assert!(matches!(N, 1 | 2 | 4 | 8 | 16)) }
        let from = self.as_ptr();
        let mut out = [0; N];
        /// Loads one word with one instruction.
        macro_rules! load {
            ($atomic:ty) => {{
                // SAFETY: mapped and aligned, by the contract of the handle that made this place; atomic, since others
                // store to it at any time. The view is read-only: a relaxed load of machine width may be made there.
                let word = unsafe { <$atomic>::from_ptr(from.cast()) }.load(Relaxed);
                out.copy_from_slice(&word.to_ne_bytes());
            }};
        }
        match N {
            1 => load!(AtomicU8),
            2 => load!(AtomicU16),
            4 => load!(AtomicU32),
            8 => load!(AtomicU64),
            _ => load_16(from, &mut out),
        }
        out
    }

    /// Loads any number of bytes; aligned 8-byte words in it are never torn.
    pub fn load_bytes(self, out: &mut [u8]) {
        self.region.read(self.offset(), out);
    }

    /// Carries out an atomic operation at its place in the total order and returns the old value.
    ///
    /// # Panics
    /// When the session has ended.
    #[must_use]
    #[inline]
    pub fn rmw(self, op: AtomicOp) -> u128 {
        if self.region.trap_only() {
            return self.trap_rmw(op);
        }
        wait::atomic(self.region, self.offset(), op)
    }

    /// The operation as a loop of locked compare-exchanges on the view.
    #[cold]
    fn trap_rmw(self, op: AtomicOp) -> u128 {
        /// One width.
        macro_rules! exchange {
            ($atomic:ty, $word:ty) => {{
                // SAFETY: mapped and aligned, by the contract of the handle that made this place.
                let cell = unsafe { <$atomic>::from_ptr(self.as_ptr().cast()) };
                let mut old = cell.load(SeqCst);
                loop {
                    match cell.compare_exchange(old, op.apply(u128::from(old)) as $word, SeqCst, SeqCst) {
                        Ok(old) => break u128::from(old),
                        Err(found) => old = found,
                    }
                }
            }};
        }
        match op.width {
            1 => exchange!(AtomicU8, u8),
            2 => exchange!(AtomicU16, u16),
            4 => exchange!(AtomicU32, u32),
            8 => exchange!(AtomicU64, u64),
            _ => {
                let mut old = u128::from_le_bytes(self.load_word());
                loop {
                    match compare_exchange_16(self.as_ptr(), old, op.apply(old)) {
                        found if found == old => break old,
                        found => old = found,
                    }
                }
            }
        }
    }
}

/// `lock cmpxchg16b`: stores `new` where `old` is, and returns what was there. (Every processor on which this library
/// runs has it; the standard library has no such type.)
fn compare_exchange_16(at: *mut u8, old: u128, new: u128) -> u128 {
    let (mut low, mut high) = (old as u64, (old >> 64) as u64);
    // SAFETY: mapped and 16-byte aligned, by the contract of the handle that made the place; rbx, which the compiler
    // keeps for itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, rsi", "lock cmpxchg16b [rdi]", "mov rbx, rsi",
            in("rdi") at, inout("rsi") new as u64 => _, in("rcx") (new >> 64) as u64,
            inout("rax") low, inout("rdx") high,
            options(nostack)
        );
    }
    u128::from(low) | u128::from(high) << 64
}

/// Loads 16 aligned bytes with one instruction.
#[inline(always)]
fn load_16<const N: usize>(from: *mut u8, out: &mut [u8; N]) {
    debug_assert!(N == 16);
    #[cfg(miri)]
    for (out, at) in out.as_chunks_mut::<8>().0.iter_mut().zip([0, 8]) {
        // SAFETY: as below.
        *out = unsafe { AtomicU64::from_ptr(from.wrapping_add(at).cast()) }.load(Relaxed).to_ne_bytes();
    }
    #[cfg(not(miri))]
    // SAFETY: `from` is mapped and 16-byte aligned, `out` has 16 bytes (N is 16 here).
    unsafe {
        std::arch::asm!(
            "movaps {t}, [{from}]", "movups [{out}], {t}",
            t = out(xmm_reg) _, from = in(reg) from, out = in(reg) out.as_mut_ptr(),
            options(nostack, preserves_flags)
        );
    }
}

impl std::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({:?} + {:#x})", self.region.name, self.offset())
    }
}
