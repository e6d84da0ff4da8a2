//! From an instruction to a description of what it does to memory: plain data, worked out once for each site.

mod moves;
mod writes;

pub(crate) use writes::Writes;

use crate::execute::machine::{HIGH_BYTE, Machine, NONE, gpr};
use dsm_core::op::Rmw;
use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind, Register};

/// What a decoded instruction does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Bytes of code.
    pub(crate) len: u8,
    /// The memory operand, where there is one.
    pub(crate) place: Place,
    /// What happens to it.
    pub(crate) action: Action,
}

/// The base of a segment that is added to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// None: the other segments have base 0.
    Flat,
    /// FS.
    Fs,
    /// GS.
    Gs,
}

/// A memory operand as the instruction writes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) base: u8,
    pub(crate) index: u8,
    pub(crate) scale: u8,
    /// Addresses are computed in 32 bits.
    pub(crate) short: bool,
    pub(crate) segment: Segment,
    /// The displacement counts from the next instruction; `displacement` has that added already.
    pub(crate) relative: bool,
    pub(crate) displacement: u64,
}

impl Place {
    const NOWHERE: Self = Self {
        base: NONE,
        index: NONE,
        scale: 1,
        short: false,
        segment: Segment::Flat,
        relative: false,
        displacement: 0,
    };

    /// The offset in its segment, as the processor computes it.
    pub(crate) fn offset(&self, machine: &Machine) -> u64 {
        let mut offset = self.displacement;
        if self.base != NONE {
            offset = offset.wrapping_add(machine.full(self.base));
        }
        if self.index != NONE {
            offset = offset.wrapping_add(machine.full(self.index).wrapping_mul(u64::from(self.scale)));
        }
        self.wrap(offset)
    }

    /// Cuts an offset to the address size.
    pub(crate) fn wrap(&self, offset: u64) -> u64 {
        if self.short { offset & 0xffff_ffff } else { offset }
    }

    /// The linear address of an offset.
    pub(crate) fn linear(&self, machine: &Machine, offset: u64) -> usize {
        offset.wrapping_add(self.segment_base(machine)) as usize
    }

    /// The linear address of the operand.
    pub(crate) fn address(&self, machine: &Machine) -> usize {
        self.linear(machine, self.offset(machine))
    }

    fn segment_base(&self, machine: &Machine) -> u64 {
        match self.segment {
            Segment::Flat => 0,
            Segment::Fs => machine.processor.segment_base(false),
            Segment::Gs => machine.processor.segment_base(true),
        }
    }
}

/// Which bytes of its operand a displaced instruction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Footprint {
    /// All.
    Whole,
    /// The elements of this many bytes that a mask register enables.
    Masked { element: u8, mask: u8 },
    /// Some: seen by running it on different backgrounds.
    Detected,
    /// As `Detected`, in an XSAVE area, whose size and header depend on the processor. `compact`: XSAVEC.
    SaveArea { compact: bool },
}

/// A bit offset in a register, which moves the operand of BTS, BTR and BTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BitOffset {
    pub(crate) register: u8,
}

/// An operand that is not memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Register(u8),
    Immediate(u64),
    /// FS or GS itself, for PUSH.
    Selector(Segment),
    /// RFLAGS, for PUSHF.
    Flags,
    /// The memory operand, for PUSH and CALL.
    Memory,
}

/// How a locked instruction's operand is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A value; the carry flag is added when `carry`.
    Plain { value: Value, carry: bool },
    /// One bit at this position modulo the width; inverted for BTR.
    Bit { position: Value, inverted: bool },
    /// CMPXCHG: this register replaces the accumulator's value.
    Exchange { register: u8 },
    /// CMPXCHG8B and 16B.
    ExchangePair,
}

