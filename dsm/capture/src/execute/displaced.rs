//! Running a copy of the instruction on a copy of its operand.

use super::moves::{lanes_mask, runs_of};
use super::stubs::{self, Code};
use super::trampoline::{self, Frame};
use super::{Refusal, Trap};
use crate::plan::{BitOffset, Footprint};
use crate::{Outcome, memory, sys};

/// Where the displaced instruction finds its operand. Aligned as the strictest of them asks.
#[repr(C, align(64))]
pub(super) struct Scratch<const N: usize>(pub(super) [u8; N]);

/// What is to be run.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) width: usize,
    pub(super) state: bool,
    pub(super) footprint: Footprint,
    pub(super) bit: Option<BitOffset>,
    /// It rounds floating-point numbers, and may report that by MXCSR.
    pub(super) converts: bool,
}

/// What a run does with the registers beyond the general ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// They are not needed.
    Unused,
    /// Loaded, and then forgotten.
    Loaded,
    /// Loaded, and what the instruction leaves goes to the signal frame.
    Kept,
}

/// General registers and flags after a run.
pub(super) struct Left {
    registers: [u64; 16],
    flags: u64,
    /// Where the copy stood.
    stub: u64,
}

/// The operand: its offset in its segment and its linear address.
pub(super) fn operand(trap: &Trap, bit: Option<BitOffset>, width: usize) -> (u64, usize) {
    let (place, machine) = (trap.place(), &trap.machine);
    let mut offset = place.offset(machine);
    if let Some(bit) = bit {
        let bits = width as u32 * 8;
        let position = ((machine.full(bit.register) << (64 - bits)) as i64) >> (64 - bits);
        let words = position.div_euclid(i64::from(bits));
        offset = place.wrap(offset.wrapping_add(words.wrapping_mul(width as i64) as u64));
    }
    (offset, place.linear(machine, offset))
}

/// Refuses what cannot be run before anything has happened.
pub(super) fn prepare(trap: &Trap, offset: u64) -> Result<Code, Refusal> {
    if !stubs::ready() {
        return Err("there is no executable memory to run a copy of it");
    }
    // Any place on this stack stands for the scratch memory to come.
    let near = 0u8;
    if !trap.place().relative {
        gs_base((&raw const near).addr(), offset)?;
    }
    let code = trap.site.code.bytes();
    Code::displaced(&code[..usize::from(trap.plan().len)]).ok_or("with another prefix it would be too long")
}

/// The base that makes `offset` the address `scratch`.
fn gs_base(scratch: usize, offset: u64) -> Result<u64, Refusal> {
    let base = (scratch as u64).wrapping_sub(offset);
    // The processor takes only canonical bases. An offset that is an address is always near enough; one that counts
    // from FS may not be.
    if (base as i64) << 16 >> 16 != base as i64 {
        return Err("its operand is too far from its segment");
    }
    Ok(base)
}

