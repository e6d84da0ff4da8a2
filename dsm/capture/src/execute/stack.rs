//! Instructions that write to the stack, for stacks inside the region, and POP to memory.

use super::machine::gpr;
use super::{Refusal, Trap};
use crate::plan::{Segment, Value};
use crate::{Outcome, memory};
use std::arch::asm;

/// The selector in FS or GS, which the handler shares with the program.
pub(super) fn selector(segment: Segment) -> u64 {
    let selector: u64;
    match segment {
        // SAFETY: the instruction only reads a register.
        Segment::Fs => unsafe { asm!("mov {:e}, fs", out(reg) selector, options(nomem, nostack, preserves_flags)) },
        // SAFETY: as above.
        _ => unsafe { asm!("mov {:e}, gs", out(reg) selector, options(nomem, nostack, preserves_flags)) },
    }
    selector & 0xffff
}

/// RFLAGS as PUSHF shows them: without RF and VM.
pub(super) fn pushed_flags(flags: u64) -> u64 {
    const RESUME_AND_VIRTUAL: u64 = 0b11 << 16;
    flags & !RESUME_AND_VIRTUAL
}

/// PUSH in all its forms.
pub(super) fn push(trap: &mut Trap, value: Value, width: usize) -> Outcome {
    // The operand is read, and its address computed, before RSP changes.
    let Some(value) = trap.value(value, width) else { return Outcome::NotOurs };
    let top = trap.machine.full(gpr::RSP).wrapping_sub(width as u64);
    let outcome = trap.store(top as usize, &value.to_le_bytes()[..width]);
    if matches!(outcome, Outcome::Done) {
        trap.machine.set_full(gpr::RSP, top);
    }
    outcome
}

/// Has this thread a shadow stack, onto which CALL would push, too?
fn has_shadow_stack() -> bool {
    let pointer: u64;
    // SAFETY: reads the shadow stack's pointer; where there is none, the instruction does nothing.
    unsafe { asm!("xor {0:e}, {0:e}", "rdsspq {0}", out(reg) pointer, options(nomem, nostack)) };
    pointer != 0
}

/// CALL, direct and indirect.
pub(super) fn call(trap: &mut Trap, target: Value) -> Result<Outcome, Refusal> {
    if has_shadow_stack() {
        return Err("its return address would be missing on the shadow stack");
    }
    Ok(near_call(trap, target))
}

fn near_call(trap: &mut Trap, target: Value) -> Outcome {
    let Some(target) = trap.value(target, 8) else { return Outcome::NotOurs };
    let next = trap.site.rip.wrapping_add(u64::from(trap.plan().len));
    let top = trap.machine.full(gpr::RSP).wrapping_sub(8);
    // To an address that cannot be, the processor does not call: the fault is at the instruction.
    if !trap.machine.processor.is_canonical(target) {
        if trap.machine.processor.intel && trap.accepts(top as usize, 8) {
            trap.sink.store(top as usize, &next.to_le_bytes());
        }
        return Outcome::NotOurs;
    }
    let outcome = trap.store(top as usize, &next.to_le_bytes());
    if matches!(outcome, Outcome::Done) {
        trap.machine.set_full(gpr::RSP, top);
        trap.machine.finish_at(target);
    }
    outcome
}

/// ENTER: the frame pointer, copies of `level - 1` outer ones, the new one, and room for `size` bytes. With words of
/// two bytes only the lowest of the frame pointer change.
pub(super) fn enter(trap: &mut Trap, size: u16, level: u8, width: usize) -> Outcome {
    let word = width as u64;
    let (stack, base) = (trap.machine.full(gpr::RSP), trap.machine.full(gpr::RBP));
    let frame = stack.wrapping_sub(word);
    let copies = u64::from(level.max(1)) - 1;
    let words = if level == 0 { 1 } else { copies + 2 };
    let end = stack.wrapping_sub(words * word).wrapping_sub(u64::from(size));
    // The processor also makes sure that the new top of the stack can be written.
    let len = stack.wrapping_sub(end) as usize;
    let outer = base.wrapping_sub(copies * word) as usize;
    if !trap.accepts(end as usize, len) || !memory::readable(outer, copies as usize * width) {
        return Outcome::NotOurs;
    }
    for index in 0..words {
        // Word by word, as a frame pointer to be copied may be one that was just pushed.
        let copied = base.wrapping_sub(index * word) as usize;
        let value = match index {
            0 => Some(base),
            _ if index <= copies => memory::word(copied, width),
            _ => Some(frame),
        };
        let Some(value) = value else { return Outcome::NotOurs };
        trap.sink.store(stack.wrapping_sub((index + 1) * word) as usize, &value.to_le_bytes()[..width]);
    }
    let changed = u64::MAX >> (64 - width * 8);
    trap.machine.set_full(gpr::RBP, base & !changed | frame & changed);
    trap.machine.set_full(gpr::RSP, end);
    trap.advance()
}

/// POP to memory. An address that RSP takes part in is computed after RSP was increased.
pub(super) fn pop(trap: &mut Trap, width: usize) -> Outcome {
    let old = trap.machine.full(gpr::RSP);
    let Some(value) = memory::word(old as usize, width) else { return Outcome::NotOurs };
    trap.machine.set_full(gpr::RSP, old.wrapping_add(width as u64));
    let address = trap.place().address(&trap.machine);
    let outcome = trap.store(address, &value.to_le_bytes()[..width]);
    if !matches!(outcome, Outcome::Done) {
        trap.machine.set_full(gpr::RSP, old);
    }
    outcome
}