/// What an instruction does to memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    /// It does something that cannot be carried out, for this reason.
    Refused(&'static str),
    /// The low bytes of a value; `reversed` for MOVBE.
    Move { value: Value, width: u8, reversed: bool },
    /// 1 or 0.
    Condition { code: u8 },
    /// `width` bytes of a vector register starting at `from`; with `mask` not 0 only the elements that it enables. With
    /// `whole` the others must be writable all the same.
    Vector { register: u8, from: u8, width: u8, element: u8, mask: u8, whole: bool },
    /// The elements of a vector register whose sign bit is set in another.
    Selected { register: u8, selector: u8, width: u8, element: u8 },
    /// The enabled elements of a vector register, without gaps.
    Compressed { register: u8, width: u8, element: u8, mask: u8 },
    /// Each enabled element to its own address.
    Scatter { register: u8, index: u8, wide_index: bool, lanes: u8, element: u8, mask: u8 },
    /// A mask register.
    Opmask { register: u8, width: u8 },
    /// MXCSR.
    Control,
    /// CLZERO: the cache line of the operand.
    ZeroLine,
    /// MOVDIR64B: the operand is the source, this register the address.
    Direct { destination: u8, short: bool },
    /// STOS or MOVS. The place has the segment of the source.
    String { copies: bool, width: u8, repeated: bool },
    /// PUSH and PUSHF.
    Push { value: Value, width: u8 },
    /// CALL near.
    Call { target: Value },
    /// ENTER.
    Enter { size: u16, level: u8, width: u8 },
    /// POP to memory.
    Pop { width: u8 },
    /// Anything else, by running a copy of the instruction elsewhere. `state`: it uses more than general registers.
    Displaced { width: u16, state: bool, footprint: Footprint, bit: Option<BitOffset>, converts: bool },
    /// A locked read-modify-write.
    Locked { rmw: Rmw, width: u8, operand: Operand, bit: Option<BitOffset> },
    /// CMPccXADD: locked, and no single operation of the total order.
    Optimistic { width: u8 },
}

impl Action {
    /// Is a copy of the instruction executed?
    pub(crate) fn is_displaced(&self) -> bool {
        matches!(self, Self::Displaced { .. } | Self::Locked { .. } | Self::Optimistic { .. })
    }
}

/// The number of a general register as the machine counts.
fn number(register: Register) -> u8 {
    let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    register.full_register().number() as u8 | if high { HIGH_BYTE } else { 0 }
}

/// The explicit memory operand of an instruction.
fn place(instruction: &Instruction) -> Place {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let bare = base == Register::None;
    let known = |register: Register| if register.is_gpr() { number(register) } else { NONE };
    Place {
        base: known(base),
        index: known(index),
        scale: instruction.memory_index_scale() as u8,
        short: base.is_gpr32()
            || index.is_gpr32()
            || base == Register::EIP
            || (bare && instruction.memory_displ_size() == 4),
        segment: segment(instruction),
        relative: instruction.is_ip_rel_memory_operand(),
        displacement: instruction.memory_displacement64(),
    }
}

fn segment(instruction: &Instruction) -> Segment {
    match instruction.segment_prefix() {
        Register::FS => Segment::Fs,
        Register::GS => Segment::Gs,
        _ => Segment::Flat,
    }
}

/// An instruction's operand that is a register or an immediate.
fn value(instruction: &Instruction, operand: u32) -> Option<Value> {
    match instruction.op_kind(operand) {
        OpKind::Register if instruction.op_register(operand).is_gpr() => {
            Some(Value::Register(number(instruction.op_register(operand))))
        }
        OpKind::Memory => Some(Value::Memory),
        OpKind::Register => None,
        _ => instruction.try_immediate(operand).ok().map(Value::Immediate),
    }
}

/// Works out what `instruction` does.
pub(crate) fn plan(instruction: &Instruction, writes: &Writes) -> Plan {
    // The processor says that it wrote. If we do not know what, we must not go on.
    let (mut place, mut action) = (self::place(instruction), Action::Refused("it is not known to write memory"));
    if let Some((own_place, special)) = special(instruction) {
        place = own_place;
        action = special;
    } else if let Some(operand) = writes.memory_operand(instruction) {
        action = written(instruction, operand);
    }
    Plan { len: instruction.len() as u8, place, action }
}