/// Runs `code` with its operand, which the instruction takes to be at `offset` of its segment, in `scratch`.
pub(super) fn run(
    trap: &mut Trap,
    code: &Code,
    offset: u64,
    scratch: &mut [u8],
    state: State,
) -> Result<Left, Refusal> {
    let stub = stubs::stub(trap.held, code);
    let mut seen = offset;
    if trap.place().relative {
        let (next, next_of_stub) = (trap.site.rip + u64::from(trap.plan().len), stub.address + code.len() as u64);
        seen = trap.place().wrap(offset.wrapping_sub(next).wrapping_add(next_of_stub));
    }
    let base = gs_base(scratch.as_mut_ptr().expose_provenance(), seen)?;
    let registers = std::array::from_fn(|number| trap.machine.full(number as u8));
    const ALWAYS_SET: u64 = 2;
    let status = trap.machine.flags() & super::machine::STATUS | ALWAYS_SET;
    let mut mode = if trap.machine.processor.fsgsbase { trampoline::FAST_BASES } else { 0 };
    let mut frame = Frame::new(registers, status, 0);
    if state != State::Unused {
        let upper = trap.machine.processor.xcr0 & 4 != 0;
        let mut extended = trap.machine.extended();
        mode |= trampoline::STATE;
        mode |= if extended.has_header() { trampoline::XSAVE } else { 0 };
        mode |= if upper { trampoline::UPPER } else { 0 };
        mode |= if state == State::Kept { trampoline::KEEP } else { 0 };
        (frame.area, frame.features) = (extended.start(), extended.features());
    }
    (frame.mode, frame.gs, frame.stub) = (mode, base, stub.address);
    // SAFETY: whoever calls `carry_out` blocks signals; the slot was filled with a copy that ends with the way back;
    // the base moves its operand into `scratch`, which every caller makes large enough for the plan's width; the area
    // is that of the signal frame, which `extended` measured.
    unsafe { trampoline::run(&raw mut frame) };
    Ok(Left { registers: frame.registers, flags: frame.flags, stub: stub.address })
}

/// Makes what a run left the program's registers, and goes on to the next instruction.
pub(super) fn commit(trap: &mut Trap, left: &Left) -> Outcome {
    for (number, value) in left.registers.iter().enumerate() {
        trap.machine.set_full(number as u8, *value);
    }
    trap.machine.set_status(left.flags);
    trap.advance()
}

/// Runs the instruction and stores what it wrote.
pub(super) fn carry_out(trap: &mut Trap, request: Request) -> Result<Outcome, Refusal> {
    let unsure = request.state && !request.converts && trap.machine.extended().x87_unmasked();
    match request.footprint {
        Footprint::SaveArea { compact } => return save_area(trap, compact),
        // An x87 exception that is not masked may keep the instruction from storing: that has to be seen.
        Footprint::Whole if unsure => return detected(trap, request, true),
        // Of its area FXSAVE leaves bytes out, but it must be there. MASKMOVQ is content with what it selects.
        Footprint::Detected => return detected(trap, request, request.width > size_of::<u64>()),
        Footprint::Whole | Footprint::Masked { .. } => {}
    }
    let (offset, address) = operand(trap, request.bit, request.width);
    // The bytes that it writes, as runs of elements.
    let (element, enabled) = match request.footprint {
        Footprint::Masked { element, mask } => {
            let element = usize::from(element);
            (element, trap.machine.extended().opmask(mask) & lanes_mask(request.width / element))
        }
        _ => (request.width, 1),
    };
    let run_of = |(first, lanes): (usize, usize)| (first * element, lanes * element);
    let allowed = |(from, len): (usize, usize)| trap.sink.writable(address + from, len);
    let explained = trap.fault.wrapping_sub(address) < request.width;
    if !explained || !runs_of(enabled).map(run_of).all(allowed) {
        return Ok(Outcome::NotOurs);
    }
    let code = prepare(trap, offset)?;
    let mut scratch = Scratch([0u8; 128]);
    let operand = scratch.0.get_mut(..request.width).ok_or("its operand is too large")?;
    for (from, len) in runs_of(enabled).map(run_of) {
        // SAFETY: these bytes are in the region, whose view can always be read.
        unsafe { memory::read(address + from, &mut operand[from..from + len]) };
    }
    let state = if request.state { State::Kept } else { State::Unused };
    let left = match request.converts {
        true => converting(trap, &code, offset, operand)?,
        false => Some(run(trap, &code, offset, operand, state)?),
    };
    // An exception is on its way to the program, which is still at the instruction.
    let Some(left) = left else { return Ok(Outcome::Done) };
    if request.state {
        let rip = trap.site.rip;
        trap.machine.extended().place_x87(left.stub, rip, offset);
    }
    for (from, len) in runs_of(enabled).map(run_of) {
        trap.sink.store(address + from, &operand[from..from + len]);
    }
    Ok(commit(trap, &left))
}

