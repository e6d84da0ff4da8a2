//! Plain moves to memory: what is stored is in a register or in the instruction.

use super::{Action, element, value};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// The plan of a plain move to a memory operand, if that is what the instruction is.
pub(super) fn plan(instruction: &Instruction) -> Option<Action> {
    use Mnemonic as M;
    let width = instruction.memory_size().size() as u8;
    let source = instruction.op1_register();
    let mask = match instruction.op_mask() {
        Register::None => 0,
        mask => mask.number() as u8,
    };
    let vector = |from: u8| {
        source.is_vector_register().then(|| Action::Vector {
            register: source.number() as u8,
            from,
            width,
            element: element(instruction.memory_size()),
            mask,
            // Masked moves suppress the faults of elements that they leave out; masked extractions do not.
            whole: from_lane(instruction),
        })
    };
    // Lane `immediate`, of as many as the source has, counted in units of the operand.
    let lane = || vector(((usize::from(instruction.immediate8()) * usize::from(width)) % source.size()) as u8);
    match instruction.mnemonic() {
        M::Mov | M::Movnti | M::Movdiri => {
            value(instruction, 1).map(|value| Action::Move { value, width, reversed: false })
        }
        M::Movbe => value(instruction, 1).map(|value| Action::Move { value, width, reversed: true }),
        M::Movups
        | M::Movupd
        | M::Movaps
        | M::Movapd
        | M::Movdqa
        | M::Movdqu
        | M::Movntdq
        | M::Movntps
        | M::Movntpd
        | M::Movntss
        | M::Movntsd
        | M::Movd
        | M::Movq
        | M::Movss
        | M::Movsd
        | M::Movlps
        | M::Movlpd
        | M::Vmovups
        | M::Vmovupd
        | M::Vmovaps
        | M::Vmovapd
        | M::Vmovdqa
        | M::Vmovdqu
        | M::Vmovdqa32
        | M::Vmovdqa64
        | M::Vmovdqu8
        | M::Vmovdqu16
        | M::Vmovdqu32
        | M::Vmovdqu64
        | M::Vmovntdq
        | M::Vmovntps
        | M::Vmovntpd
        | M::Vmovd
        | M::Vmovq
        | M::Vmovss
        | M::Vmovsd
        | M::Vmovlps
        | M::Vmovlpd
        | M::Vmovsh
        | M::Vmovw => vector(0),
        M::Movhps | M::Movhpd | M::Vmovhps | M::Vmovhpd => vector(8),
        M::Pextrb
        | M::Pextrw
        | M::Pextrd
        | M::Pextrq
        | M::Extractps
        | M::Vpextrb
        | M::Vpextrw
        | M::Vpextrd
        | M::Vpextrq
        | M::Vextractps
        | M::Vextractf128
        | M::Vextracti128
        | M::Vextractf32x4
        | M::Vextractf64x2
        | M::Vextractf32x8
        | M::Vextractf64x4
        | M::Vextracti32x4
        | M::Vextracti64x2
        | M::Vextracti32x8
        | M::Vextracti64x4 => lane(),
        M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq => Some(Action::Selected {
            register: instruction.op2_register().number() as u8,
            selector: source.number() as u8,
            width,
            element: element(instruction.memory_size()),
        }),
        M::Vcompressps | M::Vcompresspd | M::Vpcompressb | M::Vpcompressw | M::Vpcompressd | M::Vpcompressq => {
            Some(Action::Compressed {
                register: source.number() as u8,
                width: source.size() as u8,
                element: element(instruction.memory_size()),
                mask,
            })
        }
        M::Vscatterdps | M::Vscatterdpd | M::Vpscatterdd | M::Vpscatterdq => scatter(instruction, mask, false),
        M::Vscatterqps | M::Vscatterqpd | M::Vpscatterqd | M::Vpscatterqq => scatter(instruction, mask, true),
        M::Kmovb | M::Kmovw | M::Kmovd | M::Kmovq => Some(Action::Opmask { register: source.number() as u8, width }),
        M::Stmxcsr | M::Vstmxcsr => Some(Action::Control),
        M::Seto
        | M::Setno
        | M::Setb
        | M::Setae
        | M::Sete
        | M::Setne
        | M::Setbe
        | M::Seta
        | M::Sets
        | M::Setns
        | M::Setp
        | M::Setnp
        | M::Setl
        | M::Setge
        | M::Setle
        | M::Setg => {
            // The enumeration counts the conditions as the encoding does, after `None`.
            Some(Action::Condition { code: instruction.condition_code() as u8 - 1 })
        }
        _ => None,
    }
}

fn from_lane(instruction: &Instruction) -> bool {
    instruction.op_count() == 3 && instruction.op2_kind() == OpKind::Immediate8
}

fn scatter(instruction: &Instruction, mask: u8, wide_index: bool) -> Option<Action> {
    let (source, index) = (instruction.op1_register(), instruction.memory_index());
    if instruction.op1_kind() != OpKind::Register || !index.is_vector_register() {
        return None;
    }
    let element = element(instruction.memory_size());
    // Both the indices and the elements must fit their registers; the shorter of the two decides.
    let index_size = if wide_index { 8 } else { 4 };
    let lanes = (source.size() / usize::from(element)).min(index.size() / index_size) as u8;
    Some(Action::Scatter {
        register: source.number() as u8,
        index: index.number() as u8,
        wide_index,
        lanes,
        element,
        mask,
    })
}
