//! Random x87 and vector state, and what is compared of it.

use super::generate::Indices;
use super::rng::Rng;
use super::runner::State;
use crate::processor::{Processor, component};
use std::fmt::Write;

const HEADER: usize = 512;
const X87: u64 = 1;
const SSE: u64 = 2;
const AVX: u64 = 4;
/// The components that have no place in the legacy area, with their names and sizes.
const UPPER: [(usize, &str, usize); 4] = [
    (component::AVX, "ymm, upper halves", 256),
    (component::OPMASK, "masks", 64),
    (component::ZMM_HIGH, "zmm, upper halves", 512),
    (component::ZMM_MORE, "zmm16 to 31", 1024),
];

/// Fills an area made by the kernel with random state.
pub(super) fn randomize(area: &mut [u8], has_header: bool, processor: &Processor, rng: &mut Rng) {
    let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
    // Exceptions are masked, except now and then.
    let masks = if rng.one_in(32) { rng.next() } else { u64::MAX };
    let control = rng.below(4) << 10 | [0u64, 2, 3][rng.below(3) as usize] << 8 | 0x40 | masks & 0x3f;
    put(0, &(control as u16).to_le_bytes());
    // Top of stack and condition codes; no exception is pending.
    put(2, &((rng.next() & 0x7f00) as u16).to_le_bytes());
    put(4, &[rng.next() as u8, 0]);
    // AMD's processors forget where the last x87 instruction was whenever their state is saved, and so at every
    // signal, so there is nothing to compare on them.
    let pointers = if processor.amd { [0; 3] } else { [rng.next() & 0x7ff, rng.next() >> 17, rng.next() >> 17] };
    put(6, &(pointers[0] as u16).to_le_bytes());
    put(8, &pointers[1].to_le_bytes());
    put(16, &pointers[2].to_le_bytes());
    let masks = if rng.one_in(32) { rng.next() } else { u64::MAX };
    let mxcsr = rng.below(4) << 13 | rng.next() & 0x8040 | masks & 0x1f80 | rng.next() & 0x3f & (masks >> 7);
    put(24, &(mxcsr as u32).to_le_bytes());
    for index in 0..8 {
        let (mantissa, exponent) = float(rng);
        put(32 + index * 16, &mantissa.to_le_bytes());
        put(32 + index * 16 + 8, &u64::from(exponent).to_le_bytes());
    }
    for index in 0..32 {
        put(160 + index * 8, &rng.next().to_le_bytes());
    }
    if !has_header {
        return;
    }
    let mut used = X87 | SSE;
    let upper = processor.offsets[component::AVX] as usize;
    if upper != 0 {
        used |= AVX;
        for index in 0..32 {
            put(upper + index * 8, &rng.next().to_le_bytes());
        }
    }
    if processor.offsets[component::OPMASK] != 0 {
        for number in [component::OPMASK, component::ZMM_HIGH, component::ZMM_MORE] {
            used |= 1 << number;
            let (at, words) = (processor.offsets[number] as usize, [8, 64, 128][number - component::OPMASK]);
            for index in 0..words {
                let word = if number == component::OPMASK { mask(rng) } else { rng.next() };
                put(at + index * 8, &word.to_le_bytes());
            }
        }
    }
    // Sometimes a component is in its initial state.
    if rng.one_in(8) {
        used &= rng.next();
    }
    put(HEADER, &used.to_le_bytes());
}

/// Mask bits as programs have them: few lanes or all, from the first on or up to the last, one, all but one, or any.
fn mask(rng: &mut Rng) -> u64 {
    let lanes = 1 << rng.below(7);
    let first = u64::MAX.checked_shr(64 - rng.below(lanes + 1) as u32).unwrap_or(0);
    let one = 1 << rng.below(lanes);
    match rng.below(16) {
        0 => 0,
        1 => u64::MAX,
        2..=4 => first,
        5..=7 => !first,
        8 => one,
        9 => !one,
        _ => rng.next(),
    }
}

