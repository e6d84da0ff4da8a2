//! What stays on one host: loads, stores at both doors.

use super::{Figure, floor, median};
use dsm::prelude::*;
use std::hint::black_box;
use std::time::Instant;

/// Stores in a burst.
const BURST: usize = 50_000;

/// Nanoseconds a call, as the median of five runs.
fn time(rounds: usize, mut call: impl FnMut(usize)) -> f64 {
    let runs = (0..5).map(|_| {
        let start = Instant::now();
        (0..rounds).for_each(&mut call);
        start.elapsed().as_nanos() as f64 / rounds as f64
    });
    median(runs.collect())
}

pub fn run(
    session: &Session,
    scale: f64,
    wanted: &dyn Fn(&str) -> bool,
    mut show: impl FnMut(Figure),
) -> dsm::Result<()> {
    let rounds = |count: f64| (count * scale).max(1.0) as usize;
    let words = session.array::<u64>("bench.local", 512)?;
    let private = vec![0u64; 512];

    let many = if wanted("read") { rounds(20e6) } else { 1 };
    // As a slice of unknown length, which is what the other is too.
    let slice = black_box(private.as_slice());
    // Both by value: what a closure borrows, `black_box` makes it load anew every time.
    let bare = time(many, move |i| _ = black_box(slice[i & 511]));
    let read = time(many, move |i| _ = black_box(words.get(i & 511)));
    show(Figure::new("read", "ns", read, bare, "a load of private memory"));

    let many = rounds(5e6);
    let locked = floor::locked(many);
    let word = words.at(7);
    // In bursts that the ring holds: what a store costs the program, not how fast the arbiter ships them, which
    // `updates.2hosts` shows.
    let mut bursts = Vec::new();
    for _ in 0..(many / BURST).max(5) {
        session.fence()?;
        let start = Instant::now();
        (0..BURST as u64).for_each(|i| word.set(i));
        bursts.push(start.elapsed().as_nanos() as f64 / BURST as f64);
    }
    let direct = median(bursts);
    show(Figure::new("store.direct", "ns", direct, locked, "a compare-exchange and a store"));

    if !wanted("store.trapped") && !wanted("atomic") && !wanted("contended") {
        return Ok(());
    }
    let some = rounds(200e3);
    let bare = floor::bare_trap::<3>(some, |page| {
        // SAFETY: faults, and the handler steps over it: nothing is stored.
        unsafe { std::arch::asm!("mov [rax], rdx", in("rax") page, in("rdx") 1u64, options(nostack)) };
    });
    let pointer = words.as_ptr();
    let trapped = time(some, |i| {
        // SAFETY: a mapped word of the view; the store traps and is carried out by the library.
        unsafe { std::arch::asm!("mov [rax], rdx", in("rax") pointer, in("rdx") i, options(nostack)) };
    });
    show(Figure::new("store.trapped", "ns", trapped, bare, "a bare SIGSEGV and return"));
    if std::arch::is_x86_feature_detected!("avx512f") {
        let bare = floor::bare_trap::<6>(some, |page| {
            // SAFETY: as above; the processor has the instruction.
            unsafe { std::arch::asm!("vmovdqu64 [rax], zmm0", in("rax") page, options(nostack)) };
        });
        let trapped = time(some, |_| {
            // SAFETY: 64 mapped bytes of the view; the store traps and is carried out by the library.
            unsafe { std::arch::asm!("vmovdqu64 [rax], zmm0", in("rax") pointer, options(nostack)) };
        });
        show(Figure::new("store.trapped512", "ns", trapped, bare, "a bare SIGSEGV of the same instruction"));
    }

    let floor = floor::contended_lock(BURST);
    let fence = || _ = session.fence();
    let contended = floor::two_threads(BURST, &|value| word.set(value), fence);
    show(Figure::new("store.contended", "ns", contended, floor, "a bare spin lock with the same body"));

    let counter = words.atomic(9);
    let mut bursts = Vec::new();
    for _ in 0..(many / BURST).max(5) {
        session.fence()?;
        let start = Instant::now();
        (0..BURST).for_each(|_| _ = black_box(counter.fetch_add(1, SeqCst)));
        bursts.push(start.elapsed().as_nanos() as f64 / BURST as f64);
    }
    let native = std::sync::atomic::AtomicU64::new(0);
    let bare = time(many, |_| _ = black_box(native.fetch_add(1, std::sync::atomic::Ordering::SeqCst)));
    show(Figure::new("atomic.leased", "ns", median(bursts), bare, "a fetch_add on private memory"));
    session.fence()
}
