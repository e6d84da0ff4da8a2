//! Instructions carried out on a signal frame made by hand: those of processors other than this one, and the ways
//! that are taken where the system lacks something. (Where the processor has AVX-512, the differential test compares
//! its instructions with the processor itself.)

use super::machine::Machine;
use super::{Trap, carry_out};
use crate::cache::Site;
use crate::decode::{CodeBytes, decode_bytes};
use crate::plan::{self, Writes};
use crate::processor::Processor;
use crate::{Outcome, Sink};
use dsm_core::op::AtomicOp;
use iced_x86::Code;

const AREA: usize = 2432;
/// Where the memory of a [`Rig`] begins, for those instructions that are carried out in software.
const START: usize = 0x10_0000;

#[repr(C, align(64))]
struct Area([u8; AREA]);

/// A machine with AVX-512, and a region of 4096 bytes.
struct Rig {
    context: libc::mcontext_t,
    area: Box<Area>,
    processor: Processor,
    memory: Memory,
}

struct Memory {
    start: usize,
    bytes: Vec<u8>,
    log: Vec<(usize, usize)>,
    /// What `atomic` finds, one after the other, before the true value.
    interference: Vec<u8>,
}

impl Sink for Memory {
    fn writable(&self, address: usize, len: usize) -> bool {
        address >= self.start && address + len <= self.start + self.bytes.len()
    }

    fn store(&mut self, address: usize, bytes: &[u8]) {
        let at = address - self.start;
        self.log.push((at, bytes.len()));
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn atomic(&mut self, address: usize, op: AtomicOp) -> u128 {
        let (at, width) = (address - self.start, usize::from(op.width));
        if let Some(other) = self.interference.pop() {
            self.bytes[at] = other;
        }
        let mut old = [0; 16];
        old[..width].copy_from_slice(&self.bytes[at..at + width]);
        let old = u128::from_le_bytes(old);
        self.bytes[at..at + width].copy_from_slice(&op.apply(old).to_le_bytes()[..width]);
        old
    }
}

impl Rig {
    fn new() -> Self {
        // SAFETY: zeros are valid in this C structure.
        let mut context: libc::mcontext_t = unsafe { std::mem::zeroed() };
        let mut area = Box::new(Area([0; AREA]));
        let mut offsets = [0; 8];
        for (number, offset) in [(2, 576), (5, 832), (6, 896), (7, 1408)] {
            offsets[number] = offset;
        }
        area.0[464..468].copy_from_slice(&0x4650_5853u32.to_le_bytes());
        area.0[472..480].copy_from_slice(&0xe7u64.to_le_bytes());
        area.0[480..484].copy_from_slice(&(AREA as u32).to_le_bytes());
        area.0[512..520].copy_from_slice(&0xe7u64.to_le_bytes());
        context.fpregs = (&raw mut *area).cast();
        let (data_on_exceptions, amd, intel) = (false, false, false);
        let processor =
            Processor { fsgsbase: true, xcr0: 0xe7, offsets, area: AREA, data_on_exceptions, amd, intel, linear: 48 };
        let memory = Memory { start: START, bytes: vec![0xee; 4096], log: vec![], interference: vec![] };
        let mut rig = Self { context, area, processor, memory };
        for number in 0..32 {
            rig.set_vector(number, std::array::from_fn(|index| number.wrapping_mul(64).wrapping_add(index as u8)));
        }
        rig
    }

    fn set_vector(&mut self, number: u8, bytes: [u8; 64]) {
        let n = usize::from(number);
        let mut put = |at: usize, bytes: &[u8]| self.area.0[at..at + bytes.len()].copy_from_slice(bytes);
        if n >= 16 {
            return put(1408 + (n - 16) * 64, &bytes);
        }
        put(160 + n * 16, &bytes[..16]);
        put(576 + n * 16, &bytes[16..32]);
        put(896 + n * 32, &bytes[32..]);
    }

    fn set_mask(&mut self, number: usize, mask: u64) {
        self.area.0[832 + number * 8..840 + number * 8].copy_from_slice(&mask.to_le_bytes());
    }

    fn mask(&mut self, number: u8) -> u64 {
        Machine::new(&mut self.context, &self.processor).extended().opmask(number)
    }

    fn set(&mut self, register: i32, value: usize) {
        self.context.gregs[register as usize] = value as i64;
    }

