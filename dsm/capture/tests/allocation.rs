//! The fault path does not allocate: an allocator that ends the process when it is called inside the handler.

mod common;

use common::allocator::Watching;
use common::{IN_HANDLER, PAGE, Region};
use std::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering};

#[global_allocator]
static ALLOCATOR: Watching = Watching(|| IN_HANDLER.load(Ordering::Relaxed));

#[test]
fn no_kind_of_instruction_allocates() {
    let region = Region::new(2);
    for _ in 0..3 {
        // SAFETY: the stores are captured.
        unsafe {
            asm!("mov [{p}], {p}", "movups [{p} + 16], xmm0", "add qword ptr [{p}], 1", "lock xadd [{p}], {r}",
                "fnstcw [{p} + 32]", "fxsave64 [{p} + 64]", "push [{p}]", "pop [{p}]", "setz [{p}]",
                "lock cmpxchg [{p}], {r}", "shld [{p}], {r}, 3", "cmpxchg8b [{p}]",
                p = in(reg) region.at::<u8>(0), r = inout(reg) 1u64 => _, out("rax") _, out("rdx") _)
        };
        // SAFETY: as above.
        unsafe {
            asm!("rep stosb", inout("rdi") region.at::<u8>(100) => _, inout("rcx") PAGE as u64 => _, in("al") 1u8)
        };
        // SAFETY: as above.
        unsafe { libc::memcpy(region.at(700), region.at(0), 600) };
        // SAFETY: the word stays mapped.
        let word = unsafe { AtomicU64::from_ptr(region.at(1024)) };
        word.fetch_max(3, Ordering::SeqCst);
    }
    let log = region.log();
    assert!(log.len() > 45, "{log:?}");
}
