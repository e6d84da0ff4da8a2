//! Random instructions that write memory, and random registers for them.

use super::ground::Ground;
use super::rng::Rng;
use iced_x86::{
    Code, Encoder, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpCodeOperandKind as Kind,
    OpKind, Register,
};

/// A random instruction and where it wants its memory.
pub(super) struct Case {
    pub(super) instruction: Instruction,
    pub(super) bytes: Vec<u8>,
    pub(super) registers: [u64; 16],
    pub(super) flags: u64,
    /// Eight bytes to put at an address before running, for an operand that must have a meaning.
    pub(super) poke: Option<(usize, u64)>,
    /// Where an explicit destination should be.
    pub(super) target: usize,
    /// What a vector register of indices has to hold.
    pub(super) indices: Option<Indices>,
}

/// The indices of a scatter.
pub(super) struct Indices {
    pub(super) register: u8,
    /// They have 64 bits and not 32.
    pub(super) wide: bool,
    /// What all of them are close to.
    pub(super) bias: u64,
    /// Added to one of them, it leads out of the region and its surroundings.
    pub(super) far: u64,
}

const GPR64: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

fn nth(first: Register, index: u64) -> Register {
    first + index as u32
}

/// How a random memory operand comes to its address.
#[derive(Clone, Copy)]
struct Shape {
    base: Register,
    index: Register,
    scale: u32,
    short: bool,
}

/// What operands are drawn from, and what is drawn for the memory operand.
struct Aim {
    end_of_code: u64,
    evex_registers: u64,
    /// 31 bits reach the target.
    low: bool,
    /// RIP does.
    near: bool,
    /// How the memory operand is written.
    shape: Option<Shape>,
    /// There is an implicit memory operand: are its addresses those of 32 bits?
    implicit: Option<bool>,
}

