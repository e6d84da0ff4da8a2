//! Every form of instruction that writes memory, as iced's tables have them.

use super::generate;
use iced_x86::{
    Code, EncodingKind, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpCodeOperandKind as Kind,
};

/// All forms of 64-bit mode that write memory, each as an instruction with some registers.
pub(crate) fn forms() -> Vec<(Code, Instruction)> {
    let mut factory = InstructionInfoFactory::new();
    Code::values()
        .filter(|code| code.op_code().is_instruction() && code.op_code().mode64())
        // Two instructions in one.
        .filter(|code| !code.op_code().fwait())
        // Those of a coprocessor's cores, which no system of today runs on.
        .filter(|code| code.op_code().encoding() != EncodingKind::MVEX)
        .map(|code| (code, generate::representative(code)))
        .filter(|(code, instruction)| of_programs(instruction) && writes(*code, instruction, &mut factory))
        .collect()
}

/// Interrupts and the like write to stacks of the system.
fn of_programs(instruction: &Instruction) -> bool {
    matches!(instruction.flow_control(), FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall)
}

fn writes(code: Code, instruction: &Instruction, factory: &mut InstructionInfoFactory) -> bool {
    use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
    let written = |access: OpAccess| matches!(access, Write | ReadWrite | CondWrite | ReadCondWrite);
    let info = factory.info(instruction);
    let operands = code.op_code();
    let explicit = (0..operands.op_count())
        .any(|operand| generate::may_be_memory(operands.op_kind(operand)) && written(info.op_access(operand)));
    // iced does not say what this one does with its line.
    let unsaid = code.mnemonic() == Mnemonic::Clzero && operands.op_kinds().first() != Some(&Kind::None);
    explicit || info.used_memory().iter().any(|memory| written(memory.access())) || unsaid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Action, Writes, plan};
    use std::collections::{BTreeMap, BTreeSet};

    /// The rows of the tables in the crate's documentation.
    fn documented() -> (BTreeSet<String>, BTreeSet<String>) {
        let rows = |table: &str| {
            let rows =
                table.lines().filter_map(|line| line.strip_prefix("//! | ")).filter(|row| !row.ends_with("why |"));
            rows.map(|row| row.trim_end_matches(" |").to_owned()).collect()
        };
        let text = include_str!("../lib.rs");
        let (_, text) = text.split_once("# What cannot be carried out").expect("the heading");
        let (always, sometimes) = text.split_once("//! Others").expect("the second table");
        (rows(always), rows(sometimes.split_once("#[cfg").expect("code").0))
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs the processor, or a minute for the tables of iced")]
    fn the_documentation_lists_what_is_always_refused() {
        let writes = Writes::new();
        let mut refused: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (code, instruction) in forms().into_iter().filter(|(code, _)| !code.op_code().is_privileged()) {
            if let Action::Refused(reason) = plan(&instruction, &writes).action {
                let name = format!("`{:?}`", code.mnemonic()).to_lowercase();
                refused.entry(reason).or_default().insert(name);
            }
        }
        let rows: BTreeSet<String> = refused
            .iter()
            .map(|(reason, names)| format!("{} | {reason}", names.iter().cloned().collect::<Vec<_>>().join(" ")))
            .collect();
        assert_eq!(
            documented().0,
            rows,
            "the table should be\n{}",
            rows.iter().cloned().collect::<Vec<_>>().join("\n")
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs the processor, or a minute for the tables of iced")]
    fn the_documentation_lists_what_is_sometimes_refused() {
        let sources = [
            include_str!("../execute/displaced.rs"),
            include_str!("../execute/locked.rs"),
            include_str!("../execute/stack.rs"),
            include_str!("../execute/mod.rs"),
        ];
        let mut found = BTreeSet::new();
        for source in sources {
            let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for start in ["Err(\"", "ok_or(\""] {
                found.extend(source.split(start).skip(1).filter_map(|rest| rest.split_once('"')).map(|(text, _)| text));
            }
        }
        let listed: BTreeSet<String> =
            documented().1.iter().filter_map(|row| row.rsplit_once(" | ")).map(|(_, why)| why.to_owned()).collect();
        assert_eq!(listed, found.iter().map(|text| (*text).to_owned()).collect());
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs the processor, or a minute for the tables of iced")]
    fn none_is_forgotten_for_want_of_registers() {
        let forms = forms();
        let has = |mnemonic| forms.iter().any(|(code, _)| code.mnemonic() == mnemonic);
        use Mnemonic as M;
        for mnemonic in [
            M::Clzero,
            M::Tilestored,
            M::Bndmov,
            M::Vpscatterqq,
            M::Maskmovq,
            M::Xsaveopt64,
            M::Movdir64b,
            M::Call,
            M::Enter,
            M::Cmpxchg16b,
            M::Vpcompressb,
            M::Movnti,
            M::Setg,
            M::Fbstp,
            M::Insb,
            M::Aadd,
            M::Vmovsh,
        ] {
            assert!(has(mnemonic), "{mnemonic:?}");
        }
        assert!(forms.len() > 650, "{}", forms.len());
    }
}