    /// Carries out one instruction that faulted at `fault`.
    fn run(&mut self, code: &[u8], expected: Code, fault: usize) -> Result<Outcome, &'static str> {
        const RIP: u64 = 0x40_0000;
        let (instruction, _) = decode_bytes(code, RIP, false);
        assert_eq!((instruction.code(), instruction.len()), (expected, code.len()));
        let mut bytes = [0; 16];
        bytes[..code.len()].copy_from_slice(code);
        let plan = plan::plan(&instruction, &Writes::new());
        let site = Site { rip: RIP, code: CodeBytes::new(bytes, code.len()), plan };
        self.set(libc::REG_RIP, RIP as usize);
        let machine = Machine::new(&mut self.context, &self.processor);
        let mut trap = Trap { machine, fault, sink: &mut self.memory, site: &site, held: None, blocked: 0 };
        let outcome = carry_out(&mut trap);
        if outcome == Ok(Outcome::Done) && !matches!(expected.mnemonic(), iced_x86::Mnemonic::Vpscatterdd) {
            assert_eq!(self.context.gregs[libc::REG_RIP as usize] as u64, RIP + code.len() as u64);
        }
        outcome
    }

    fn log(&mut self) -> Vec<(usize, usize)> {
        std::mem::take(&mut self.memory.log)
    }
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn whole_zmm_registers_are_one_store() {
    let mut rig = Rig::new();
    rig.set(libc::REG_RAX, START + 64);
    // vmovups [rax+64], zmm17: the displacement is in units of 64 bytes.
    let code = [0x62, 0xe1, 0x7c, 0x48, 0x11, 0x48, 0x01];
    assert_eq!(rig.run(&code, Code::EVEX_Vmovups_zmmm512_k1z_zmm, START + 130), Ok(Outcome::Done));
    assert_eq!(rig.log(), [(128, 64)]);
    assert_eq!(rig.memory.bytes[128..192], std::array::from_fn::<u8, 64, _>(|index| 64 + index as u8));
    assert_eq!(rig.run(&code, Code::EVEX_Vmovups_zmmm512_k1z_zmm, START + 300), Ok(Outcome::NotOurs));
    rig.set(libc::REG_RAX, START + 4096 - 100);
    assert_eq!(rig.run(&code, Code::EVEX_Vmovups_zmmm512_k1z_zmm, START + 4090), Ok(Outcome::NotOurs));
    assert_eq!(rig.log(), []);
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn masked_moves_store_runs_of_elements() {
    let mut rig = Rig::new();
    rig.set(libc::REG_RAX, START);
    rig.set_mask(1, 0x8000_0000_0000_0007);
    // vmovdqu8 [rax]{k1}, zmm2
    let code = [0x62, 0xf1, 0x7f, 0x49, 0x7f, 0x10];
    assert_eq!(rig.run(&code, Code::EVEX_Vmovdqu8_zmmm512_k1z_zmm, START), Ok(Outcome::Done));
    assert_eq!(rig.log(), [(0, 3), (63, 1)]);
    assert_eq!(rig.memory.bytes[..4], [128, 129, 130, 0xee]);
    // vmovupd [rax]{k1}, ymm2: bits beyond the four lanes do not count.
    let code = [0x62, 0xf1, 0xfd, 0x29, 0x11, 0x10];
    assert_eq!(rig.run(&code, Code::EVEX_Vmovupd_ymmm256_k1z_ymm, START + 8), Ok(Outcome::Done));
    assert_eq!(rig.log(), [(0, 24)]);
    // Elements that are not enabled may lie outside.
    rig.set(libc::REG_RAX, START + 4096 - 24);
    assert_eq!(rig.run(&code, Code::EVEX_Vmovupd_ymmm256_k1z_ymm, START + 4090), Ok(Outcome::Done));
    rig.set_mask(1, 8);
    assert_eq!(rig.run(&code, Code::EVEX_Vmovupd_ymmm256_k1z_ymm, START + 4090), Ok(Outcome::NotOurs));
    // vextractf64x2 [rax]{k1}, ymm2, 0 suppresses no fault of those.
    rig.set_mask(1, 1);
    rig.set(libc::REG_RAX, START + 4096 - 8);
    let code = [0x62, 0xf3, 0xfd, 0x29, 0x19, 0x10, 0x00];
    assert_eq!(rig.run(&code, Code::EVEX_Vextractf64x2_xmmm128_k1z_ymm_imm8, START + 4090), Ok(Outcome::NotOurs));
    rig.set(libc::REG_RAX, START + 4096 - 16);
    assert_eq!(rig.run(&code, Code::EVEX_Vextractf64x2_xmmm128_k1z_ymm_imm8, START + 4090), Ok(Outcome::Done));
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn lanes_are_extracted_and_compressed() {
    let mut rig = Rig::new();
    rig.set(libc::REG_RAX, START);
    // vextracti32x4 [rax], zmm3, 6: lane 6 modulo 4.
    let code = [0x62, 0xf3, 0x7d, 0x48, 0x39, 0x18, 0x06];
    assert_eq!(rig.run(&code, Code::EVEX_Vextracti32x4_xmmm128_k1z_zmm_imm8, START), Ok(Outcome::Done));
    assert_eq!(
        rig.memory.bytes[..17],
        std::array::from_fn::<u8, 17, _>(|at| if at < 16 { 192 + 32 + at as u8 } else { 0xee })
    );
    // vextractf64x4 [rax], zmm3, 1
    let code = [0x62, 0xf3, 0xfd, 0x48, 0x1b, 0x18, 0x01];
    assert_eq!(rig.run(&code, Code::EVEX_Vextractf64x4_ymmm256_k1z_zmm_imm8, START), Ok(Outcome::Done));
    assert_eq!(rig.memory.bytes[..2], [224, 225]);
    rig.log();
    // vpcompressd [rax]{k2}, zmm0
    rig.set_mask(2, 0b1000_0000_0000_0110);
    let code = [0x62, 0xf2, 0x7d, 0x4a, 0x8b, 0x00];
    assert_eq!(rig.run(&code, Code::EVEX_Vpcompressd_zmmm512_k1z_zmm, START), Ok(Outcome::Done));
    assert_eq!(rig.log(), [(0, 12)]);
    assert_eq!(rig.memory.bytes[..12], [4, 5, 6, 7, 8, 9, 10, 11, 60, 61, 62, 63]);
    // kmovq [rax], k2
    let code = [0xc4, 0xe1, 0xf8, 0x91, 0x10];
    assert_eq!(rig.run(&code, Code::VEX_Kmovq_m64_kr, START), Ok(Outcome::Done));
    assert_eq!(rig.memory.bytes[..8], 0b1000_0000_0000_0110u64.to_le_bytes());
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn scattering_goes_as_far_as_the_region() {
    let mut rig = Rig::new();
    rig.set(libc::REG_RAX, START);
    rig.set_mask(1, 0xf0_0000_0000_000f);
    let mut indices = [0u8; 64];
    for (lane, index) in [(0, 4i32), (1, 4), (2, 100_000), (3, 0)] {
        indices[lane * 4..lane * 4 + 4].copy_from_slice(&index.to_le_bytes());
    }
    rig.set_vector(5, indices);
    // vpscatterdd [rax+4*xmm5+8]{k1}, xmm6; the displacement is in units of the element.
    let code = [0x62, 0xf2, 0x7d, 0x09, 0xa0, 0x74, 0xa8, 0x02];
    assert_eq!(rig.run(&code, Code::EVEX_Vpscatterdd_vm32x_k1_xmm, START + 24), Ok(Outcome::Done));
    // The later of two elements for one place wins; the third is not ours and is left to the processor.
    assert_eq!(rig.log(), [(24, 4), (24, 4)]);
    assert_eq!(rig.memory.bytes[24..28], [132, 133, 134, 135]);
    assert_eq!(rig.mask(1), 0xf0_0000_0000_000c);
    assert_eq!(rig.context.gregs[libc::REG_RIP as usize], 0x40_0000);
    rig.set_mask(1, 0b1000);
    assert_eq!(rig.run(&code, Code::EVEX_Vpscatterdd_vm32x_k1_xmm, START + 8), Ok(Outcome::Done));
    assert_eq!((rig.mask(1), rig.log()), (0, vec![(8, 4)]));
    assert_eq!(rig.context.gregs[libc::REG_RIP as usize], 0x40_0000 + 8);
}

#[test]
#[cfg_attr(miri, ignore = "decodes")]
fn a_call_to_an_address_that_cannot_be_faults_as_the_processor_does() {
    for (intel, stored) in [(true, vec![(56, 8)]), (false, vec![])] {
        let mut rig = Rig::new();
        rig.processor.intel = intel;
        rig.set(libc::REG_RSP, START + 64);
        rig.set(libc::REG_RAX, 1 << 50);
        // call rax, to what is an address where addresses have 57 bits, and here they have 48.
        assert_eq!(rig.run(&[0xff, 0xd0], Code::Call_rm64, START + 56), Ok(Outcome::NotOurs));
        assert_eq!(rig.log(), stored);
        assert_eq!(rig.context.gregs[libc::REG_RSP as usize] as usize, START + 64);
        rig.processor.linear = 57;
        assert!(rig.processor.is_canonical(1 << 50) && !rig.processor.is_canonical(1 << 56));
    }
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn every_evex_move_has_a_plan_of_its_own() {
    // The forms that are left to displaced execution, because the processor has to compute.
    let computed = |code: Code| format!("{code:?}").contains("Vpmov") || format!("{code:?}").contains("Vcvtps2ph");
    let writes = Writes::new();
    let mut seen = 0;
    for code in Code::values().filter(|code| format!("{code:?}").starts_with("EVEX_")) {
        let mut instruction = iced_x86::Instruction::default();
        instruction.set_code(code);
        instruction.set_op0_kind(iced_x86::OpKind::Memory);
        for operand in 1..instruction.op_count() {
            let register = match code.op_code().op_kind(operand) {
                iced_x86::OpCodeOperandKind::zmm_reg => iced_x86::Register::ZMM1,
                iced_x86::OpCodeOperandKind::ymm_reg => iced_x86::Register::YMM1,
                _ => iced_x86::Register::XMM1,
            };
            instruction.set_op_register(operand, register);
        }
        instruction.set_memory_index(iced_x86::Register::XMM2);
        let may_be_memory = format!("{:?}", code.op_code().op_kind(0)).contains("mem");
        if !may_be_memory || writes.memory_operand(&instruction) != Some(0) {
            continue;
        }
        seen += 1;
        let action = plan::plan(&instruction, &writes).action;
        assert_eq!(matches!(action, plan::Action::Displaced { .. }), computed(code), "{code:?}: {action:?}");
    }
    assert_eq!(seen, 170);
}

/// Blocks every signal in this thread, as a displaced instruction needs it, while `body` runs.
fn blocked<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: zeros are valid sets of signals.
    let [mut all, mut old]: [libc::sigset_t; 2] = unsafe { std::mem::zeroed() };
    // SAFETY: a set is plain bits.
    unsafe { std::ptr::write_bytes(&raw mut all, 0xff, 1) };
    // SAFETY: sets of our own.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old) };
    let result = body();
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
    result
}

/// A rig whose memory is real, and that is this processor.
fn real() -> Rig {
    crate::warm();
    let mut rig = Rig::new();
    rig.processor = Processor::detect();
    rig.memory.start = rig.memory.bytes.as_ptr().expose_provenance();
    let start = rig.memory.start;
    rig.set(libc::REG_RAX, start);
    rig
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn without_fsgsbase_the_kernel_sets_the_bases() {
    for fsgsbase in [false, true] {
        let mut rig = real();
        if fsgsbase && !rig.processor.fsgsbase {
            continue;
        }
        rig.processor.fsgsbase = fsgsbase;
        let fault = rig.memory.start + 5;
        rig.set(libc::REG_RCX, 0x1_0000_0001);
        // add [rax+4], ecx
        let outcome = blocked(|| rig.run(&[0x01, 0x48, 0x04], Code::Add_rm32_r32, fault));
        assert_eq!(outcome, Ok(Outcome::Done));
        assert_eq!(rig.memory.bytes[3..9], [0xee, 0xef, 0xee, 0xee, 0xee, 0xee]);
        assert_eq!(rig.log(), [(4, 4)]);
        // Thread-local storage is where it was.
        assert_eq!(rig.processor.segment_base(false), crate::sys::segment_base(false));
    }
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn without_membarrier_each_use_serialises() {
    let mut rig = real();
    super::stubs::pretend_to_be_an_old_kernel();
    let fault = rig.memory.start;
    for amount in 1..100u8 {
        rig.memory.bytes[0] = 100;
        // add byte ptr [rax], imm8
        let outcome = blocked(|| rig.run(&[0x80, 0x00, amount], Code::Add_rm8_imm8, fault));
        assert_eq!((outcome, rig.memory.bytes[0]), (Ok(Outcome::Done), 100 + amount));
    }
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn without_xsave_x87_state_is_carried_by_fxsave() {
    let mut rig = real();
    rig.area.0[464..512].fill(0);
    rig.area.0[..2].copy_from_slice(&0x37fu16.to_le_bytes());
    rig.area.0[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    // One number on the stack: 1.0, on top.
    rig.area.0[2..5].copy_from_slice(&[0, 0x38, 0x80]);
    rig.area.0[32..42].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
    let fault = rig.memory.start;
    // fstp qword ptr [rax]
    let outcome = blocked(|| rig.run(&[0xdd, 0x18], Code::Fstp_m64fp, fault));
    assert_eq!(outcome, Ok(Outcome::Done));
    assert_eq!(rig.memory.bytes[..8], 1f64.to_le_bytes());
    // It was popped: the top is 0 and nothing is valid.
    assert_eq!(rig.area.0[2..5], [0, 0, 0]);
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn an_optimistic_operation_is_tried_again() {
    // CMPccXADD is on few processors; what the loop needs of it, any instruction has that reads and writes.
    let mut rig = real();
    let fault = rig.memory.start;
    rig.memory.bytes[0] = 5;
    rig.memory.interference = vec![9];
    rig.set(libc::REG_RCX, 2);
    let code = [0x0f, 0xc0, 0x08];
    let (instruction, _) = decode_bytes(&code, 0, false);
    let mut plan = plan::plan(&instruction, &Writes::new());
    plan.action = plan::Action::Optimistic { width: 1 };
    let mut bytes = [0; 16];
    bytes[..3].copy_from_slice(&code);
    let site = Site { rip: 0, code: CodeBytes::new(bytes, 3), plan };
    let machine = Machine::new(&mut rig.context, &rig.processor);
    let mut trap = Trap { machine, fault, sink: &mut rig.memory, site: &site, held: None, blocked: 0 };
    assert_eq!(blocked(|| carry_out(&mut trap)), Ok(Outcome::Done));
    // xadd [rax], cl found 5, was told 9, and made 11 of that.
    assert_eq!(rig.memory.bytes[0], 11);
    assert_eq!(rig.context.gregs[libc::REG_RCX as usize], 9);
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn what_cannot_be_carried_out_is_refused_before_anything_happens() {
    let mut rig = real();
    let fault = rig.memory.start;
    let before = rig.memory.bytes.clone();
    // tilestored [rax+rcx], tmm0; enqcmd is to an address in a register.
    let refusals: [(&[u8], Code); 3] = [
        (&[0xc4, 0xe2, 0x7a, 0x4b, 0x04, 0x08], Code::VEX_Tilestored_sibmem_tmm),
        (&[0xf2, 0x0f, 0x38, 0xf8, 0x00], Code::Enqcmd_r64_m512),
        (&[0xff, 0x18], Code::Call_m1632),
    ];
    for (code, expected) in refusals {
        assert!(rig.run(code, expected, fault).is_err());
    }
    // lock add fs:[rax], ecx, with FS far above the region: refused before it becomes an operation.
    let far = rig.processor.segment_base(false);
    let low = usize::try_from(0x1000u64.wrapping_sub(far)).expect("64 bits");
    rig.set(libc::REG_RAX, low);
    rig.memory.start = 0x1000;
    let outcome = rig.run(&[0xf0, 0x64, 0x01, 0x08], Code::Add_rm32_r32, 0x1000);
    assert_eq!(outcome, Err("its operand is too far from its segment"));
    assert_eq!(rig.memory.bytes, before);
    assert_eq!(rig.log(), []);
}

#[test]
#[cfg_attr(miri, ignore = "runs instructions")]
fn a_line_of_zeros_and_sixty_four_bytes_at_once() {
    let mut rig = real();
    // movdir64b rcx, [rax]
    let start = rig.memory.start.next_multiple_of(64);
    rig.set(libc::REG_RCX, start + 128);
    rig.memory.bytes[..64].copy_from_slice(&std::array::from_fn::<u8, 64, _>(|index| index as u8));
    let code = [0x66, 0x0f, 0x38, 0xf8, 0x08];
    assert_eq!(rig.run(&code, Code::Movdir64b_r64_m512, start + 130), Ok(Outcome::Done));
    let at = start + 128 - rig.memory.start;
    assert_eq!(rig.log(), [(at, 64)]);
    assert_eq!(rig.memory.bytes[at..at + 64], std::array::from_fn::<u8, 64, _>(|index| index as u8));
    rig.set(libc::REG_RAX, start + 130);
    assert_eq!(rig.run(&[0x0f, 0x01, 0xfc], Code::Clzeroq, start + 128), Ok(Outcome::Done));
    assert_eq!(rig.log(), [(at, 64)]);
    assert_eq!(rig.memory.bytes[at..at + 64], [0; 64]);
}
