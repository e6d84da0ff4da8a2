//! Which operands an instruction writes, as a table that can be read inside a signal handler.

use iced_x86::{Code, Instruction, InstructionInfoFactory, InstructionInfoOptions, OpAccess, OpKind};

/// For each `Code`, one bit for each operand that it writes.
///
/// iced knows this, but tells it only through a factory that allocates; so it is asked once about every code.
pub(crate) struct Writes(Box<[u8]>);

impl Writes {
    /// Asks.
    pub(crate) fn new() -> Self {
        let options = InstructionInfoOptions::NO_REGISTER_USAGE | InstructionInfoOptions::NO_MEMORY_USAGE;
        let mut factory = InstructionInfoFactory::new();
        let written = |code: Code| {
            let mut instruction = Instruction::default();
            instruction.set_code(code);
            let info = factory.info_options(&instruction, options);
            let writes = |operand: &u32| {
                use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
                matches!(info.op_access(*operand), Write | CondWrite | ReadWrite | ReadCondWrite)
            };
            (0..instruction.op_count()).filter(writes).fold(0u8, |bits, operand| bits | 1 << operand)
        };
        Self(Code::values().map(written).collect())
    }

    /// The explicit memory operand that `instruction` writes, if it writes one.
    pub(crate) fn memory_operand(&self, instruction: &Instruction) -> Option<u32> {
        let bits = self.0.get(instruction.code() as usize).copied().unwrap_or(0);
        (0..instruction.op_count())
            .find(|operand| bits & 1 << operand != 0 && instruction.op_kind(*operand) == OpKind::Memory)
    }
}
