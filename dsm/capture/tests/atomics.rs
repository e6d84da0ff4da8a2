//! Instructions that read what they write, locked and not, and the odd ones.

mod common;

use common::{ATOMIC, PAGE, Region};
use std::arch::asm;
use std::sync::atomic::{AtomicI16, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};

fn atomic<T>(region: &'static Region, offset: usize) -> &'static T {
    // SAFETY: the view stays mapped, and the atomics have no invalid values.
    unsafe { &*region.at::<T>(offset) }
}

#[test]
fn plain_read_modify_writes_set_registers_and_flags() {
    let region = Region::new(1);
    region.fill(0, &u64::MAX.to_le_bytes());
    region.fill(8, &0x80u64.to_le_bytes());
    let (carry, zero, old): (u8, u8, u64);
    // SAFETY: the stores are captured.
    unsafe {
        asm!("add qword ptr [{p}], 1", "setc {c}", "setz {z}", "sbb dword ptr [{p} + 8], 0x7f", "xadd [{p} + 16], {o}",
            "shl byte ptr [{p} + 8], 7", "bts qword ptr [{p}], {b}", "not word ptr [{p} + 32]",
            p = in(reg) region.at::<u8>(0), c = out(reg_byte) carry, z = out(reg_byte) zero,
            o = inout(reg) 5u64 => old, b = in(reg) 24 * 8 + 3u64)
    };
    assert_eq!((carry, zero, old), (1, 1, 0));
    assert_eq!((region.word(0), region.word(8), region.word(16), region.word(24)), (0, 0, 5, 8));
    assert_eq!(region.bytes(32, 3), [0xff, 0xff, 0]);
    assert_eq!(region.log(), [(0, 8), (8, 4), (16, 8), (8, 1), (24, 8), (32, 2)]);
}

#[test]
fn operands_that_name_the_stack_pointer_or_the_instruction_pointer() {
    let region = Region::new(1);
    let base = region.at::<u8>(64);
    // SAFETY: RSP is put back before anything else uses it.
    unsafe {
        asm!("mov r12, rsp", "mov rsp, {p}", "add qword ptr [rsp], 3", "or [rsp + 8], rsp", "add qword ptr [rsp], rsp",
            "mov rsp, r12", p = in(reg) base, out("r12") _)
    };
    assert_eq!((region.word(64), region.word(72)), (base as u64 + 3, base as u64));
}

#[test]
fn std_atomics_become_operations() {
    let region = Region::new(1);
    let word: &AtomicU64 = atomic(region, 8);
    assert_eq!(word.fetch_add(5, SeqCst), 0);
    assert_eq!(word.swap(9, SeqCst), 5);
    assert_eq!(word.compare_exchange(9, 10, SeqCst, SeqCst), Ok(9));
    assert_eq!(word.compare_exchange(9, 11, SeqCst, SeqCst), Err(10));
    word.store(12, SeqCst);
    assert_eq!(word.fetch_sub(1, SeqCst), 12);
    assert_eq!(word.fetch_or(0x100, SeqCst), 11);
    assert_eq!(word.fetch_max(1 << 40, SeqCst), 0x10b);
    assert_eq!(region.word(8), 1 << 40);
    let lens: Vec<usize> = region.log().iter().map(|(_, len)| *len).collect();
    assert!(lens.iter().all(|len| *len == ATOMIC + 8), "{lens:?}");
    let (byte, half): (&AtomicU8, &AtomicI16) = (atomic(region, 1), atomic(region, 2));
    assert_eq!((byte.fetch_add(255, SeqCst), byte.fetch_add(2, SeqCst)), (0, 255));
    assert_eq!((half.fetch_sub(1, SeqCst), half.fetch_and(0xff, SeqCst)), (0, -1));
    assert_eq!(region.bytes(0, 5), [0, 1, 0xff, 0, 0]);
    assert_eq!(atomic::<AtomicU32>(region, 4).fetch_xor(3, SeqCst), 0);
}

#[test]
fn locked_instructions_leave_the_processors_flags() {
    let region = Region::new(1);
    region.fill(0, &0xffu64.to_le_bytes());
    let (carry, bit, old): (u8, u8, u64);
    // SAFETY: as above.
    unsafe {
        asm!("stc", "lock adc byte ptr [{p}], 0", "setc {c}", "lock btr qword ptr [{p} + 8], {b}", "setc {t}",
            "mov {o}, 7", "lock xadd [{p} + 32], {o}", "lock neg dword ptr [{p} + 32]", "lock not dword ptr [{p} + 32]",
            p = in(reg) region.at::<u8>(0), c = out(reg_byte) carry, t = out(reg_byte) bit, b = in(reg) 65u64,
            o = out(reg) old)
    };
    assert_eq!((carry, bit, old), (1, 0, 0));
    assert_eq!((region.word(0), region.word(32)), (0, 6));
    let log: Vec<_> = region.log();
    assert_eq!(log[..2], [(0, ATOMIC + 1), (16, ATOMIC + 8)]);
    let (low, high, equal): (u64, u64, u8);
    region.fill(64, &[1; 16]);
    // SAFETY: as above; RBX is put back.
    unsafe {
        asm!("xchg rbx, {n}", "lock cmpxchg16b [{p}]", "setz {e}", "lock cmpxchg16b [{p}]", "mov rbx, {n}",
            p = in(reg) region.at::<u8>(64), n = inout(reg) 3u64 => _, e = out(reg_byte) equal,
            inout("rax") 0u64 => low, inout("rdx") 0u64 => high, in("rcx") 4u64)
    };
    assert_eq!((low, high, equal), (0x0101_0101_0101_0101, 0x0101_0101_0101_0101, 0));
    assert_eq!((region.word(64), region.word(72)), (3, 4));
}

#[test]
fn x87_and_control_words() {
    let region = Region::new(1);
    let (mut control, mut csr) = (0u16, 0u32);
    // SAFETY: as above; what is pushed is popped.
    unsafe {
        asm!("fldpi", "fld1", "fstp qword ptr [{p}]", "fstp tbyte ptr [{p} + 16]", "fnstcw [{p} + 32]", "fnstcw [{c}]",
            "stmxcsr [{p} + 36]", "stmxcsr [{s}]", "fld1", "fistp word ptr [{p} + 40]", p = in(reg) region.at::<u8>(0),
            c = in(reg) &raw mut control, s = in(reg) &raw mut csr, out("st(0)") _, out("st(1)") _, out("st(2)") _,
            out("st(3)") _, out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _)
    };
    assert_eq!(region.word(0), 1f64.to_bits());
    assert_eq!(region.bytes(16, 11), [0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0x00, 0x40, 0]);
    assert_eq!(region.bytes(32, 2), control.to_le_bytes());
    assert_eq!(region.bytes(36, 4), csr.to_le_bytes());
    assert_eq!(region.bytes(40, 2), [1, 0]);
    assert_eq!(region.log(), [(0, 8), (16, 10), (32, 2), (36, 4), (40, 2)]);
}

#[test]
fn saving_all_registers_writes_only_what_the_processor_writes() {
    let region = Region::new(2);
    region.fill(0, &[0x11; 2 * PAGE]);
    // SAFETY: as above; nothing is restored.
    unsafe { asm!("fxsave64 [{p}]", p = in(reg) region.at::<u8>(0)) };
    let runs = region.log();
    let last = runs.last().expect("something was written");
    assert!(last.0 + last.1 <= 464, "the bytes for software stay: {runs:?}");
    assert_eq!(region.bytes(464, 48), [0x11; 48]);
    if is_x86_feature_detected!("xsavec") {
        // SAFETY: as above.
        unsafe { asm!("xsavec64 [{p}]", p = in(reg) region.at::<u8>(1024), in("eax") 7, in("edx") 0) };
        let written = region.log();
        assert!(written.contains(&(1024 + 512, 16)) || written.iter().any(|(at, len)| at + len == 1024 + 528));
        assert_eq!(region.bytes(1024 + 528, 48), [0x11; 48]);
        assert_eq!(region.bytes(1024 + 519, 2), [0, 7]);
    }
}

#[test]
fn threads_trap_at_the_same_time() {
    const THREADS: usize = 8;
    const ROUNDS: u64 = 10_000;
    let region = Region::new(1);
    let body = |thread: usize| {
        common::prepare_thread();
        let own = region.at::<u64>(64 * (thread + 1));
        let shared: &AtomicU64 = atomic(region, 0);
        for round in 1..=ROUNDS {
            // A move, a displaced addition, and every tenth time an atomic, from the same sites in all threads.
            // SAFETY: the stores are captured.
            unsafe { own.write_volatile(round) };
            // SAFETY: as above.
            unsafe { asm!("add [{p}], {r}", p = in(reg) own.wrapping_add(1), r = in(reg) round) };
            if round.is_multiple_of(10) {
                shared.fetch_add(thread as u64, SeqCst);
            }
            // SAFETY: inside the view.
            assert_eq!(unsafe { own.read_volatile() }, round);
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|thread| drop(scope.spawn(move || body(thread)))));
    for thread in 1..=THREADS {
        assert_eq!(region.word(64 * thread), ROUNDS);
        assert_eq!(region.word(64 * thread + 8), ROUNDS * (ROUNDS + 1) / 2);
    }
    assert_eq!(region.word(0), ROUNDS / 10 * (0..THREADS as u64).sum::<u64>());
}

#[test]
fn more_sites_than_the_engine_remembers() {
    const SITES: usize = 3000;
    const THREADS: usize = 4;
    const ROUNDS: usize = 6000;
    let region = Region::new(1);
    // Each site is `add qword ptr [rdi], imm8; ret`.
    let len = (SITES * 8).next_multiple_of(PAGE);
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let code = common::map(0, len, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, anonymous, -1);
    let amount = |site: usize| (site % 100 + 1) as u8;
    for site in 0..SITES {
        let place = std::ptr::with_exposed_provenance_mut::<[u8; 8]>(code + site * 8);
        // SAFETY: inside the mapping.
        unsafe { place.write([0x48, 0x83, 0x07, amount(site), 0xc3, 0xcc, 0xcc, 0xcc]) };
    }
    let body = |thread: usize| {
        common::prepare_thread();
        let mut sum = 0;
        for round in 0..ROUNDS {
            // All threads are near each other, so that they replace each other's sites.
            let site = (round * 7 + thread) % SITES;
            // SAFETY: the code is as written above; the store is captured.
            unsafe { asm!("call {c}", c = in(reg) code + site * 8, in("rdi") region.at::<u64>(8 * thread)) };
            sum += u64::from(amount(site));
        }
        assert_eq!(region.word(8 * thread), sum);
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|thread| drop(scope.spawn(move || body(thread)))));
    assert_eq!(region.count(), THREADS * ROUNDS);
}

#[test]
fn a_forked_child_makes_its_own_copies() {
    let region = Region::new(1);
    let add = |offset: usize| {
        // SAFETY: captured.
        unsafe { asm!("add qword ptr [{p}], 1", p = in(reg) region.at::<u8>(offset)) }
    };
    add(0);
    // SAFETY: the child only stores, checks and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        add(8);
        add(8);
        // SAFETY: ends the child without running anything of the test harness.
        unsafe { libc::_exit(i32::from(region.word(8) != 2)) };
    }
    add(0);
    let mut status = 0;
    // SAFETY: waits for our child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!((region.word(0), region.word(8)), (2, 2));
}
