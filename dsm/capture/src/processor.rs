//! What the engine must know of the processor it runs on, found out once in [`crate::warm`].

use crate::sys;
use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv, CpuidResult};

/// State components by their number in XCR0.
pub(crate) mod component {
    /// The upper halves of YMM0..15.
    pub(crate) const AVX: usize = 2;
    /// The mask registers K0..7.
    pub(crate) const OPMASK: usize = 5;
    /// The upper halves of ZMM0..15.
    pub(crate) const ZMM_HIGH: usize = 6;
    /// ZMM16..31.
    pub(crate) const ZMM_MORE: usize = 7;
    /// The components that a displaced instruction may use: x87, SSE and the four above.
    pub(crate) const CARRIED: u64 = 0b1110_0111;
}

/// The processor's features.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processor {
    /// `rdfsbase` and its family may be used.
    pub(crate) fsgsbase: bool,
    /// The components that the system lets us use; 0 without XSAVE.
    pub(crate) xcr0: u64,
    /// Where each component lies in an XSAVE area of standard format.
    pub(crate) offsets: [u32; 8],
    /// Bytes that an XSAVE of the carried components needs.
    pub(crate) area: usize,
    /// The x87 unit notes where an operand lies only for an instruction that has an exception that is not masked.
    pub(crate) data_on_exceptions: bool,
    /// Made by AMD, whose near branches with an operand-size prefix decode differently.
    pub(crate) amd: bool,
    /// Made by Intel, whose near calls to an address that cannot be store the return address before they fault.
    pub(crate) intel: bool,
    /// Bits that a linear address has, which is a choice of the system.
    pub(crate) linear: u32,
}

impl Processor {
    /// Looks.
    pub(crate) fn detect() -> Self {
        const HWCAP2_FSGSBASE: libc::c_ulong = 1 << 1;
        // SAFETY: reads a value that the kernel handed to the process.
        let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
        let vendor = cpuid(0, 0);
        let leaf_7 = if vendor.eax >= 7 { cpuid(7, 0).ebx } else { 0 };
        let osxsave = cpuid(1, 0).ecx & (1 << 27) != 0;
        let xcr0 = if osxsave { enabled() } else { 0 };
        let mut offsets = [0u32; 8];
        let mut area = 512 + 64;
        for number in 2..8 {
            if xcr0 & component::CARRIED & (1 << number) != 0 {
                let leaf = cpuid(0xd, number);
                offsets[number as usize] = leaf.ebx;
                area = area.max(leaf.ebx as usize + leaf.eax as usize);
            }
        }
        Self {
            fsgsbase: hwcap2 & HWCAP2_FSGSBASE != 0,
            xcr0,
            offsets,
            area,
            data_on_exceptions: leaf_7 & 1 << 6 != 0,
            amd: vendor.ebx == u32::from_le_bytes(*b"Auth"),
            intel: vendor.ebx == u32::from_le_bytes(*b"Genu"),
            linear: if sys::has_wide_addresses() { 57 } else { 48 },
        }
    }

    /// Can this be an address?
    pub(crate) fn is_canonical(&self, address: u64) -> bool {
        let unused = 64 - self.linear;
        ((address << unused) as i64 >> unused) as u64 == address
    }

    /// The base of a segment: GS (`gs`) or FS.
    pub(crate) fn segment_base(&self, gs: bool) -> u64 {
        if !self.fsgsbase {
            return sys::segment_base(gs);
        }
        let base: u64;
        if gs {
            // SAFETY: the feature is there; the instruction only reads.
            unsafe { asm!("rdgsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
        } else {
            // SAFETY: as above.
            unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
        }
        base
    }
}

/// What the processor says of itself; some leaves have parts.
pub(crate) fn cpuid(leaf: u32, part: u32) -> CpuidResult {
    #[allow(unused_unsafe, reason = "newer compilers know that it is safe")]
    // SAFETY: every x86-64 processor has the instruction.
    unsafe {
        __cpuid_count(leaf, part)
    }
}

fn enabled() -> u64 {
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: register 0 exists wherever the system enabled XSAVE, which is the condition of this function.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: the caller saw OSXSAVE.
    unsafe { read() }
}