/// Runs an instruction that may raise SIMD exceptions with all of them masked: a signal for it could not be delivered
/// here. `None`: it raises one that the program did not mask. Nothing is stored then, and the program gets the signal.
fn converting(trap: &mut Trap, code: &Code, offset: u64, operand: &mut [u8]) -> Result<Option<Left>, Refusal> {
    const FLAGS: u32 = 0x3f;
    const MASKS: u32 = 0x1f80;
    /// Invalid, denormal and divide by zero: found before there is a result, and then the others are not.
    const EARLY: u32 = 0b111;
    let before = trap.machine.extended().mxcsr();
    trap.machine.extended().set_mxcsr(before & !FLAGS | MASKS);
    let left = run(trap, code, offset, operand, State::Kept);
    let raised = trap.machine.extended().mxcsr() & FLAGS;
    let unmasked = raised & !(before >> 7) & FLAGS;
    let seen = if unmasked & EARLY != 0 { raised & EARLY } else { raised };
    trap.machine.extended().set_mxcsr(before | if unmasked == 0 { raised } else { seen });
    let left = left?;
    if unmasked == 0 {
        return Ok(Some(left));
    }
    if trap.blocked & 1 << (libc::SIGFPE - 1) != 0 || !sys::delivers(libc::SIGFPE) {
        return Err("it raises a floating-point exception whose signal the program blocks or ignores");
    }
    sys::send_to_self(libc::SIGFPE, float_code(unmasked & seen), trap.site.rip);
    Ok(None)
}

/// The signal's code for SIMD exceptions, given as bits of MXCSR.
fn float_code(exceptions: u32) -> i32 {
    // FPE_FLTDIV and its like, which libc's crate does not have.
    const DIVIDED: i32 = 3;
    const OVERFLOWED: i32 = 4;
    const UNDERFLOWED: i32 = 5;
    const INEXACT: i32 = 6;
    const INVALID: i32 = 7;
    match exceptions.trailing_zeros() {
        0 => INVALID,
        2 => DIVIDED,
        3 => OVERFLOWED,
        1 | 4 => UNDERFLOWED,
        _ => INEXACT,
    }
}

const BACKGROUNDS: [u8; 2] = [0x55, 0xaa];

/// The runs of bytes on which two outputs agree. What was not written differs, as the backgrounds do.
fn agreeing<'a>(one: &'a [u8], other: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += one[at..].iter().zip(&other[at..]).take_while(|(a, b)| a != b).count();
        let len = one[at..].iter().zip(&other[at..]).take_while(|(a, b)| a == b).count();
        at += len;
        (len != 0).then_some((at - len, len))
    })
}

/// Does an operand of this size explain the fault, and may the bytes be written on which two outputs agree? (The
/// processor may report any address in the operand, also one that it would not have written.)
fn accepts(trap: &Trap, address: usize, one: &[u8], other: &[u8]) -> bool {
    trap.fault.wrapping_sub(address) < one.len()
        && agreeing(one, other).all(|(from, len)| trap.sink.writable(address + from, len))
}

/// `all`: bytes that it does not write must be writable, too.
#[inline(never)]
fn detected(trap: &mut Trap, request: Request, all: bool) -> Result<Outcome, Refusal> {
    let (offset, address) = operand(trap, None, request.width);
    if all && !trap.sink.writable(address, request.width) {
        return Ok(Outcome::NotOurs);
    }
    let code = prepare(trap, offset)?;
    let mut outputs = BACKGROUNDS.map(|background| Scratch([background; 512]));
    for output in &mut outputs {
        let operand = output.0.get_mut(..request.width).ok_or("its operand is too large")?;
        run(trap, &code, offset, operand, State::Loaded)?;
    }
    let [one, other] = &outputs;
    let (one, other) = (&one.0[..request.width], &other.0[..request.width]);
    if !accepts(trap, address, one, other) {
        return Ok(Outcome::NotOurs);
    }
    // Once more, for what it does to the registers.
    let mut last = Scratch([0u8; 512]);
    let left = run(trap, &code, offset, &mut last.0[..request.width], State::Kept)?;
    let rip = trap.site.rip;
    trap.machine.extended().place_x87(left.stub, rip, offset);
    for (from, len) in agreeing(one, other) {
        trap.sink.store(address + from, &one[from..from + len]);
    }
    Ok(commit(trap, &left))
}