/// Instructions whose memory is, or is also, not an ordinary operand.
fn special(instruction: &Instruction) -> Option<(Place, Action)> {
    use Mnemonic as M;
    let place = self::place(instruction);
    let pushed = || instruction.stack_pointer_increment().unsigned_abs() as u8;
    let implicit = |base: u8, short: bool| Place { base, short, segment: segment(instruction), ..Place::NOWHERE };
    let short_rdi = (0..instruction.op_count())
        .any(|operand| matches!(instruction.op_kind(operand), OpKind::MemorySegEDI | OpKind::MemoryESEDI));
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    let action = match instruction.mnemonic() {
        M::Stosb | M::Stosw | M::Stosd | M::Stosq | M::Movsb | M::Movsw | M::Movsd | M::Movsq
            if instruction.is_string_instruction() =>
        {
            let width = instruction.memory_size().size() as u8;
            let copies = matches!(instruction.mnemonic(), M::Movsb | M::Movsw | M::Movsd | M::Movsq);
            return Some((implicit(gpr::RSI, short_rdi), Action::String { copies, width, repeated }));
        }
        M::Push => match (value(instruction, 0), instruction.op0_register()) {
            (Some(value), _) => Action::Push { value, width: pushed() },
            (None, Register::FS) => Action::Push { value: Value::Selector(Segment::Fs), width: pushed() },
            (None, Register::GS) => Action::Push { value: Value::Selector(Segment::Gs), width: pushed() },
            (None, _) => Action::Refused("it pushes an unknown register"),
        },
        M::Pushf | M::Pushfq => Action::Push { value: Value::Flags, width: pushed() },
        M::Call if instruction.is_call_far() || instruction.is_call_far_indirect() => {
            Action::Refused("far calls are not carried out")
        }
        M::Call if pushed() != 8 => Action::Refused("16-bit calls are not carried out"),
        M::Call if instruction.is_call_near() => {
            Action::Call { target: Value::Immediate(instruction.near_branch_target()) }
        }
        M::Call => match value(instruction, 0) {
            Some(target) => Action::Call { target },
            None => Action::Refused("its target is unknown"),
        },
        M::Enter => Action::Enter {
            size: instruction.immediate16(),
            level: instruction.immediate8_2nd() & 31,
            width: if instruction.code() == iced_x86::Code::Enterq_imm16_imm8 { 8 } else { 2 },
        },
        M::Pop if instruction.op0_kind() == OpKind::Memory => Action::Pop { width: pushed() },
        M::Clzero => {
            let short = instruction.code() != iced_x86::Code::Clzeroq;
            return Some((implicit(gpr::RAX, short), Action::ZeroLine));
        }
        M::Movdir64b => {
            let register = instruction.op0_register();
            Action::Direct { destination: number(register), short: register.is_gpr32() }
        }
        M::Maskmovdqu | M::Vmaskmovdqu => {
            let (register, selector) = (instruction.op1_register(), instruction.op2_register());
            let action = Action::Selected {
                register: register.number() as u8,
                selector: selector.number() as u8,
                width: 16,
                element: 1,
            };
            return Some((implicit(gpr::RDI, short_rdi), action));
        }
        M::Maskmovq => {
            let footprint = Footprint::Detected;
            let action = Action::Displaced { width: 8, state: true, footprint, bit: None, converts: false };
            return Some((implicit(gpr::RDI, short_rdi), action));
        }
        M::Insb | M::Insw | M::Insd => Action::Refused("port input is not carried out"),
        M::Enqcmd | M::Enqcmds => Action::Refused("it is meant for devices"),
        M::Tilestored | M::Sttilecfg => Action::Refused("matrix tiles are not carried out"),
        M::Wrssd | M::Wrssq | M::Wrussd | M::Wrussq | M::Rstorssp | M::Clrssbsy => {
            Action::Refused("shadow stacks are not carried out")
        }
        M::Bndmov | M::Bndstx => Action::Refused("bounds registers are not carried out"),
        _ if is_padlock(instruction) => Action::Refused("instructions of VIA's PadLock are not carried out"),
        M::Xsaves | M::Xsaves64 | M::Vmptrst | M::Vmread => Action::Refused("it is for the operating system"),
        _ => return None,
    };
    Some((place, action))
}

/// Instructions that write their explicit memory operand.
fn written(instruction: &Instruction, operand: u32) -> Action {
    if let Some(action) = moves::plan(instruction) {
        return action;
    }
    let exchanges = instruction.mnemonic() == Mnemonic::Xchg;
    if instruction.has_lock_prefix() || exchanges || is_remote_atomic(instruction.mnemonic()) {
        return locked(instruction, operand);
    }
    if is_conditional_add(instruction) {
        return Action::Optimistic { width: instruction.memory_size().size() as u8 };
    }
    displaced(instruction)
}

fn is_remote_atomic(mnemonic: Mnemonic) -> bool {
    matches!(mnemonic, Mnemonic::Aadd | Mnemonic::Aand | Mnemonic::Aor | Mnemonic::Axor)
}

fn is_padlock(instruction: &Instruction) -> bool {
    use iced_x86::CpuidFeature as F;
    let padlock = |feature: &F| {
        matches!(*feature, F::PADLOCK_ACE | F::PADLOCK_PHE | F::PADLOCK_PMM | F::PADLOCK_RNG | F::PADLOCK_GMI)
    };
    instruction.cpuid_features().iter().any(padlock)
}

fn is_conditional_add(instruction: &Instruction) -> bool {
    let features = instruction.cpuid_features();
    features.contains(&iced_x86::CpuidFeature::CMPCCXADD)
}

