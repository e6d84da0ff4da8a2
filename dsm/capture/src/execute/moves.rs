//! Moves whose bytes come from saved registers.

use super::Trap;
use crate::plan::{Segment, Value};
use crate::{Outcome, memory};

/// MOV and its like.
pub(super) fn plain(trap: &mut Trap, value: Value, width: usize, reversed: bool) -> Outcome {
    let value = match value {
        Value::Register(register) => trap.machine.operand(register),
        Value::Immediate(immediate) => immediate,
        _ => return Outcome::NotOurs,
    };
    let address = trap.place().address(&trap.machine);
    let mut bytes = value.to_le_bytes();
    if reversed {
        bytes[..width].reverse();
    }
    trap.store(address, &bytes[..width])
}

/// A part of a vector register, in bytes, and of its elements.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) from: usize,
    pub(super) width: usize,
    pub(super) element: usize,
    /// Elements that are left out must be writable, too.
    pub(super) whole: bool,
}

/// A vector register, wholly or under a mask register.
pub(super) fn vector(trap: &mut Trap, register: u8, part: Part, mask: u8) -> Outcome {
    let address = trap.place().address(&trap.machine);
    let extended = trap.machine.extended();
    let bytes = extended.vector(register);
    let bytes = &bytes[part.from..part.from + part.width];
    if mask == 0 {
        return trap.store(address, bytes);
    }
    let enabled = extended.opmask(mask) & lanes_mask(part.width / part.element);
    if part.whole && !trap.sink.writable(address, part.width) {
        return Outcome::NotOurs;
    }
    runs(trap, address, bytes, part.element, enabled)
}

/// As many low bits as there are lanes.
pub(super) fn lanes_mask(lanes: usize) -> u64 {
    if lanes >= 64 { u64::MAX } else { (1 << lanes) - 1 }
}

/// The runs of set bits in `enabled`: first lane and number of lanes, from low to high.
pub(super) fn runs_of(mut enabled: u64) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if enabled == 0 {
            return None;
        }
        let skip = enabled.trailing_zeros() as usize;
        enabled >>= skip;
        let len = enabled.trailing_ones() as usize;
        enabled = if len == 64 { 0 } else { enabled >> len };
        let first = at + skip;
        at = first + len;
        Some((first, len))
    })
}

/// Stores each run of enabled elements. Elements that are not enabled are not touched and cannot fault.
pub(super) fn runs(trap: &mut Trap, address: usize, bytes: &[u8], element: usize, enabled: u64) -> Outcome {
    let place = |(first, len): (usize, usize)| (first * element, len * element);
    let allowed = |(from, len): (usize, usize)| trap.sink.writable(address.wrapping_add(from), len);
    // The processor may report any address in the operand, also one of an element that is not enabled.
    let explained = trap.fault.wrapping_sub(address) < bytes.len();
    if !explained || !runs_of(enabled).map(place).all(allowed) {
        return Outcome::NotOurs;
    }
    for (from, len) in runs_of(enabled).map(place) {
        trap.sink.store(address.wrapping_add(from), &bytes[from..from + len]);
    }
    trap.advance()
}

/// The elements whose sign bit is set in another vector register.
pub(super) fn selected(trap: &mut Trap, register: u8, selector: u8, width: usize, element: usize) -> Outcome {
    let address = trap.place().address(&trap.machine);
    let extended = trap.machine.extended();
    let (bytes, selector) = (extended.vector(register), extended.vector(selector));
    runs(trap, address, &bytes[..width], element, signs(&selector[..width], element))
}

/// One bit for each element whose sign bit is set.
fn signs(selector: &[u8], element: usize) -> u64 {
    let negative = |(lane, bytes): (usize, &[u8])| u64::from(bytes[element - 1] >> 7) << lane;
    selector.chunks_exact(element).enumerate().map(negative).sum()
}

/// The enabled elements next to each other.
pub(super) fn compressed(trap: &mut Trap, register: u8, width: usize, element: usize, mask: u8) -> Outcome {
    let address = trap.place().address(&trap.machine);
    let extended = trap.machine.extended();
    let lanes = lanes_mask(width / element);
    let enabled = if mask == 0 { lanes } else { extended.opmask(mask) & lanes };
    let (bytes, len) = compress(&extended.vector(register), element, enabled);
    if len == 0 {
        return trap.advance();
    }
    trap.store(address, &bytes[..len])
}

fn compress(vector: &[u8; 64], element: usize, enabled: u64) -> ([u8; 64], usize) {
    let (mut bytes, mut len) = ([0; 64], 0);
    for (first, lanes) in runs_of(enabled) {
        let run = &vector[first * element..(first + lanes) * element];
        bytes[len..len + run.len()].copy_from_slice(run);
        len += run.len();
    }
    (bytes, len)
}