/// Makes one instruction of `code`, at `ip`. `None`: this draw cannot be encoded, or it is not what it says.
pub(super) fn generate(code: Code, rng: &mut Rng, ground: &Ground, ip: u64) -> Option<Case> {
    let operands = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let target = ground.target(rng, size_of_memory(code, ground));
    let mut registers: [u64; 16] = std::array::from_fn(|_| rng.value());
    // A segment whose base is added to an address that can have one.
    let (segment, base) = if rng.one_in(6) { ground.segment(rng) } else { (Register::None, 0) };
    let mut aim = Aim {
        end_of_code: ground.end_of_code(),
        evex_registers: ground.evex_registers,
        low: ground.is_low(base) && (!operands.op_kinds().contains(&Kind::es_rDI) || ground.low),
        near: (ground.middle() as u64).wrapping_sub(base).abs_diff(ip) < 1 << 30,
        shape: None,
        implicit: None,
    };
    for operand in 0..operands.op_count() {
        set_operand(&mut instruction, operand, operands.op_kind(operand), rng, &mut aim)?;
    }
    if operands.require_op_mask_register() || (operands.can_use_op_mask_register() && rng.one_in(2)) {
        instruction.set_op_mask(nth(Register::K1, rng.below(7)));
    }
    if operands.can_use_lock_prefix() && rng.one_in(2) {
        instruction.set_has_lock_prefix(true);
        // The hints of lock elision, which mean nothing any more.
        match rng.below(16) {
            0 => instruction.set_has_xacquire_prefix(true),
            1 => instruction.set_has_xrelease_prefix(true),
            _ => {}
        }
    }
    if code.is_string_instruction() {
        match rng.below(4) {
            0 => {}
            // It has no meaning of its own here, but it repeats too.
            1 => instruction.set_has_repne_prefix(true),
            _ => instruction.set_has_rep_prefix(true),
        }
    }
    let line = instruction.mnemonic() == Mnemonic::Clzero;
    if aim.shape.is_some() || aim.implicit.is_some() || line {
        instruction.set_segment_prefix(segment);
    }
    let mut flags = 0x202 | (rng.next() & 0x8d5);
    let mut wanted = (target as u64).wrapping_sub(base);
    let (mut poke, mut indices) = (None, None);
    stack_and_strings(&mut instruction, &mut registers, &mut flags, target, rng, ground, base);
    if moves_by_bits(&instruction) {
        wanted = move_by_bits(&instruction, &mut registers, wanted, rng);
    }
    if writes_stack(&instruction) || instruction.mnemonic() == Mnemonic::Movdir64b {
        // The explicit operand, if there is one, is a source somewhere else.
        wanted = (ground.target(rng, 64) as u64).wrapping_sub(base);
        if code.is_call_near_indirect() {
            let place = wanted.wrapping_add(base) as usize;
            // A target that cannot be put there would be a random one.
            if aim.shape.is_some() && !ground.in_region(place, 8) {
                return None;
            }
            poke = Some((place, ground.end_of_code() | impossible(rng)));
        }
    }
    if let Some(shape) = aim.shape {
        // One register cannot be both.
        let bits = moves_by_bits(&instruction).then(|| instruction.op1_register().full_register());
        let alone = if shape.base == Register::None { shape.index } else { shape.base };
        if bits.is_some_and(|bits| bits == alone.full_register()) {
            return None;
        }
        indices = scattered(&instruction, shape, rng);
        if let Some(indices) = &indices {
            wanted = wanted.wrapping_sub(indices.bias.wrapping_mul(u64::from(shape.scale)));
        }
        address(&mut instruction, &mut registers, shape, wanted, rng)?;
    }
    if code.is_call_near_indirect() && instruction.op0_kind() == OpKind::Register {
        registers[instruction.op0_register().full_register().number()] = ground.end_of_code() | impossible(rng);
    }
    if line {
        let short = code == Code::Clzerod;
        if short && !aim.low {
            return None;
        }
        registers[0] = (target as u64).wrapping_sub(base) | if short { rng.next() << 32 } else { 0 };
    }
    if matches!(instruction.mnemonic(), Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b) && rng.one_in(2)
    {
        let [low, high] = ground.peek(target);
        let wide = instruction.mnemonic() == Mnemonic::Cmpxchg16b;
        let narrow = instruction.mnemonic() == Mnemonic::Cmpxchg8b;
        let uses = |register: Register| [instruction.memory_base(), instruction.memory_index()].contains(&register);
        if !uses(Register::RAX) && !uses(Register::EAX) {
            registers[0] = low;
        }
        if wide || narrow {
            registers[2] = if wide { high } else { low >> 32 };
        }
    }
    if let Some(mask) = save_mask(&instruction) {
        // What is asked for would also be where.
        if [instruction.memory_base(), instruction.memory_index()].iter().any(|r| r.full_register() == Register::RAX) {
            return None;
        }
        registers[0] = mask & rng.next() | rng.below(2) << 1;
    }
    let bytes = encode(&instruction, ip, rng)?;
    let (decoded, _) = crate::decode::decode_bytes(&bytes, ip, ground.amd);
    if decoded.code() != code || decoded.len() != bytes.len() || !writes_memory(&decoded) {
        return None;
    }
    Some(Case { instruction: decoded, bytes, registers, flags, poke, target, indices })
}

fn scattered(instruction: &Instruction, shape: Shape, rng: &mut Rng) -> Option<Indices> {
    if !shape.index.is_vector_register() {
        return None;
    }
    use Kind::{mem_vsib64x, mem_vsib64y, mem_vsib64z};
    let wide = matches!(instruction.op_code().op_kind(0), mem_vsib64x | mem_vsib64y | mem_vsib64z);
    // Far from the base, if there is one that can make up for it.
    let bias = match rng.below(3) {
        0 if shape.base != Register::None && wide => rng.next(),
        0 if shape.base != Register::None => i64::from(rng.next() as i32 >> 1) as u64,
        _ => 0,
    };
    let far = (1 << 16) / u64::from(shape.scale);
    Some(Indices { register: shape.index.number() as u8, wide, bias, far })
}

/// Now and then, what makes of an address one that cannot be; the second is one for systems with long addresses.
fn impossible(rng: &mut Rng) -> u64 {
    if rng.one_in(8) { [1 << 62, 1 << 50][rng.below(2) as usize] } else { 0 }
}

fn save_mask(instruction: &Instruction) -> Option<u64> {
    use Mnemonic::{Xsave, Xsave64, Xsavec, Xsavec64, Xsaveopt, Xsaveopt64};
    matches!(instruction.mnemonic(), Xsave | Xsave64 | Xsavec | Xsavec64 | Xsaveopt | Xsaveopt64).then_some(0xe7)
}

