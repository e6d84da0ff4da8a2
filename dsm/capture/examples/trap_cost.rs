//! What a captured store costs, next to a signal that does nothing.
//!
//! Run it with `cargo run --release -p dsm-capture --example trap_cost`.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{PAGE, Region};
use dsm_capture::{Sink, carry_out};
use dsm_core::op::AtomicOp;
use std::arch::asm;
use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const ROUNDS: u32 = 200_000;

/// The least of seven rounds, in nanoseconds for each call.
fn measure(mut body: impl FnMut()) -> f64 {
    let round = |body: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| body());
        start.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
    };
    (0..7).map(|_| round(&mut body)).fold(f64::INFINITY, f64::min)
}

/// How often the handler below carries the store out before it returns.
static REPEATS: AtomicU64 = AtomicU64::new(0);
/// How long that took.
static SPENT: AtomicU64 = AtomicU64::new(0);

/// A sink that keeps nothing: what is left is the engine.
struct Nowhere;

impl Sink for Nowhere {
    fn writable(&self, _address: usize, _len: usize) -> bool {
        true
    }

    fn store(&mut self, address: usize, bytes: &[u8]) {
        black_box((address, bytes));
    }

    fn atomic(&mut self, address: usize, op: AtomicOp) -> u128 {
        black_box(address);
        op.operand
    }
}

/// Carries out the store at fault `REPEATS` times, and in the end skips its three bytes.
extern "C" fn repeat(_signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel's record of the signal.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV has an address.
    let fault = unsafe { info.si_addr() }.addr();
    // SAFETY: the kernel's frame; no reference to the whole of libc's longer type.
    let rip = unsafe { &raw mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
    // SAFETY: only this handler uses it.
    let start = unsafe { rip.read() };
    let clock = Instant::now();
    let repeats = REPEATS.load(Ordering::Relaxed);
    for _ in 0..repeats {
        // SAFETY: as above.
        unsafe { rip.write(start) };
        // SAFETY: this is the handler, with all signals blocked, on a large stack.
        assert!(unsafe { carry_out(context, fault, &mut Nowhere) }.is_ok());
    }
    SPENT.fetch_add(clock.elapsed().as_nanos() as u64, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { rip.write(start + 3) };
}

/// Has `repeat` handle faults while `body` runs.
fn with_repeat<T>(repeats: u64, body: impl FnOnce() -> T) -> T {
    REPEATS.store(repeats, Ordering::Relaxed);
    // SAFETY: zeros are valid in these C structures.
    let [mut action, mut old]: [libc::sigaction; 2] = unsafe { std::mem::zeroed() };
    action.sa_sigaction = repeat as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: a set of signals is plain bits.
    unsafe { std::ptr::write_bytes(&raw mut action.sa_mask, 0xff, 1) };
    // SAFETY: the handler is as the kernel expects.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut old) };
    let result = body();
    // SAFETY: what was installed before.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const old, std::ptr::null_mut()) };
    result
}

/// Nanoseconds that the engine itself takes for the store in `body`.
fn inside(body: impl FnMut() + Copy) -> f64 {
    const REPEATS: u64 = 1000;
    with_repeat(REPEATS, || {
        let round = || {
            SPENT.store(0, Ordering::Relaxed);
            (0..100).for_each(|_| { body }());
            SPENT.load(Ordering::Relaxed) as f64 / (100 * REPEATS) as f64
        };
        (0..7).map(|_| round()).fold(f64::INFINITY, f64::min)
    })
}

fn plain(place: *mut u64) {
    // SAFETY: the store is captured or skipped. It has three bytes.
    unsafe { asm!("mov [rdi], rax", in("rdi") place, in("rax") 1u64, options(nostack)) };
}

fn main() {
    let clock = Instant::now();
    dsm_capture::warm();
    println!("warming up                          {:8.0} us", clock.elapsed().as_secs_f64() * 1e6);
    let region = Region::new(2);
    let place = region.at::<u64>(64);
    let floor = with_repeat(0, || measure(|| plain(place)));
    println!("a signal and back                   {floor:8.0} ns");
    let report = |what: &str, cost: f64| {
        println!("{what:<35} {cost:8.0} ns   {:+6.0} over the signal", cost - floor);
    };
    report("mov [mem], reg", measure(|| plain(place)));
    // SAFETY: in all of these the stores are captured.
    report("movups [mem], xmm", measure(|| unsafe { asm!("movups [{}], xmm0", in(reg) place, options(nostack)) }));
    // SAFETY: as above.
    report("add [mem], reg (displaced)", measure(|| unsafe { asm!("add [{}], rax", in(reg) place) }));
    // SAFETY: as above.
    report("fnstcw [mem] (displaced, all state)", measure(|| unsafe { asm!("fnstcw [{}]", in(reg) place) }));
    // SAFETY: as above.
    report("lock add [mem], reg", measure(|| unsafe { asm!("lock add [{}], rax", in(reg) place) }));
    // SAFETY: as above.
    let fill = || unsafe { asm!("rep stosb", inout("rdi") place => _, inout("rcx") PAGE => _, in("al") 1u8) };
    report("rep stosb, 4096 bytes, two pages", measure(fill));
    println!("the engine alone, without signal and sink:");
    println!("  mov [mem], reg                    {:8.1} ns", inside(|| plain(place)));
    // SAFETY: as above. These two have three bytes each.
    let vector = || unsafe { asm!("movups [rdi], xmm0", in("rdi") place, options(nostack)) };
    println!("  movups [mem], xmm                 {:8.1} ns", inside(vector));
    // SAFETY: as above.
    let add = || unsafe { asm!("add [rdi], rax", in("rdi") place, options(nostack)) };
    println!("  add [mem], reg (displaced)        {:8.1} ns", inside(add));
    region.count();
}