/// What is scattered.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) wide_index: bool,
    pub(super) lanes: usize,
    pub(super) element: usize,
}

/// Scatters element after element and clears each one's mask bit, as the processor does, so that one whose
/// destination is elsewhere can be left to the processor: it goes on with the bits that are left.
pub(super) fn scatter(trap: &mut Trap, register: u8, index: u8, shape: Shape, mask: u8) -> Outcome {
    let extended = trap.machine.extended();
    let (bytes, indices) = (extended.vector(register), extended.vector(index));
    let whole = extended.opmask(mask);
    let mut enabled = whole & lanes_mask(shape.lanes);
    let place = *trap.place();
    let start = place.offset(&trap.machine);
    let mut stored = false;
    while enabled != 0 {
        let lane = enabled.trailing_zeros() as usize;
        let moved = start.wrapping_add(lane_index(&indices, lane, shape.wide_index).wrapping_mul(place.scale.into()));
        let address = place.linear(&trap.machine, place.wrap(moved));
        if !trap.sink.writable(address, shape.element) {
            break;
        }
        trap.sink.store(address, &bytes[lane * shape.element..(lane + 1) * shape.element]);
        stored = true;
        enabled &= enabled - 1;
    }
    if enabled != 0 && !stored {
        return Outcome::NotOurs;
    }
    if enabled != 0 {
        // Bits without a lane are cleared only with the last one.
        trap.machine.extended().set_opmask(mask, whole & !lanes_mask(shape.lanes) | enabled);
        return Outcome::Done;
    }
    trap.machine.extended().set_opmask(mask, 0);
    trap.advance()
}

fn lane_index(indices: &[u8; 64], lane: usize, wide: bool) -> u64 {
    if wide {
        let mut word = [0; 8];
        word.copy_from_slice(&indices[lane * 8..lane * 8 + 8]);
        return u64::from_le_bytes(word);
    }
    let mut word = [0; 4];
    word.copy_from_slice(&indices[lane * 4..lane * 4 + 4]);
    i64::from(i32::from_le_bytes(word)) as u64
}

/// MOVDIR64B: 64 bytes from the memory operand to the address in a register.
pub(super) fn direct(trap: &mut Trap, destination: u8, short: bool) -> Outcome {
    let mut address = trap.machine.full(destination);
    if short {
        address &= 0xffff_ffff;
    }
    let source = trap.place().address(&trap.machine);
    debug_assert!(matches!(trap.place().segment, Segment::Flat | Segment::Fs | Segment::Gs));
    let mut bytes = [0; 64];
    if !trap.accepts(address as usize, bytes.len()) || !memory::readable(source, bytes.len()) {
        return Outcome::NotOurs;
    }
    // SAFETY: just asked.
    unsafe { memory::read(source, &mut bytes) };
    trap.store(address as usize, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> [u8; 64] {
        std::array::from_fn(|index| index as u8)
    }

    #[test]
    fn runs_are_maximal_and_in_order() {
        let runs = |mask: u64| runs_of(mask).collect::<Vec<_>>();
        assert_eq!(runs(0), []);
        assert_eq!(runs(u64::MAX), [(0, 64)]);
        assert_eq!(runs(1 << 63), [(63, 1)]);
        assert_eq!(runs(0b1011_0110), [(1, 2), (4, 2), (7, 1)]);
        assert_eq!(runs(0xf000_0000_0000_0001), [(0, 1), (60, 4)]);
        assert_eq!(lanes_mask(64), u64::MAX);
        assert_eq!(lanes_mask(2), 3);
    }

    #[test]
    fn signs_come_from_the_highest_byte() {
        let mut selector = [0u8; 16];
        (selector[3], selector[8], selector[15]) = (0x80, 0xff, 0xff);
        assert_eq!(signs(&selector, 4), 0b1001);
        assert_eq!(signs(&selector, 8), 0b10);
        assert_eq!(signs(&selector, 1), 1 << 3 | 1 << 8 | 1 << 15);
    }

    #[test]
    fn compressing_closes_the_gaps() {
        let (bytes, len) = compress(&counting(), 4, 0b1010);
        assert_eq!(bytes[..len], [4, 5, 6, 7, 12, 13, 14, 15]);
        assert_eq!(compress(&counting(), 1, u64::MAX).1, 64);
    }

    #[test]
    fn indices_are_signed() {
        let mut indices = [0u8; 64];
        indices[4..8].copy_from_slice(&(-2i32).to_le_bytes());
        indices[56..].copy_from_slice(&(-3i64).to_le_bytes());
        assert_eq!(lane_index(&indices, 1, false), (-2i64) as u64);
        assert_eq!(lane_index(&indices, 7, true), (-3i64) as u64);
    }
}