fn size_of_memory(code: Code, ground: &Ground) -> usize {
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    match instruction.memory_size().size() {
        0 if save_mask(&instruction).is_some() => ground.save_area,
        0 => 64,
        size => size,
    }
}

/// Some instruction of `code`, with operands as far as they can be chosen.
pub(super) fn representative(code: Code) -> Instruction {
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let mut rng = Rng::new(1);
    let mut aim =
        Aim { end_of_code: 0, evex_registers: 16, low: false, near: false, shape: None, implicit: Some(false) };
    let operands = code.op_code();
    for operand in 0..operands.op_count() {
        let kind = operands.op_kind(operand);
        // What is left out does not matter for what is asked about it.
        let _ = set_operand(&mut instruction, operand, kind, &mut rng, &mut aim);
        if may_be_memory(kind) {
            instruction.set_op_kind(operand, OpKind::Memory);
        }
    }
    instruction
}

/// Can an operand of this kind be memory whose address the instruction spells out?
pub(super) fn may_be_memory(kind: Kind) -> bool {
    let name = format!("{kind:?}");
    name.contains("mem") && !name.ends_with("_mem") || kind_is_either(kind)
}

fn kind_is_either(kind: Kind) -> bool {
    use Kind::*;
    matches!(
        kind,
        r8_or_mem
            | r16_or_mem
            | r32_or_mem
            | r64_or_mem
            | r32_or_mem_mpx
            | r64_or_mem_mpx
            | mm_or_mem
            | xmm_or_mem
            | ymm_or_mem
            | zmm_or_mem
            | bnd_or_mem_mpx
            | k_or_mem
    )
}

/// Has the address of what it writes 32 bits in every encoding?
pub(super) fn is_short(code: Code) -> bool {
    matches!(code, Code::Movdir64b_r32_m512 | Code::Clzerod)
}

/// Does iced say that it writes memory? (It is asked in another way than the engine asks.)
pub(super) fn writes_memory(instruction: &Instruction) -> bool {
    if instruction.mnemonic() == Mnemonic::Clzero {
        return true;
    }
    let mut factory = InstructionInfoFactory::new();
    let written = |access: OpAccess| {
        matches!(access, OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite)
    };
    factory.info(instruction).used_memory().iter().any(|memory| written(memory.access()))
}

pub(super) fn writes_stack(instruction: &Instruction) -> bool {
    use Mnemonic::{Call, Enter, Push, Pushf, Pushfq};
    matches!(instruction.mnemonic(), Push | Pushf | Pushfq | Call | Enter)
}

fn moves_by_bits(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && instruction.op1_kind() == OpKind::Register
}

fn move_by_bits(instruction: &Instruction, registers: &mut [u64; 16], wanted: u64, rng: &mut Rng) -> u64 {
    let register = instruction.op1_register();
    let bits = register.size() as i64 * 8;
    let offset = rng.below(4000) as i64 - 2000;
    let garbage = if bits == 64 { 0 } else { rng.next() << bits };
    let kept = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    registers[register.full_register().number()] = offset as u64 & kept | garbage;
    wanted.wrapping_sub((offset.div_euclid(bits) * (bits / 8)) as u64)
}

