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
    let (here, there) = (a.array::<u64>("w", 512).unwrap(), b.array::<u64>("w", 512).unwrap());
    let to = here.as_ptr();
    for round in 0..3u64 {
        FORBIDDEN.set(true);
        // SAFETY: within the array; traps, and is carried out.
        unsafe { asm!("mov [rdi], rsi", in("rdi") to, in("rsi") round + 1, options(nostack)) };
        // SAFETY: as above.
        unsafe { asm!("movdqu [rdi + 64], xmm0", in("rdi") to, options(nostack)) };
        // SAFETY: as above.
        unsafe { asm!("add qword ptr [rdi + 128], 5", in("rdi") to, options(nostack)) };
        // SAFETY: as above.
        unsafe { asm!("lock xadd [rdi + 136], rsi", in("rdi") to, inout("rsi") 3u64 => _, options(nostack)) };
        // SAFETY: as above.
        unsafe {
            asm!("rep stosb", inout("rdi") to.wrapping_add(20) => _, inout("rcx") 777usize => _, in("al") 1u8, options(nostack))
        };
        FORBIDDEN.set(false);
    }
    common::eventually("all arrives", || there.to_vec() == here.to_vec() && there.get(16) == 15 && there.get(17) == 9);
    drop((a, b));
}
