//! The registers of the interrupted program, as the signal frame holds them.

use crate::processor::{Processor, component};

/// No register: an address without base or without index.
pub(crate) const NONE: u8 = 0xff;
/// Added to the number of AX, CX, DX, BX for AH, CH, DH, BH.
pub(crate) const HIGH_BYTE: u8 = 0x10;
/// The numbers of the registers that instructions name implicitly.
pub(crate) mod gpr {
    pub(crate) const RAX: u8 = 0;
    pub(crate) const RCX: u8 = 1;
    pub(crate) const RDX: u8 = 2;
    pub(crate) const RBX: u8 = 3;
    pub(crate) const RSP: u8 = 4;
    pub(crate) const RBP: u8 = 5;
    pub(crate) const RSI: u8 = 6;
    pub(crate) const RDI: u8 = 7;
}

/// Where the kernel puts register `n` of the instruction encoding.
const PLACES: [usize; 16] = [
    libc::REG_RAX as usize,
    libc::REG_RCX as usize,
    libc::REG_RDX as usize,
    libc::REG_RBX as usize,
    libc::REG_RSP as usize,
    libc::REG_RBP as usize,
    libc::REG_RSI as usize,
    libc::REG_RDI as usize,
    libc::REG_R8 as usize,
    libc::REG_R9 as usize,
    libc::REG_R10 as usize,
    libc::REG_R11 as usize,
    libc::REG_R12 as usize,
    libc::REG_R13 as usize,
    libc::REG_R14 as usize,
    libc::REG_R15 as usize,
];

/// The carry flag.
pub(crate) const CARRY: u64 = 1;
/// The direction flag.
pub(crate) const DIRECTION: u64 = 1 << 10;
/// Carry, parity, adjust, zero, sign and overflow.
pub(crate) const STATUS: u64 = 0x8d5;

/// General registers, instruction pointer and flags; and the way to the rest.
pub(crate) struct Machine<'a> {
    context: &'a mut libc::mcontext_t,
    pub(crate) processor: &'a Processor,
}

impl<'a> Machine<'a> {
    /// On the registers of a signal frame.
    pub(crate) fn new(context: &'a mut libc::mcontext_t, processor: &'a Processor) -> Self {
        Self { context, processor }
    }

    /// Did the processor report a page fault by a write?
    pub(crate) fn is_write_fault(&self) -> bool {
        const PAGE_FAULT: i64 = 14;
        const WRITE: i64 = 2;
        self.context.gregs[libc::REG_TRAPNO as usize] == PAGE_FAULT
            && self.context.gregs[libc::REG_ERR as usize] & WRITE != 0
    }

    /// All 64 bits of register `number`.
    pub(crate) fn full(&self, number: u8) -> u64 {
        self.context.gregs[PLACES[usize::from(number & 15)]] as u64
    }

    /// Sets all 64 bits of register `number`.
    pub(crate) fn set_full(&mut self, number: u8, value: u64) {
        self.context.gregs[PLACES[usize::from(number & 15)]] = value as i64;
    }

    /// A register operand; of a high-byte register its byte comes lowest. Bits above the operand's width are garbage.
    pub(crate) fn operand(&self, register: u8) -> u64 {
        let value = self.full(register);
        if register & HIGH_BYTE != 0 { value >> 8 } else { value }
    }

    /// The instruction is finished and the one at `rip` is next. The fault set RF; finishing clears it.
    pub(crate) fn finish_at(&mut self, rip: u64) {
        const RESUME: i64 = 1 << 16;
        self.context.gregs[libc::REG_EFL as usize] &= !RESUME;
        self.context.gregs[libc::REG_RIP as usize] = rip as i64;
    }

    /// RFLAGS.
    pub(crate) fn flags(&self) -> u64 {
        self.context.gregs[libc::REG_EFL as usize] as u64
    }

    /// Takes the status flags from `flags` and leaves the others.
    pub(crate) fn set_status(&mut self, flags: u64) {
        let kept = self.flags() & !STATUS;
        self.context.gregs[libc::REG_EFL as usize] = (kept | (flags & STATUS)) as i64;
    }

    /// Vector, mask and x87 registers.
    pub(crate) fn extended(&mut self) -> Extended<'_> {
        let area = self.context.fpregs.cast::<u8>();
        // SAFETY: the kernel puts a complete FXSAVE area into every signal frame, and nothing else refers to it.
        let legacy = unsafe { std::slice::from_raw_parts_mut(area, LEGACY) };
        let size = Extended { area: legacy, processor: self.processor }.whole_size();
        // SAFETY: the frame itself says, by the magic number next to the size, that so many bytes belong to the area;
        // the slice above is not used any more.
        let area = unsafe { std::slice::from_raw_parts_mut(area, size) };
        Extended { area, processor: self.processor }
    }

    /// Is condition `code` (0..16 as in Jcc and SETcc) true?
    pub(crate) fn condition(&self, code: u8) -> bool {
        let flag = |bit: u32| self.flags() >> bit & 1 != 0;
        let (carry, parity, zero, sign, overflow) = (flag(0), flag(2), flag(6), flag(7), flag(11));
        let holds = match code >> 1 {
            0 => overflow,
            1 => carry,
            2 => zero,
            3 => carry || zero,
            4 => sign,
            5 => parity,
            6 => sign != overflow,
            _ => zero || sign != overflow,
        };
        holds != (code & 1 != 0)
    }
}

