//! STOS and MOVS.

use super::Trap;
use super::machine::{DIRECTION, gpr};
use crate::{Outcome, memory};

const PAGE: u64 = 4096;

/// A string instruction under way.
#[derive(Clone, Copy)]
struct Walk {
    source: u64,
    source_base: u64,
    destination: u64,
    left: u64,
    width: u64,
    backward: bool,
    short: bool,
}

impl Walk {
    fn wrap(&self, value: u64) -> u64 {
        if self.short { value & 0xffff_ffff } else { value }
    }

    fn moved(&self, pointer: u64, elements: u64) -> u64 {
        let bytes = elements.wrapping_mul(self.width);
        self.wrap(if self.backward { pointer.wrapping_sub(bytes) } else { pointer.wrapping_add(bytes) })
    }

    /// Elements from `pointer` on that lie in its page; 1 for an element that lies in two.
    fn in_page(&self, pointer: u64) -> u64 {
        let at = pointer % PAGE;
        let elements = match (self.backward, at + self.width > PAGE) {
            (_, true) => 1,
            (false, _) => (PAGE - at) / self.width,
            (true, _) => at / self.width + 1,
        };
        // 32-bit pointers wrap at 4 GiB, which is the end of a page, but an element may straddle it.
        elements.max(1)
    }

    /// The lowest address of `elements` elements from `pointer` on.
    fn lowest(&self, pointer: u64, elements: u64) -> u64 {
        if self.backward { pointer.wrapping_sub((elements - 1) * self.width) } else { pointer }
    }

    fn step(&mut self, copies: bool, elements: u64) {
        self.destination = self.moved(self.destination, elements);
        if copies {
            self.source = self.moved(self.source, elements);
        }
        self.left -= elements;
    }
}

/// Carries out the part that lies in the region, starting with the element at which the processor stopped. What is
/// left, if anything, is left to the processor as if the instruction had been interrupted there.
pub(super) fn run(trap: &mut Trap, copies: bool, width: usize, repeated: bool) -> Outcome {
    let (place, machine) = (*trap.place(), &trap.machine);
    let counter = place.wrap(machine.full(gpr::RCX));
    let mut walk = Walk {
        source: place.wrap(machine.full(gpr::RSI)),
        source_base: place.linear(machine, 0) as u64,
        destination: place.wrap(machine.full(gpr::RDI)),
        left: if repeated { counter } else { 1 },
        width: width as u64,
        backward: machine.flags() & DIRECTION != 0,
        short: place.short,
    };
    let accumulator = machine.full(gpr::RAX).to_le_bytes();
    let started = walk.left;
    let mut buffer = [0u8; PAGE as usize];
    while walk.left != 0 {
        let elements = match copies {
            true => copy(trap, &walk, &mut buffer),
            false => fill(trap, &walk, &accumulator[..width], &mut buffer),
        };
        if elements == 0 {
            break;
        }
        walk.step(copies, elements);
    }
    if walk.left == started {
        return Outcome::NotOurs;
    }
    trap.machine.set_full(gpr::RDI, walk.destination);
    if copies {
        trap.machine.set_full(gpr::RSI, walk.source);
    }
    if repeated {
        trap.machine.set_full(gpr::RCX, walk.left);
    }
    if walk.left == 0 { trap.advance() } else { Outcome::Done }
}

/// Stores up to a page of copies of `element`. Returns how many; 0 when they are not in the region.
fn fill(trap: &mut Trap, walk: &Walk, element: &[u8], buffer: &mut [u8]) -> u64 {
    let elements = walk.left.min(walk.in_page(walk.destination));
    let len = (elements * walk.width) as usize;
    let address = walk.lowest(walk.destination, elements) as usize;
    if !trap.sink.writable(address, len) {
        return 0;
    }
    // The first element, and then twice as much each time.
    buffer[..element.len()].copy_from_slice(element);
    let mut filled = element.len();
    while filled < len {
        let more = filled.min(len - filled);
        buffer.copy_within(..more, filled);
        filled += more;
    }
    trap.sink.store(address, &buffer[..len]);
    elements
}

