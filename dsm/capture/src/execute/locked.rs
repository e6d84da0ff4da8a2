//! Locked instructions: an operation for the total order, then a replay on the value that comes back.

use super::displaced::{self, Scratch, State};
use super::machine::{CARRY, gpr};
use super::{Refusal, Trap};
use crate::plan::{BitOffset, Operand, Value};
use crate::{Outcome, memory};
use dsm_core::op::{AtomicOp, Rmw};

/// A locked read-modify-write that is one operation.
pub(super) fn carry_out(
    trap: &mut Trap,
    rmw: Rmw,
    width: u8,
    operand: Operand,
    bit: Option<BitOffset>,
) -> Result<Outcome, Refusal> {
    let (offset, address) = displaced::operand(trap, bit, usize::from(width));
    if !trap.accepts(address, usize::from(width)) {
        return Ok(Outcome::NotOurs);
    }
    let code = displaced::prepare(trap, offset)?;
    let Some(operation) = operation(trap, rmw, width, operand) else {
        return Err("a locked instruction with an operand of an unknown kind");
    };
    let old = trap.sink.atomic(address, operation);
    // The processor works out flags and registers. The new value is in the total order already.
    let mut scratch = Scratch(old.to_le_bytes());
    let left = displaced::run(trap, &code, offset, &mut scratch.0, State::Unused)?;
    Ok(displaced::commit(trap, &left))
}

fn operation(trap: &Trap, rmw: Rmw, width: u8, operand: Operand) -> Option<AtomicOp> {
    let machine = &trap.machine;
    let known = |value: Value| match value {
        Value::Register(register) => Some(machine.operand(register)),
        Value::Immediate(immediate) => Some(immediate),
        _ => None,
    };
    let cut = |value: u64| u128::from(value) & AtomicOp::new(rmw, width, 0).mask();
    Some(match operand {
        Operand::Plain { value, carry } => {
            let carry = if carry { machine.flags() & CARRY } else { 0 };
            AtomicOp::new(rmw, width, cut(known(value)?.wrapping_add(carry)))
        }
        Operand::Bit { position, inverted } => {
            let bit = 1u64 << (known(position)? % (u64::from(width) * 8));
            AtomicOp::new(rmw, width, cut(if inverted { !bit } else { bit }))
        }
        Operand::Exchange { register } => {
            AtomicOp::compare_exchange(width, cut(machine.full(gpr::RAX)), cut(machine.operand(register)))
        }
        Operand::ExchangePair => {
            let half = u32::from(width) * 4;
            let pair = |low: u8, high: u8| {
                let mask = u64::MAX >> (64 - half);
                u128::from(machine.full(low) & mask) | u128::from(machine.full(high) & mask) << half
            };
            AtomicOp::compare_exchange(width, pair(gpr::RAX, gpr::RDX), pair(gpr::RBX, gpr::RCX))
        }
    })
}

/// A locked instruction that no single operation describes: worked out on the value seen, and put into the total
/// order on condition that it still is the value there.
pub(super) fn optimistic(trap: &mut Trap, width: u8) -> Result<Outcome, Refusal> {
    let bytes = usize::from(width);
    let (offset, address) = displaced::operand(trap, None, bytes);
    if !trap.accepts(address, bytes) {
        return Ok(Outcome::NotOurs);
    }
    let code = displaced::prepare(trap, offset)?;
    let mut old = Scratch([0u8; 16]);
    // SAFETY: the operand is in the region, whose view can always be read.
    unsafe { memory::read(address, &mut old.0[..bytes]) };
    loop {
        let mut new = Scratch(old.0);
        let left = displaced::run(trap, &code, offset, &mut new.0, State::Unused)?;
        let (expected, wanted) = (u128::from_le_bytes(old.0), u128::from_le_bytes(new.0));
        let found = trap.sink.atomic(address, AtomicOp::compare_exchange(width, expected, wanted));
        if found == expected {
            return Ok(displaced::commit(trap, &left));
        }
        old.0 = found.to_le_bytes();
    }
}