fn stack_and_strings(
    instruction: &mut Instruction,
    registers: &mut [u64; 16],
    flags: &mut u64,
    target: usize,
    rng: &mut Rng,
    ground: &Ground,
    base: u64,
) {
    const DIRECTION: u64 = 1 << 10;
    let string = instruction.code().is_string_instruction();
    let implicit = (0..instruction.op_count()).find(|operand| {
        use OpKind::{MemoryESEDI, MemoryESRDI, MemorySegEDI, MemorySegRDI};
        matches!(instruction.op_kind(*operand), MemoryESRDI | MemoryESEDI | MemorySegRDI | MemorySegEDI)
    });
    if let Some(operand) = implicit {
        use OpKind::{MemoryESEDI, MemorySegEDI};
        let short = matches!(instruction.op_kind(operand), MemoryESEDI | MemorySegEDI);
        let garbage = if short { rng.next() << 32 } else { 0 };
        let source = match rng.below(3) {
            // Close by, so that the two overlap.
            0 => target.wrapping_add(rng.below(64) as usize).wrapping_sub(32),
            _ => ground.target(rng, 64),
        };
        // The destination of a string instruction has no segment.
        let (own, other) = if string { (0, base) } else { (base, 0) };
        registers[7] = (target as u64).wrapping_sub(own) | garbage;
        let source = (source as u64).wrapping_sub(other);
        registers[6] = if short { source & 0xffff_ffff | garbage } else { source };
        let count = match rng.below(16) {
            0 => 0,
            1 | 2 => rng.below(9000),
            _ => rng.below(100),
        };
        registers[1] = count | garbage;
        if string && rng.one_in(2) {
            *flags |= DIRECTION;
        }
    }
    if writes_stack(instruction) {
        registers[4] = target as u64 + 8;
        registers[5] = ground.target(rng, 8) as u64;
        if instruction.mnemonic() == Mnemonic::Enter {
            registers[5] = ground.middle() as u64 + rng.below(256);
            if !rng.one_in(8) {
                registers[4] = ground.middle() as u64 + rng.below(1024);
            }
        }
    }
    if instruction.mnemonic() == Mnemonic::Pop {
        registers[4] = ground.target(rng, 8) as u64;
    }
    if instruction.mnemonic() == Mnemonic::Movdir64b {
        // Where its destination is not aligned, it faults.
        let unaligned = if rng.one_in(8) { 0 } else { 63 };
        registers[instruction.op0_register().full_register().number()] = target as u64 & !unaligned;
    }
}

/// Chooses a displacement and registers such that the operand is at `wanted`.
fn address(
    instruction: &mut Instruction,
    registers: &mut [u64; 16],
    shape: Shape,
    wanted: u64,
    rng: &mut Rng,
) -> Option<()> {
    let displacement = displacement(instruction, registers, shape, wanted, rng);
    instruction.set_memory_displacement64(if shape.short { displacement & 0xffff_ffff } else { displacement });
    let relative = matches!(shape.base, Register::RIP | Register::EIP);
    let based = shape.base != Register::None && !relative;
    let moffs = instruction.op_code().op_kinds().contains(&Kind::mem_offs);
    let fits_byte = i64::from(displacement as i8) as u64 == displacement;
    let fits = shape.short || moffs || relative || i64::from(displacement as i32) as u64 == displacement;
    let size = match displacement {
        0 if based => rng.below(2) as u32,
        _ if based && fits_byte && rng.one_in(2) => 1,
        _ if shape.short => 4,
        _ => 8,
    };
    instruction.set_memory_displ_size(size);
    fits.then_some(())
}

fn displacement(instruction: &Instruction, registers: &mut [u64; 16], shape: Shape, wanted: u64, rng: &mut Rng) -> u64 {
    let cut = |value: u64| if shape.short { value & 0xffff_ffff } else { value };
    let garbage = if shape.short { rng.next() << 32 } else { 0 };
    let number = |register: Register| register.full_register().number();
    let (base, scale) = (shape.base, u64::from(shape.scale));
    // The indices of a vector are about 0.
    let index = if shape.index.is_vector_register() { Register::None } else { shape.index };
    let relative = matches!(base, Register::RIP | Register::EIP);
    if relative || (base == Register::None && index == Register::None) {
        return wanted;
    }
    if instruction.mnemonic() == Mnemonic::Pop && base.full_register() == Register::RSP {
        // RSP is chosen already, as the source; the destination is behind it.
        if index != Register::None {
            registers[number(index)] = rng.below(200);
        }
        return rng.below(256);
    }
    if base == Register::None {
        let value = rng.below(4000).wrapping_sub(2000);
        registers[number(index)] = cut(value) | garbage;
        return wanted.wrapping_sub(value.wrapping_mul(scale));
    }
    if index == base {
        let value = cut(wanted) / (scale + 1) - rng.below(20);
        registers[number(base)] = value | garbage;
        return wanted.wrapping_sub(value.wrapping_mul(scale + 1));
    }
    let displacement = match rng.below(3) {
        0 => 0,
        1 => rng.below(256).wrapping_sub(128),
        _ => i64::from(rng.next() as i32) as u64,
    };
    let mut scaled = 0;
    if index != Register::None {
        let is_bit_offset =
            moves_by_bits(instruction) && instruction.op1_register().full_register() == index.full_register();
        if !is_bit_offset {
            let value = if rng.one_in(2) { rng.below(5000).wrapping_sub(2500) } else { rng.next() };
            registers[number(index)] = cut(value) | garbage;
        }
        scaled = cut(registers[number(index)]).wrapping_mul(scale);
    }
    registers[number(base)] = cut(wanted.wrapping_sub(displacement).wrapping_sub(scaled)) | garbage;
    displacement
}