/// Copies up to a page. Returns how many elements; 0 when the destination is not in the region, or the source cannot
/// be read.
fn copy(trap: &mut Trap, walk: &Walk, buffer: &mut [u8]) -> u64 {
    let from = walk.source.wrapping_add(walk.source_base);
    let elements = walk.left.min(walk.in_page(walk.destination)).min(walk.in_page(from));
    let len = (elements * walk.width) as usize;
    let (to, from) = (walk.lowest(walk.destination, elements) as usize, walk.lowest(from, elements) as usize);
    if !trap.sink.writable(to, len) || !memory::readable(from, len) {
        return 0;
    }
    let buffer = &mut buffer[..len];
    // SAFETY: just asked.
    unsafe { memory::read(from, buffer) };
    // Elements stored earlier in this piece may be the source of later ones. What was read is then not what the
    // processor would have read there: it is replaced by what was stored. (Offsets are those of ascending addresses.)
    let ahead = to.wrapping_sub(from);
    let behind = from.wrapping_sub(to);
    let width = walk.width as usize;
    if !walk.backward && ahead != 0 && ahead < len {
        replay(buffer, width, |offset, start| offset.checked_sub(ahead).filter(|stored| *stored < start));
    } else if walk.backward && behind != 0 && behind < len {
        replay_down(buffer, width, |offset, end| {
            offset.checked_add(behind).filter(|stored| *stored >= end && *stored < len)
        });
    }
    trap.sink.store(to, buffer);
    elements
}

/// `stored(offset, start)`: where in the piece the byte that is the source of `offset` was stored by an element below
/// `start`, if it was.
fn replay(buffer: &mut [u8], width: usize, stored: impl Fn(usize, usize) -> Option<usize>) {
    for start in (0..buffer.len()).step_by(width) {
        for offset in start..start + width {
            if let Some(earlier) = stored(offset, start) {
                buffer[offset] = buffer[earlier];
            }
        }
    }
}

/// The same downwards: elements at or above `end` were stored earlier.
fn replay_down(buffer: &mut [u8], width: usize, stored: impl Fn(usize, usize) -> Option<usize>) {
    for end in (width..=buffer.len()).rev().step_by(width) {
        for offset in end - width..end {
            if let Some(earlier) = stored(offset, end) {
                buffer[offset] = buffer[earlier];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the processor does, element by element on one array.
    fn reference(memory: &mut [u8], from: usize, to: usize, width: usize, count: usize, backward: bool) {
        for index in 0..count {
            let at = if backward { count - 1 - index } else { index } * width;
            let element = memory[from + at..from + at + width].to_vec();
            memory[to + at..to + at + width].copy_from_slice(&element);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "safe code, and tens of thousands of cases")]
    fn overlapping_pieces_equal_the_element_by_element_copy() {
        for width in [1, 2, 4, 8] {
            for (from, to) in (0..24usize).flat_map(|from| (0..24usize).map(move |to| (from, to))) {
                for (count, backward) in (1..6).flat_map(|count| [(count, false), (count, true)]) {
                    let memory: Vec<u8> = (0..96).collect();
                    let len = width * count;
                    let mut piece = memory[from..from + len].to_vec();
                    let (ahead, behind) = (to.wrapping_sub(from), from.wrapping_sub(to));
                    if !backward && ahead != 0 && ahead < len {
                        replay(&mut piece, width, |at, start| at.checked_sub(ahead).filter(|stored| *stored < start));
                    } else if backward && behind != 0 && behind < len {
                        let earlier = |at: usize, end| Some(at + behind).filter(|at| *at >= end && *at < len);
                        replay_down(&mut piece, width, earlier);
                    }
                    let mut expected = memory.clone();
                    reference(&mut expected, from, to, width, count, backward);
                    assert_eq!(piece, expected[to..to + len], "{width} {from} {to} {count} {backward}");
                }
            }
        }
    }

    #[test]
    fn pieces_end_with_the_page() {
        let mut walk =
            Walk { source: 0, source_base: 0, destination: 0, left: 1000, width: 4, backward: false, short: false };
        assert_eq!(walk.in_page(0), 1024);
        assert_eq!(walk.in_page(4092), 1);
        assert_eq!(walk.in_page(4094), 1);
        assert_eq!(walk.in_page(4087), 2);
        walk.backward = true;
        assert_eq!(walk.in_page(4092), 1024);
        assert_eq!(walk.in_page(4094), 1);
        assert_eq!(walk.in_page(0), 1);
        assert_eq!(walk.in_page(2), 1);
        assert_eq!(walk.lowest(4092, 1024), 0);
    }
}