/// Makes the vector register of a scatter hold its indices.
pub(super) fn set_indices(area: &mut [u8], indices: &Indices, processor: &Processor, rng: &mut Rng) {
    let n = usize::from(indices.register);
    let at = |number: usize| processor.offsets[number] as usize;
    let small = |rng: &mut Rng| indices.bias.wrapping_add(rng.below(64)).wrapping_sub(32);
    // Now and then one of them is far away.
    let far = rng.one_in(6).then(|| (rng.below(8) as usize, rng.below(2) * 32));
    for lane in 0..8 {
        let offset = lane * 8;
        let place = match (n >= 16, lane) {
            (true, _) => at(component::ZMM_MORE) + (n - 16) * 64 + offset,
            (false, 0 | 1) => 160 + n * 16 + offset,
            (false, 2 | 3) => at(component::AVX) + n * 16 + offset - 16,
            (false, _) => at(component::ZMM_HIGH) + n * 32 + offset - 32,
        };
        let mut word = match indices.wide {
            true => small(rng),
            false => small(rng) & 0xffff_ffff | small(rng) << 32,
        };
        if let Some((_, shift)) = far.filter(|(at, _)| *at == lane) {
            word = word.wrapping_add(indices.far << if indices.wide { 0 } else { shift });
        }
        if place >= 160 && at(component::ZMM_MORE) != 0 {
            area[place..place + 8].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// A floating-point number of 80 bits: its size is such that conversions matter.
fn float(rng: &mut Rng) -> (u64, u16) {
    let mantissa = rng.next() | 1 << 63;
    let sign = (rng.next() & 0x8000) as u16;
    match rng.below(8) {
        0 => (0, sign),
        1 => (1 << 63, sign | 0x7fff),
        2 => (mantissa, sign | 0x7fff),
        3 => (mantissa, sign | rng.below(0x7fff) as u16),
        _ => (mantissa, sign | (0x3fff - 8 + rng.below(80)) as u16),
    }
}

/// What of an area can be observed by a program: the bytes of components that are in use, and their initial values
/// where they are not.
fn observable(area: &[u8], has_header: bool, processor: &Processor) -> Vec<(&'static str, Vec<u8>)> {
    let mut used = X87 | SSE;
    if has_header {
        let mut word = [0; 8];
        word.copy_from_slice(&area[HEADER..HEADER + 8]);
        used = u64::from_le_bytes(word);
    }
    let part = |bit: u64, at: usize, len: usize| {
        if used & bit != 0 { area[at..at + len].to_vec() } else { vec![0; len] }
    };
    let mut control = part(X87, 0, 24);
    if used & X87 == 0 {
        control[..2].copy_from_slice(&0x37fu16.to_le_bytes());
    }
    let mut stack = part(X87, 32, 128);
    // The upper six bytes of each slot are reserved.
    stack.chunks_exact_mut(16).for_each(|slot| slot[10..].fill(0));
    let mut parts = vec![
        ("x87 control", control),
        ("x87 stack", stack),
        ("mxcsr", area[24..28].to_vec()),
        ("xmm", part(SSE, 160, 256)),
    ];
    for (number, name, size) in UPPER {
        let at = processor.offsets[number] as usize;
        if has_header && at != 0 {
            parts.push((name, part(1 << number, at, size)));
        }
    }
    parts
}

/// Every difference between what the processor left and what the engine left, as text. `ignored`: flags that the
/// instruction leaves undefined.
pub(super) fn differences(
    native: &State,
    captured: &State,
    ignored: u64,
    has_header: bool,
    processor: &Processor,
) -> String {
    const RESUME: u64 = 1 << 16;
    let mut text = String::new();
    for number in 0..16 {
        let (left, right) = (native.registers[number], captured.registers[number]);
        if left != right {
            let _ = writeln!(text, "  {:?}: natively {left:#x}, captured {right:#x}", super::generate::name(number));
        }
    }
    if native.rip != captured.rip {
        let _ = writeln!(text, "  RIP: natively {:#x}, captured {:#x}", native.rip, captured.rip);
    }
    let compared = !(ignored | RESUME);
    if (native.flags ^ captured.flags) & compared != 0 {
        let _ = writeln!(text, "  flags: natively {:#x}, captured {:#x}", native.flags, captured.flags);
    }
    let left = observable(&native.area, has_header, processor);
    let right = observable(&captured.area, has_header, processor);
    for ((name, left), (_, right)) in left.iter().zip(&right).filter(|(left, right)| left != right) {
        let _ = writeln!(text, "  {name}:\n    natively {left:02x?}\n    captured {right:02x?}");
    }
    text
}

/// The registers beyond the general ones, for a report.
pub(super) fn shown(state: &State, has_header: bool, processor: &Processor) -> String {
    let mut text = String::new();
    for (name, bytes) in observable(&state.area, has_header, processor) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "  {name} {hex}");
    }
    text
}

/// Of an area that XSAVE and its like wrote: which bytes, and which bits of its header's first word, the processor may
/// leave either way.
///
/// Whether a component that holds its initial value counts as in use is the processor's own affair: it may change its
/// mind at any interrupt. It is so for the components that *are* initial before the instruction, and for no others.
pub(super) struct Undecided {
    bits: u64,
    bytes: Vec<std::ops::Range<usize>>,
    /// MXCSR and its mask, which go with SSE in some of these instructions.
    control: [u8; 8],
}

impl Undecided {
    /// `start`: the registers before the instruction. `compact`: it writes the compacted format.
    pub(super) fn new(start: &State, compact: bool, has_header: bool, processor: &Processor) -> Self {
        let asked = (start.registers[0] & 0xffff_ffff | start.registers[2] << 32) & processor.xcr0;
        let observed = observable(&start.area, has_header, processor);
        let zero = |name: &str| observed.iter().filter(|(own, _)| *own == name).all(|(_, b)| b.iter().all(|b| *b == 0));
        let mut undecided = Self { bits: 0, bytes: vec![], control: [0; 8] };
        undecided.control.copy_from_slice(&start.area[24..32]);
        let x87_initial = zero("x87 stack")
            && observed.iter().any(|(name, bytes)| {
                *name == "x87 control" && bytes[..2] == 0x37fu16.to_le_bytes() && bytes[2..].iter().all(|b| *b == 0)
            });
        if asked & X87 != 0 && x87_initial {
            undecided.bits |= X87;
            undecided.bytes.extend([0..24, 32..160]);
        }
        if asked & SSE != 0 && zero("xmm") {
            undecided.bits |= SSE;
            undecided.bytes.extend([24..32, 160..416]);
        }
        let mut next = HEADER + 64;
        for (number, name, size) in UPPER {
            if asked & 1 << number == 0 {
                continue;
            }
            let at = if compact { next } else { processor.offsets[number] as usize };
            next += size;
            if zero(name) {
                undecided.bits |= 1 << number;
                undecided.bytes.push(at..at + size);
            }
        }
        undecided
    }

    /// Makes in `captured`, an area of at least a header, equal to `native` what may differ, if it has one of the two
    /// values that it may have: those `before`, or the initial ones. Did anything differ?
    pub(super) fn settle(&self, before: &[u8], native: &[u8], captured: &mut [u8]) -> bool {
        let mut differed = false;
        let bits = self.bits.to_le_bytes();
        for at in 0..8 {
            let settled = captured[HEADER + at] & !bits[at] | native[HEADER + at] & bits[at];
            differed |= settled != captured[HEADER + at];
            captured[HEADER + at] = settled;
        }
        for range in &self.bytes {
            let Some(captured) = captured.get_mut(range.clone()) else { continue };
            let mut initial = vec![0; range.len()];
            match range.start {
                0 => initial[..2].copy_from_slice(&0x37fu16.to_le_bytes()),
                24 => initial.copy_from_slice(&self.control),
                _ => {}
            }
            // The reserved bytes of a stack slot may stay as they are.
            let may = |found: &[u8]| {
                found.iter().zip(&before[range.clone()]).zip(&initial).all(|((b, old), new)| b == old || b == new)
            };
            if may(captured) && may(&native[range.clone()]) {
                differed |= *captured != native[range.clone()];
                captured.copy_from_slice(&native[range.clone()]);
            }
        }
        differed
    }
}

/// Do the headers of two areas that XSAVE and its like wrote differ in nothing but x87 and SSE state that only the
/// captured one has in use? So the system leaves both when it returns from a signal, be they initial before.
pub(super) fn woken_by_signal(native: &[u8], captured: &[u8]) -> bool {
    let word = |area: &[u8]| area[HEADER..HEADER + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let (native, captured) = (word(native), word(captured));
    native != captured && native | X87 | SSE == captured | X87 | SSE && native & !captured == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An area as XSAVE leaves it, with these components in use.
    fn area(used: u64, xmm: u8) -> Vec<u8> {
        let mut area = vec![0; 1024];
        area[160..416].fill(xmm);
        area[HEADER..HEADER + 8].copy_from_slice(&used.to_le_bytes());
        area
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs the processor, or a minute for the tables of iced")]
    fn only_what_is_initial_may_differ() {
        let mut processor = Processor::detect();
        (processor.xcr0, processor.offsets) = (3, [0; 8]);
        let mut start = State { registers: [0; 16], rip: 0, flags: 0, area: vec![0; 1024] };
        (start.registers[0], start.area[HEADER]) = (3, 3);
        let before = vec![0x99; 1024];
        // SSE is initial: the bit may be either way, and the bytes zero or untouched, but nothing else.
        let undecided = Undecided::new(&start, false, true, &processor);
        let settled = |native: &[u8], mut captured: Vec<u8>| {
            undecided.settle(&before, native, &mut captured);
            captured == native
        };
        assert!(settled(&area(3, 0), area(1, 0)) && settled(&area(1, 0x99), area(3, 0)));
        assert!(!settled(&area(3, 0), area(3, 7)) && !settled(&area(3, 0), area(2, 0)));
        // A signal has them in use, and nothing but them, and never the other way round.
        assert!(woken_by_signal(&area(0, 0), &area(2, 0)) && woken_by_signal(&area(5, 0), &area(7, 0)));
        assert!(!woken_by_signal(&area(3, 0), &area(1, 0)) && !woken_by_signal(&area(1, 0), &area(2, 0)));
        assert!(!woken_by_signal(&area(3, 0), &area(7, 0)) && !woken_by_signal(&area(3, 0), &area(3, 0)));
        // With something in XMM3 there is nothing to decide.
        start.area[210] = 1;
        let undecided = Undecided::new(&start, false, true, &processor);
        let mut captured = area(1, 0);
        assert!(!undecided.settle(&before, &area(3, 0), &mut captured));
        assert_ne!(captured, area(3, 0));
    }
}
