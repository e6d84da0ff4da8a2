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

pub fn run(session: &Session, scale: f64, mut show: impl FnMut(Figure)) -> dsm::Result<()> {
    let rounds = |count: f64| (count * scale).max(1.0) as usize;
    let words = session.array::<u64>("bench.local", 512)?;
    let private = vec![0u64; 512];

    let many = rounds(20e6);
    let base = private.as_ptr();
    let bare = time(many, |i| {
        // SAFETY: within the 512 elements.
        let word = unsafe { base.add(i & 511) };
        // SAFETY: as above.
        black_box(unsafe { word.read_volatile() });
    });
    let read = time(many, |i| {
        black_box(words.get(i & 511));
    });
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

    let some = rounds(200e3);
    let bare = floor::bare_trap(some);
    let pointer = words.as_ptr();
    let trapped = time(some, |i| {
        // SAFETY: a mapped word of the view; the store traps and is carried out by the library.
        unsafe { std::arch::asm!("mov [rax], rdx", in("rax") pointer, in("rdx") i, options(nostack)) };
    });
    show(Figure::new("store.trapped", "ns", trapped, bare, "a bare SIGSEGV and return"));
    session.fence()
}