/// XSAVE, XSAVEOPT (`compact` false) and XSAVEC.
#[inline(never)]
fn save_area(trap: &mut Trap, compact: bool) -> Result<Outcome, Refusal> {
    const ROOM: usize = 3072;
    const HEADER: std::ops::Range<usize> = 512..520;
    let (offset, address) = operand(trap, None, 0);
    let asked = trap.machine.full(0) & 0xffff_ffff | trap.machine.full(2) << 32;
    let (enabled, size) = (trap.machine.processor.xcr0, trap.machine.processor.area);
    if asked & enabled & !crate::processor::component::CARRIED != 0 || size > ROOM {
        return Err("it saves registers that the signal frame does not hold");
    }
    let code = prepare(trap, offset)?;
    let mut header = [0; 8];
    if !compact {
        // The bits of components that are not asked for stay as they are.
        if !memory::readable(address + HEADER.start, HEADER.len()) {
            return Ok(Outcome::NotOurs);
        }
        // SAFETY: just asked.
        unsafe { memory::read(address + HEADER.start, &mut header) };
    }
    let mut outputs = BACKGROUNDS.map(|background| Scratch([background; ROOM]));
    let mut tries = 0;
    loop {
        for (output, background) in outputs.iter_mut().zip(BACKGROUNDS) {
            output.0[..size].fill(background);
            if !compact {
                output.0[HEADER].copy_from_slice(&header);
            }
            run(trap, &code, offset, &mut output.0[..size], State::Loaded)?;
        }
        // Whether a component in its initial state counts as in use is up to the processor, which may change its mind
        // at an interrupt; only two runs that agree on that show what was written.
        if agree_on_components(&outputs[0].0[HEADER], &outputs[1].0[HEADER]) {
            break;
        }
        tries += 1;
        if tries == 1000 {
            return Err("the processor does not say twice which registers it saved");
        }
    }
    let [one, other] = &outputs;
    let (one, other) = (&one.0[..size], &other.0[..size]);
    if !accepts(trap, address, one, other) {
        return Ok(Outcome::NotOurs);
    }
    for (from, len) in agreeing(one, other) {
        trap.sink.store(address + from, &one[from..from + len]);
    }
    Ok(trap.advance())
}

/// Do two runs name the same components in the first word of their headers?
fn agree_on_components(one: &[u8], other: &[u8]) -> bool {
    // Eight bytes that were written are equal; the backgrounds would not be.
    one == other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_disagree_show_nothing() {
        assert!(agree_on_components(&7u64.to_le_bytes(), &7u64.to_le_bytes()));
        assert!(!agree_on_components(&7u64.to_le_bytes(), &5u64.to_le_bytes()));
    }

    #[test]
    fn exceptions_have_the_kernels_codes() {
        for (bit, code) in [7, 5, 3, 4, 5, 6].into_iter().enumerate() {
            assert_eq!(float_code(1 << bit), code);
        }
        assert_eq!(float_code(0b11_1000), 4);
    }

    #[test]
    fn agreement_shows_what_was_written() {
        let runs = |one: &[u8], other: &[u8]| agreeing(one, other).collect::<Vec<_>>();
        assert_eq!(runs(&[0x55; 4], &[0xaa; 4]), []);
        assert_eq!(runs(&[1, 2, 0x55, 3], &[1, 2, 0xaa, 3]), [(0, 2), (3, 1)]);
        assert_eq!(runs(&[], &[]), []);
    }
}
