//! Carrying out what a plan says.

mod displaced;
mod locked;
pub(crate) mod machine;
mod moves;
mod stack;
mod strings;
pub(crate) mod stubs;
#[cfg(test)]
mod tests;
mod trampoline;

use crate::cache::{Held, Site};
use crate::plan::{Action, Place, Plan, Value};
use crate::{Outcome, Sink};
use machine::Machine;

/// Why an instruction that writes the region cannot be carried out.
pub(crate) type Refusal = &'static str;

/// One trapped instruction.
pub(crate) struct Trap<'a> {
    pub(crate) machine: Machine<'a>,
    /// The address that the processor could not write.
    pub(crate) fault: usize,
    pub(crate) sink: &'a mut dyn Sink,
    pub(crate) site: &'a Site,
    /// The cache's entry of the site, if it has one.
    pub(crate) held: Option<&'a Held>,
    /// The signals that the program blocks.
    pub(crate) blocked: u64,
}

impl Trap<'_> {
    fn plan(&self) -> &Plan {
        &self.site.plan
    }

    fn place(&self) -> &Place {
        &self.site.plan.place
    }

    /// The instruction is finished: the next one is next.
    fn advance(&mut self) -> Outcome {
        let next = self.site.rip.wrapping_add(u64::from(self.plan().len));
        self.machine.finish_at(next);
        Outcome::Done
    }

    /// Does a store of `len` bytes at `address` explain the fault, and may it be carried out?
    fn accepts(&self, address: usize, len: usize) -> bool {
        self.fault.wrapping_sub(address) < len && self.sink.writable(address, len)
    }

    /// One store, and on to the next instruction.
    fn store(&mut self, address: usize, bytes: &[u8]) -> Outcome {
        if !self.accepts(address, bytes.len()) {
            return Outcome::NotOurs;
        }
        self.sink.store(address, bytes);
        self.advance()
    }

    /// The number that an operand stands for. `None`: its memory cannot be read.
    fn value(&self, value: Value, width: usize) -> Option<u64> {
        Some(match value {
            Value::Register(register) => self.machine.operand(register),
            Value::Immediate(immediate) => immediate,
            Value::Selector(segment) => stack::selector(segment),
            Value::Flags => stack::pushed_flags(self.machine.flags()),
            Value::Memory => crate::memory::word(self.place().address(&self.machine), width)?,
        })
    }
}

/// Carries out the instruction of `trap`.
pub(crate) fn carry_out(trap: &mut Trap) -> Result<Outcome, Refusal> {
    Ok(match trap.plan().action {
        Action::Refused(reason) => return Err(reason),
        Action::Move { value, width, reversed } => moves::plain(trap, value, usize::from(width), reversed),
        Action::Condition { code } => {
            let byte = u8::from(trap.machine.condition(code));
            let address = trap.place().address(&trap.machine);
            trap.store(address, &[byte])
        }
        Action::Vector { register, from, width, element, mask, whole } => {
            let [from, width, element] = [from, width, element].map(usize::from);
            let part = moves::Part { from, width, element, whole };
            moves::vector(trap, register, part, mask)
        }
        Action::Selected { register, selector, width, element } => {
            moves::selected(trap, register, selector, usize::from(width), usize::from(element))
        }
        Action::Compressed { register, width, element, mask } => {
            moves::compressed(trap, register, usize::from(width), usize::from(element), mask)
        }
        Action::Scatter { register, index, wide_index, lanes, element, mask } => {
            let shape = moves::Shape { wide_index, lanes: usize::from(lanes), element: usize::from(element) };
            moves::scatter(trap, register, index, shape, mask)
        }
        Action::Opmask { register, width } => {
            let bytes = trap.machine.extended().opmask(register).to_le_bytes();
            let address = trap.place().address(&trap.machine);
            trap.store(address, &bytes[..usize::from(width)])
        }
        Action::Control => {
            let bytes = trap.machine.extended().mxcsr().to_le_bytes();
            let address = trap.place().address(&trap.machine);
            trap.store(address, &bytes)
        }
        Action::ZeroLine => {
            let address = trap.place().address(&trap.machine) & !63;
            trap.store(address, &[0; 64])
        }
        Action::Direct { destination, short } => moves::direct(trap, destination, short),
        Action::String { copies, width, repeated } => strings::run(trap, copies, usize::from(width), repeated),
        Action::Push { value, width } => stack::push(trap, value, usize::from(width)),
        Action::Call { target } => return stack::call(trap, target),
        Action::Enter { size, level, width } => stack::enter(trap, size, level, usize::from(width)),
        Action::Pop { width } => stack::pop(trap, usize::from(width)),
        Action::Displaced { width, state, footprint, bit, converts } => {
            let request = displaced::Request { width: usize::from(width), state, footprint, bit, converts };
            return displaced::carry_out(trap, request);
        }
        Action::Locked { rmw, width, operand, bit } => return locked::carry_out(trap, rmw, width, operand, bit),
        Action::Optimistic { width } => return locked::optimistic(trap, width),
    })
}