fn set_operand(instruction: &mut Instruction, operand: u32, kind: Kind, rng: &mut Rng, aim: &mut Aim) -> Option<()> {
    use Kind::*;
    let register = |first: Register, count: u64, rng: &mut Rng| nth(first, rng.below(count));
    let wide = aim.evex_registers;
    let chosen = match kind {
        r8_reg | r8_opcode => register(Register::AL, 20, rng),
        r16_reg | r16_rm | r16_opcode | r16_reg_mem => register(Register::AX, 16, rng),
        r32_reg | r32_rm | r32_opcode | r32_vvvv => register(Register::EAX, 16, rng),
        r64_reg | r64_rm | r64_opcode | r64_vvvv => register(Register::RAX, 16, rng),
        r64_reg_mem => register(Register::RAX, 16, rng),
        r32_reg_mem => register(Register::EAX, 16, rng),
        r16_or_mem | r32_or_mem | r64_or_mem if instruction.code().is_call_near_indirect() && rng.one_in(2) => {
            register(Register::RAX, 16, rng)
        }
        seg_reg => nth(Register::ES, [0, 1, 2, 3, 4, 5][rng.below(6) as usize]),
        fs => Register::FS,
        gs => Register::GS,
        mm_reg | mm_rm => register(Register::MM0, 8, rng),
        tmm_reg => register(Register::TMM0, 8, rng),
        bnd_reg => register(Register::BND0, 4, rng),
        k_reg | k_rm | k_vvvv => register(Register::K0, 8, rng),
        xmm_reg | xmm_rm | xmm_vvvv => register(Register::XMM0, wide, rng),
        ymm_reg | ymm_rm | ymm_vvvv => register(Register::YMM0, wide, rng),
        zmm_reg | zmm_rm | zmm_vvvv => register(Register::ZMM0, wide, rng),
        al => Register::AL,
        cl => Register::CL,
        ax => Register::AX,
        eax => Register::EAX,
        rax => Register::RAX,
        dx => Register::DX,
        st0 => Register::ST0,
        imm8 => {
            let second = operand > 0 && instruction.op_kind(operand - 1) == OpKind::Immediate16;
            instruction.set_op_kind(operand, if second { OpKind::Immediate8_2nd } else { OpKind::Immediate8 });
            if second {
                instruction.set_immediate8_2nd(rng.below(40) as u8)
            } else {
                instruction.set_immediate8(rng.next() as u8)
            }
            return Some(());
        }
        imm8_const_1 => {
            instruction.set_op_kind(operand, OpKind::Immediate8);
            instruction.set_immediate8(1);
            return Some(());
        }
        imm16 => {
            instruction.set_op_kind(operand, OpKind::Immediate16);
            let enters = instruction.mnemonic() == Mnemonic::Enter;
            instruction.set_immediate16(if enters { rng.below(2000) as u16 } else { rng.next() as u16 });
            return Some(());
        }
        imm8sex16 | imm8sex32 | imm8sex64 | imm32 | imm32sex64 | imm64 => {
            let (kind, value) = match kind {
                imm8sex16 => (OpKind::Immediate8to16, i64::from(rng.next() as i8)),
                imm8sex32 => (OpKind::Immediate8to32, i64::from(rng.next() as i8)),
                imm8sex64 => (OpKind::Immediate8to64, i64::from(rng.next() as i8)),
                imm32 => (OpKind::Immediate32, i64::from(rng.next() as i32)),
                imm32sex64 => (OpKind::Immediate32to64, i64::from(rng.next() as i32)),
                _ => (OpKind::Immediate64, rng.next() as i64),
            };
            instruction.set_op_kind(operand, kind);
            instruction.set_immediate_i64(operand, value);
            return Some(());
        }
        br64_1 | br64_4 => {
            instruction.set_op_kind(operand, OpKind::NearBranch64);
            instruction.set_near_branch64(aim.end_of_code);
            return Some(());
        }
        es_rDI | seg_rDI | seg_rSI => {
            let drawn = aim.low && rng.one_in(4);
            let kind = match (kind, *aim.implicit.get_or_insert(drawn)) {
                (es_rDI, false) => OpKind::MemoryESRDI,
                (es_rDI, true) => OpKind::MemoryESEDI,
                (seg_rDI, false) => OpKind::MemorySegRDI,
                (seg_rDI, true) => OpKind::MemorySegEDI,
                (_, false) => OpKind::MemorySegRSI,
                (_, true) => OpKind::MemorySegESI,
            };
            instruction.set_op_kind(operand, kind);
            return Some(());
        }
        mem | mem_offs | mem_vsib32x | mem_vsib32y | mem_vsib32z | mem_vsib64x | mem_vsib64y | mem_vsib64z
        | mem_mib | sibmem | r8_or_mem | r16_or_mem | r32_or_mem | r64_or_mem | r32_or_mem_mpx | r64_or_mem_mpx
        | mm_or_mem | xmm_or_mem | ymm_or_mem | zmm_or_mem | k_or_mem | bnd_or_mem_mpx => {
            let mut drawn = draw_shape(kind == mem_offs, rng, aim);
            let vectors = match kind {
                mem_vsib32x | mem_vsib64x => Some(Register::XMM0),
                mem_vsib32y | mem_vsib64y => Some(Register::YMM0),
                mem_vsib32z | mem_vsib64z => Some(Register::ZMM0),
                _ => Option::None,
            };
            if let Some(first) = vectors {
                drawn.index = register(first, wide, rng);
                drawn.scale = 1 << rng.below(4);
            }
            instruction.set_op_kind(operand, OpKind::Memory);
            instruction.set_memory_base(drawn.base);
            instruction.set_memory_index(drawn.index);
            instruction.set_memory_index_scale(drawn.scale);
            aim.shape = Some(drawn);
            return Some(());
        }
        _ => return Option::None,
    };
    instruction.set_op_kind(operand, OpKind::Register);
    instruction.set_op_register(operand, chosen);
    Some(())
}