fn bit_offset(instruction: &Instruction) -> Option<BitOffset> {
    let moves = matches!(instruction.mnemonic(), Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc);
    let register = instruction.op_kind(1) == OpKind::Register;
    (moves && register).then(|| BitOffset { register: number(instruction.op1_register()) })
}

fn displaced(instruction: &Instruction) -> Action {
    use Mnemonic as M;
    let general = matches!(
        instruction.mnemonic(),
        M::Add
            | M::Or
            | M::Adc
            | M::Sbb
            | M::And
            | M::Sub
            | M::Xor
            | M::Inc
            | M::Dec
            | M::Neg
            | M::Not
            | M::Rol
            | M::Ror
            | M::Rcl
            | M::Rcr
            | M::Shl
            | M::Sal
            | M::Shr
            | M::Sar
            | M::Shld
            | M::Shrd
            | M::Bts
            | M::Btr
            | M::Btc
            | M::Cmpxchg
            | M::Cmpxchg8b
            | M::Cmpxchg16b
            | M::Xadd
            | M::Mov
            | M::Sldt
            | M::Str
            | M::Smsw
            | M::Sidt
            | M::Sgdt
    );
    let footprint = match instruction.mnemonic() {
        M::Fxsave | M::Fxsave64 | M::Fnsave | M::Fnstenv => Footprint::Detected,
        M::Xsave | M::Xsave64 | M::Xsaveopt | M::Xsaveopt64 => Footprint::SaveArea { compact: false },
        M::Xsavec | M::Xsavec64 => Footprint::SaveArea { compact: true },
        _ if instruction.op_mask() != Register::None => Footprint::Masked {
            element: instruction.memory_size().element_size() as u8,
            mask: instruction.op_mask().number() as u8,
        },
        _ => Footprint::Whole,
    };
    let width = instruction.memory_size().size() as u16;
    if width == 0 && !matches!(footprint, Footprint::SaveArea { .. }) {
        return Action::Refused("the size of what it writes is unknown");
    }
    let converts = instruction.mnemonic() == M::Vcvtps2ph;
    Action::Displaced { width, state: !general, footprint, bit: bit_offset(instruction), converts }
}

fn locked(instruction: &Instruction, operand: u32) -> Action {
    use Mnemonic as M;
    let width = instruction.memory_size().size() as u8;
    let bit = bit_offset(instruction);
    let other = value(instruction, 1 - operand.min(1)).filter(|_| instruction.op_count() > 1);
    let plain = |value: Value| Operand::Plain { value, carry: false };
    let constant = |constant: u64| Operand::Plain { value: Value::Immediate(constant), carry: false };
    let (rmw, operand) = match (instruction.mnemonic(), other) {
        (M::Add | M::Xadd | M::Aadd, Some(value)) => (Rmw::Add, plain(value)),
        (M::Sub, Some(value)) => (Rmw::Sub, plain(value)),
        (M::Adc, Some(value)) => (Rmw::Add, Operand::Plain { value, carry: true }),
        (M::Sbb, Some(value)) => (Rmw::Sub, Operand::Plain { value, carry: true }),
        (M::And | M::Aand, Some(value)) => (Rmw::And, plain(value)),
        (M::Or | M::Aor, Some(value)) => (Rmw::Or, plain(value)),
        (M::Xor | M::Axor, Some(value)) => (Rmw::Xor, plain(value)),
        (M::Xchg, Some(value)) => (Rmw::Swap, plain(value)),
        (M::Inc, _) => (Rmw::Add, constant(1)),
        (M::Dec, _) => (Rmw::Sub, constant(1)),
        (M::Not, _) => (Rmw::Xor, constant(u64::MAX)),
        (M::Neg, _) => (Rmw::Neg, constant(0)),
        (M::Bts, Some(position)) => (Rmw::Or, Operand::Bit { position, inverted: false }),
        (M::Btr, Some(position)) => (Rmw::And, Operand::Bit { position, inverted: true }),
        (M::Btc, Some(position)) => (Rmw::Xor, Operand::Bit { position, inverted: false }),
        (M::Cmpxchg, Some(Value::Register(register))) => (Rmw::CompareExchange, Operand::Exchange { register }),
        (M::Cmpxchg8b | M::Cmpxchg16b, _) => (Rmw::CompareExchange, Operand::ExchangePair),
        _ => return Action::Refused("a locked instruction of an unknown kind"),
    };
    Action::Locked { rmw, width, operand, bit }
}

/// Bytes of one element of a memory operand.
fn element(size: MemorySize) -> u8 {
    size.element_size() as u8
}
