//! From bytes in memory to an instruction.

use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction};

const PAGE: usize = 4096;
/// No instruction is longer.
pub(crate) const LONGEST: usize = 15;

/// The bytes of an instruction; those beyond its length are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CodeBytes(u128);

impl CodeBytes {
    /// Of these bytes, the first `len`.
    pub(crate) fn new(bytes: [u8; 16], len: usize) -> Self {
        Self(u128::from_le_bytes(bytes) & mask(len))
    }

    /// All of them.
    pub(crate) fn bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// Do these bytes, `len` of them, still stand at `rip`?
    pub(crate) fn stand_at(self, rip: u64, len: usize) -> bool {
        let rip = rip as usize;
        let here = PAGE - rip % PAGE;
        if here >= 16 {
            return fetch(rip) & mask(len) == self.0;
        }
        // Near the end of a page: what lies in it is compared first. Only when that is equal did the processor, which
        // sees the same instruction, itself go on to the next page, so that this one can be read.
        let (mut found, first) = ([0u8; 16], len.min(here));
        read(rip, &mut found[..first]);
        if found[..first] != self.bytes()[..first] {
            return false;
        }
        read(rip + first, &mut found[first..len]);
        u128::from_le_bytes(found) == self.0
    }
}

fn mask(len: usize) -> u128 {
    if len >= 16 { u128::MAX } else { (1u128 << (len * 8)) - 1 }
}

fn fetch(rip: usize) -> u128 {
    // SAFETY: the processor is executing an instruction at `rip`, so its page is mapped and, as code is on this
    // system, readable; the caller made sure that 16 bytes lie in that page. Any bytes are a valid u128.
    unsafe { std::ptr::with_exposed_provenance::<u128>(rip).read_unaligned() }
}

fn read(address: usize, into: &mut [u8]) {
    for (index, byte) in into.iter_mut().enumerate() {
        let place = std::ptr::with_exposed_provenance::<u8>(address + index);
        // SAFETY: the callers read only what the processor fetched itself in order to get to this instruction.
        *byte = unsafe { place.read_volatile() };
    }
}

/// Reads and decodes the instruction at `rip`. The instruction is `Code::INVALID` when it cannot be decoded.
pub(crate) fn decode(rip: u64, amd: bool) -> (Instruction, [u8; 16]) {
    let mut bytes = [0u8; 16];
    let address = rip as usize;
    let here = LONGEST.min(PAGE - address % PAGE);
    read(address, &mut bytes[..here]);
    let (instruction, error) = decode_bytes(&bytes[..here], rip, amd);
    if error != DecoderError::NoMoreBytes || here == LONGEST {
        return (instruction, bytes);
    }
    read(address + here, &mut bytes[here..LONGEST]);
    let (instruction, _) = decode_bytes(&bytes[..LONGEST], rip, amd);
    (instruction, bytes)
}

/// Decodes bytes that would stand at `rip`.
pub(crate) fn decode_bytes(bytes: &[u8], rip: u64, amd: bool) -> (Instruction, DecoderError) {
    let options = if amd { DecoderOptions::AMD } else { DecoderOptions::NONE };
    let mut decoder = Decoder::with_ip(64, bytes, rip, options);
    let mut instruction = Instruction::default();
    decoder.decode_out(&mut instruction);
    (instruction, decoder.last_error())
}

/// Has the decoder build its tables.
pub(crate) fn warm() {
    // One instruction of each encoding: legacy, VEX, EVEX and XOP.
    let samples: [&[u8]; 4] = [
        &[0x48, 0x89, 0x08],
        &[0xc5, 0xfc, 0x11, 0x00],
        &[0x62, 0xf1, 0x7c, 0x48, 0x11, 0x00],
        &[0x8f, 0xe9, 0x78, 0xe1, 0xc0],
    ];
    for sample in samples {
        let (instruction, _) = decode_bytes(sample, 0, false);
        assert_ne!(instruction.code(), Code::INVALID, "the decoder knows its own encodings");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "a minute for the tables of iced, whose reading of them Stacked Borrows does not allow")]
    fn bytes_are_compared_up_to_the_length_only() {
        let code = [0x48u8, 0x89, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
        let known = CodeBytes::new(code, 3);
        let mut page = vec![0u8; 3 * PAGE];
        let start = page.as_ptr().expose_provenance();
        for offset in [100, 2 * PAGE - (start % PAGE) - 2] {
            page[offset..offset + 16].copy_from_slice(&code);
            let rip = page.as_ptr().expose_provenance() + offset;
            assert!(known.stand_at(rip as u64, 3));
            assert_eq!(decode(rip as u64, false).0.len(), 3);
            page[offset + 3] = 99;
            assert!(known.stand_at(page.as_ptr().expose_provenance() as u64 + offset as u64, 3));
            page[offset + 2] = 9;
            assert!(!known.stand_at(page.as_ptr().expose_provenance() as u64 + offset as u64, 3));
        }
        warm();
    }
}