fn draw_shape(bare: bool, rng: &mut Rng, aim: &Aim) -> Shape {
    let none = Register::None;
    let short = aim.low && rng.one_in(4);
    let first = if short { Register::EAX } else { Register::RAX };
    let scale = 1 << rng.below(4);
    let any = |rng: &mut Rng| nth(first, rng.below(16));
    let index = |rng: &mut Rng| nth(first, [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15][rng.below(15) as usize]);
    match rng.below(8) {
        _ if bare => Shape { base: none, index: none, scale: 1, short },
        0 if aim.near => {
            Shape { base: if short { Register::EIP } else { Register::RIP }, index: none, scale: 1, short }
        }
        1 if aim.low => Shape { base: none, index: none, scale: 1, short },
        2 if aim.low => Shape { base: none, index: index(rng), scale, short },
        3 | 4 => Shape { base: any(rng), index: none, scale: 1, short },
        5 => Shape { base: nth(first, 4), index: none, scale: 1, short },
        _ => Shape { base: any(rng), index: index(rng), scale, short },
    }
}

/// Encodes, sometimes with prefixes that mean nothing.
fn encode(instruction: &Instruction, ip: u64, rng: &mut Rng) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(64);
    let meaningless: &[u8] = match rng.below(24) {
        0 => &[0x2e],
        1 => &[0x3e],
        2 => &[0x26],
        3 => &[0x48, 0x36],
        4 => &[0x4f, 0x3e],
        _ => &[],
    };
    let branches = instruction.flow_control() != FlowControl::Next;
    let own = instruction.segment_prefix() != Register::None;
    let meaningless = if branches || own { &[] } else { meaningless };
    let start = ip + meaningless.len() as u64;
    let len = encoder.encode(instruction, start).ok()?;
    let mut bytes = meaningless.to_vec();
    bytes.extend(encoder.take_buffer());
    (bytes.len() == len + meaningless.len() && bytes.len() <= 15).then_some(bytes)
}

/// The 64-bit general register of this number in the encoding.
pub(super) fn name(number: usize) -> Register {
    GPR64[number & 15]
}