const LEGACY: usize = 512;
const HEADER: usize = 512;
const SOFTWARE: usize = 464;
const XMM: usize = 160;
const MXCSR: usize = 24;
const X87_STATUS: usize = 2;
const X87_POINTER: usize = 8;
const X87_DATA: usize = 16;
const XSTATE_MAGIC: u32 = 0x4650_5853;

/// The FXSAVE or (standard format) XSAVE area of a signal frame.
pub(crate) struct Extended<'a> {
    area: &'a mut [u8],
    processor: &'a Processor,
}

impl Extended<'_> {
    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.area[at..at + N]);
        bytes
    }

    fn whole_size(&self) -> usize {
        let has_header = self.u32_at(SOFTWARE) == XSTATE_MAGIC && self.processor.xcr0 != 0;
        let size = self.u32_at(SOFTWARE + 16) as usize;
        if has_header && size >= LEGACY + 64 { size } else { LEGACY }
    }

    /// Is this more than an FXSAVE area?
    pub(crate) fn has_header(&self) -> bool {
        self.area.len() > LEGACY
    }

    /// The components that the kernel saved here and that a displaced instruction may use.
    pub(crate) fn features(&self) -> u64 {
        if !self.has_header() {
            return 0b11;
        }
        self.u64_at(SOFTWARE + 8) & self.processor.xcr0 & component::CARRIED
    }

    /// Where the area starts.
    pub(crate) fn start(&mut self) -> *mut u8 {
        self.area.as_mut_ptr()
    }

    fn in_use(&self, number: usize) -> bool {
        if !self.has_header() {
            return number < 2;
        }
        self.u64_at(HEADER) & (1 << number) != 0
    }

    /// `len` bytes of a component at `offset` in it; zeros when it is in its initial state.
    fn component(&self, number: usize, offset: usize, len: usize, into: &mut [u8]) {
        let base = if number < 2 { 0 } else { self.processor.offsets[number] as usize };
        let range = base + offset..base + offset + len;
        if self.in_use(number) && (number < 2 || base != 0) && range.end <= self.area.len() {
            into[..len].copy_from_slice(&self.area[range]);
        } else {
            into[..len].fill(0);
        }
    }

    /// The 64 bytes of vector register `number` (0..32).
    pub(crate) fn vector(&self, number: u8) -> [u8; 64] {
        let mut bytes = [0; 64];
        let index = usize::from(number & 31);
        if index >= 16 {
            self.component(component::ZMM_MORE, (index - 16) * 64, 64, &mut bytes);
            return bytes;
        }
        self.component(1, XMM + index * 16, 16, &mut bytes);
        if self.has_header() {
            self.component(component::AVX, index * 16, 16, &mut bytes[16..]);
            self.component(component::ZMM_HIGH, index * 32, 32, &mut bytes[32..]);
        }
        bytes
    }

    /// Mask register `number` (0..8).
    pub(crate) fn opmask(&self, number: u8) -> u64 {
        let mut bytes = [0; 8];
        if self.has_header() {
            self.component(component::OPMASK, usize::from(number & 7) * 8, 8, &mut bytes);
        }
        u64::from_le_bytes(bytes)
    }

    /// Sets mask register `number`.
    pub(crate) fn set_opmask(&mut self, number: u8, value: u64) {
        let base = self.processor.offsets[component::OPMASK] as usize;
        if !self.has_header() || base == 0 || base + 64 > self.area.len() {
            return;
        }
        if !self.in_use(component::OPMASK) {
            self.area[base..base + 64].fill(0);
            let used = self.u64_at(HEADER) | 1 << component::OPMASK;
            self.area[HEADER..HEADER + 8].copy_from_slice(&used.to_le_bytes());
        }
        let at = base + usize::from(number & 7) * 8;
        self.area[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// The control and status register of SSE.
    pub(crate) fn mxcsr(&self) -> u32 {
        self.u32_at(MXCSR)
    }

    /// Sets it.
    pub(crate) fn set_mxcsr(&mut self, value: u32) {
        self.area[MXCSR..MXCSR + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Is there an x87 exception that is not masked?
    pub(crate) fn x87_unmasked(&self) -> bool {
        self.in_use(0) && self.area[0] & 0x3f != 0x3f
    }

    /// If the x87 unit says that its last instruction stood at `stub`, lets it say `rip`, and `data` as the offset of
    /// that instruction's operand, if this kind of unit has noted it.
    pub(crate) fn place_x87(&mut self, stub: u64, rip: u64, data: u64) {
        /// The summary of exceptions that are not masked. Had it been set before, the instruction would not have run.
        const SUMMARY: u8 = 0x80;
        if !self.in_use(0) || self.u64_at(X87_POINTER) != stub {
            return;
        }
        self.area[X87_POINTER..X87_POINTER + 8].copy_from_slice(&rip.to_le_bytes());
        if !self.processor.data_on_exceptions || self.area[X87_STATUS] & SUMMARY != 0 {
            self.area[X87_DATA..X87_DATA + 8].copy_from_slice(&data.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor() -> Processor {
        let mut offsets = [0; 8];
        for (number, offset) in [(2, 576), (5, 832), (6, 896), (7, 1408)] {
            offsets[number] = offset;
        }
        let (data_on_exceptions, amd, intel) = (false, false, false);
        Processor { fsgsbase: true, xcr0: 0xe7, offsets, area: 2432, data_on_exceptions, amd, intel, linear: 48 }
    }

    fn area(in_use: u64) -> Vec<u8> {
        let mut area: Vec<u8> = (0..2432u32).map(|index| (index % 251) as u8).collect();
        area[SOFTWARE..SOFTWARE + 4].copy_from_slice(&XSTATE_MAGIC.to_le_bytes());
        area[SOFTWARE + 8..SOFTWARE + 16].copy_from_slice(&0xe7u64.to_le_bytes());
        area[SOFTWARE + 16..SOFTWARE + 20].copy_from_slice(&2432u32.to_le_bytes());
        area[HEADER..HEADER + 8].copy_from_slice(&in_use.to_le_bytes());
        area
    }

    #[test]
    fn vectors_are_put_together_from_their_components() {
        let (processor, mut bytes) = (processor(), area(0xe7));
        let copy = bytes.clone();
        let extended = Extended { area: &mut bytes, processor: &processor };
        assert_eq!(extended.whole_size(), 2432);
        let low = extended.vector(3);
        assert_eq!(low[..16], copy[160 + 48..160 + 64]);
        assert_eq!(low[16..32], copy[576 + 48..576 + 64]);
        assert_eq!(low[32..], copy[896 + 96..896 + 128]);
        assert_eq!(extended.vector(17), copy[1408 + 64..1408 + 128]);
        assert_eq!(extended.opmask(2).to_le_bytes(), copy[832 + 16..832 + 24]);
    }

    #[test]
    fn an_unused_component_reads_as_zeros() {
        let (processor, mut bytes) = (processor(), area(0b11));
        let mut extended = Extended { area: &mut bytes, processor: &processor };
        assert_eq!(extended.vector(3)[16..], [0; 48]);
        assert_eq!(extended.vector(20), [0; 64]);
        assert_eq!(extended.opmask(1), 0);
        extended.set_opmask(1, 77);
        assert_eq!((extended.opmask(0), extended.opmask(1), extended.opmask(2)), (0, 77, 0));
        assert_eq!(extended.u64_at(HEADER), 0b10_0011);
    }

    #[test]
    fn the_x87_operand_is_noted_as_the_kind_of_processor_does() {
        const STUB: u64 = 0x1000;
        let noted = |data_on_exceptions: bool, status: u8, last: u64| {
            let (mut processor, mut bytes) = (processor(), area(0xe7));
            processor.data_on_exceptions = data_on_exceptions;
            bytes[X87_STATUS] = status;
            bytes[X87_POINTER..X87_POINTER + 8].copy_from_slice(&last.to_le_bytes());
            bytes[X87_DATA..X87_DATA + 8].copy_from_slice(&1u64.to_le_bytes());
            let mut extended = Extended { area: &mut bytes, processor: &processor };
            extended.place_x87(STUB, 0x7777, 0x8888);
            (extended.u64_at(X87_POINTER), extended.u64_at(X87_DATA))
        };
        // With every exception masked, and with one that is not.
        assert_eq!([noted(false, 0x3f, STUB), noted(true, 0x3f, STUB)], [(0x7777, 0x8888), (0x7777, 1)]);
        assert_eq!([noted(false, 0x81, STUB), noted(true, 0x81, STUB)], [(0x7777, 0x8888); 2]);
        // Another instruction was the last.
        assert_eq!([noted(false, 0x81, 5), noted(true, 0x81, 5)], [(5, 1); 2]);
    }

    #[test]
    fn conditions_follow_the_flags() {
        // SAFETY: zeros are valid for this plain C structure.
        let mut context: libc::mcontext_t = unsafe { std::mem::zeroed() };
        let processor = processor();
        context.gregs[libc::REG_EFL as usize] = 0x40;
        let machine = Machine::new(&mut context, &processor);
        let holding: Vec<u8> = (0..16).filter(|code| machine.condition(*code)).collect();
        // no, ae, e, be, ns, np, ge, le
        assert_eq!(holding, [1, 3, 4, 6, 9, 11, 13, 14]);
    }
}
