//! Nothing allocates between a trapping store and the instruction after it.

mod common;

use common::Cluster;
use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::asm;
use std::cell::Cell;

struct Watching;

thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: passes everything on to the system's allocator, or ends the process.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if FORBIDDEN.get() {
            let text = b"an allocation in the trap door\n";
            // SAFETY: writes bytes that we own.
            unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            std::process::abort();
        }
        // SAFETY: the caller's contract is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

#[test]
fn the_trap_door_allocates_nothing() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "watch"), cluster.join(1, "watch"));
    let (here, there) = (a.array::<u64>("w", 2048).unwrap(), b.array::<u64>("w", 2048).unwrap());
    let to = here.as_ptr().cast::<u8>();
    for round in 0..3u64 {
        FORBIDDEN.set(true);
        moves(to, round);
        strings(to);
        displaced(to);
        locked(to);
        stack(to);
        if is_x86_feature_detected!("avx2") {
            vectors(to);
        }
        if is_x86_feature_detected!("avx512vl") {
            masked(to);
        }
        if is_x86_feature_detected!("xsave") {
            saved(to);
        }
        FORBIDDEN.set(false);
    }
    common::eventually("all arrives", || there.to_vec() == here.to_vec() && there.get(16) == 15 && there.get(17) == 9);
    drop((a, b));
}

fn moves(to: *mut u8, round: u64) {
    // SAFETY: in all of these: within the array; traps, and is carried out.
    unsafe {
        asm!("mov [rdi], rsi", "movdqu [rdi + 63], xmm0", "setz [rdi + 80]", "movnti [rdi + 88], rsi",
            "stmxcsr [rdi + 96]", "movhps [rdi + 104], xmm0", "pextrw [rdi + 112], xmm0, 1",
            in("rdi") to, in("rsi") round + 1, options(nostack))
    };
}

fn strings(to: *mut u8) {
    // SAFETY: as above.
    unsafe {
        asm!("rep stosb", inout("rdi") to.wrapping_add(160) => _, inout("rcx") 777usize => _, in("al") 1u8,
            options(nostack))
    };
    // SAFETY: as above; the two overlap.
    unsafe {
        asm!("std", "rep movsq", "cld", inout("rdi") to.wrapping_add(9000) => _,
            inout("rsi") to.wrapping_add(8992) => _, inout("rcx") 900usize => _, options(nostack))
    };
}

fn displaced(to: *mut u8) {
    // SAFETY: as above.
    unsafe {
        asm!("add qword ptr [rdi + 128], 5", "shld [rdi + 1100], rsi, 3", "bts [rdi + 1108], rsi",
            "fld1", "fistp dword ptr [rdi + 1116]", "fnstcw [rdi + 1120]", "cmpxchg8b [rdi + 1128]",
            in("rdi") to, in("rsi") 77u64, inout("rax") 1u64 => _, inout("rdx") 2u64 => _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _,
            out("st(6)") _, out("st(7)") _)
    };
}

fn locked(to: *mut u8) {
    // SAFETY: as above; RBX is put back.
    unsafe {
        asm!("lock xadd [rdi + 136], rsi", "lock cmpxchg [rdi + 1140], rdx", "xchg [rdi + 1148], rdx",
            "lock btc [rdi + 1156], rdx", "xchg rbx, r8", "lock cmpxchg16b [rdi + 1168]", "xchg rbx, r8",
            in("rdi") to, inout("rsi") 3u64 => _, inout("rax") 0u64 => _, inout("rdx") 9u64 => _, in("rcx") 4u64,
            inout("r8") 5u64 => _, options(nostack))
    };
}

fn stack(to: *mut u8) {
    // SAFETY: as above; the handler has a stack of its own, and RSP comes back.
    unsafe {
        asm!("mov r12, rsp", "lea rsp, [rdi + 1500]", "push rdi", "push 5", "pushfq", "pop qword ptr [rdi + 1508]",
            "call 2f", "2:", "mov rsp, r12", in("rdi") to, out("r12") _)
    };
}

fn vectors(to: *mut u8) {
    // SAFETY: as above, and the caller saw AVX2.
    unsafe {
        asm!("vmovups [rdi + 1600], ymm0", "vmovdqa [rdi + 1664], ymm0", "vextracti128 [rdi + 1700], ymm0, 1",
            "vpcmpeqd xmm1, xmm1, xmm1", "vpmaskmovd [rdi + 1730], xmm1, xmm0", "vzeroupper",
            in("rdi") to, out("xmm1") _, options(nostack))
    };
}

fn masked(to: *mut u8) {
    // SAFETY: as above, and the caller saw AVX-512.
    unsafe {
        asm!("kmovw k1, esi", "vmovups [rdi + 1800], zmm0", "vmovdqu32 [rdi + 1864]{{k1}}, zmm0",
            "vpcompressd [rdi + 1930]{{k1}}, zmm0", "vpmovqb [rdi + 2000]{{k1}}, zmm0", "vpxord zmm1, zmm1, zmm1",
            "vpscatterdd [rdi + zmm1 + 2020]{{k1}}, zmm0", "kmovw [rdi + 2030], k2", "vzeroupper",
            in("rdi") to, in("esi") 0x5a5, out("k1") _, out("xmm1") _, options(nostack))
    };
}

fn saved(to: *mut u8) {
    // SAFETY: as above; nothing is restored.
    unsafe {
        asm!("fxsave64 [rdi + 4096]", "xsave64 [rdi + 8192]", in("rdi") to, in("eax") 7, in("edx") 0, options(nostack))
    };
}

#[test]
fn alignment_checks_of_the_program_do_not_concern_the_trap_door() {
    let cluster = Cluster::new();
    let session = cluster.join(0, "aligned");
    let words = session.array::<u64>("w", 64).unwrap();
    // SAFETY: within the array, and aligned; the flags are put back.
    unsafe {
        asm!("pushfq", "pushfq", "or dword ptr [rsp], 0x40000", "popfq", "mov [rdi], rsi", "add [rdi + 8], rsi",
            "lock add [rdi + 16], rsi", "popfq", in("rdi") words.as_ptr(), in("rsi") 7u64)
    };
    assert_eq!((words.get(0), words.get(1), words.get(2)), (7, 7, 7));
    drop(session);
}
