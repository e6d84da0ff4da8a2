//! What stays on one host: loads, stores at both doors, atomics under the lease.

use super::{Figure, floor, median};
use dsm::prelude::*;
use std::hint::black_box;
use std::time::Instant;

#[dsm::shared]
struct Board {
    turn: u64,
    phase: u64,
}

/// Stores in a burst. The ring holds them: what is measured is what a store costs the program, not how fast the arbiter
/// ships them, which `updates.2hosts` shows.
const BURST: usize = 50_000;
/// Rounds, of the measured and of its floor in turn: the machine's mood changes faster than a run ends.
const TURNS: usize = 9;

/// What everything here needs.
struct Bench<'a> {
    session: &'a Session,
    scale: f64,
}

type Measured = dsm::Result<Figure>;
type Measure = fn(&Bench<'_>) -> Measured;

/// Every figure, by name.
const FIGURES: [(&str, Measure); 8] = [
    ("read", read),
    ("accessor.get", accessor_get),
    ("store.direct", store_direct),
    ("accessor.set", accessor_set),
    ("store.trapped", store_trapped),
    ("store.trapped512", store_trapped_512),
    ("store.contended", store_contended),
    ("atomic.leased", atomic_leased),
];

/// Measures what is wanted.
pub fn run(
    session: &Session,
    scale: f64,
    wanted: &dyn Fn(&str) -> bool,
    mut show: impl FnMut(Figure),
) -> dsm::Result<()> {
    let bench = Bench { session, scale };
    for (name, measure) in FIGURES {
        let possible = name != "store.trapped512" || std::arch::is_x86_feature_detected!("avx512f");
        if wanted(name) && possible {
            show(measure(&bench)?);
        }
    }
    session.fence()
}

/// Is anything of this module wanted?
pub fn wanted(filter: &dyn Fn(&str) -> bool) -> bool {
    FIGURES.iter().any(|(name, _)| filter(name))
}

/// Nanoseconds a call.
fn time(rounds: usize, call: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    (0..rounds).for_each(call);
    start.elapsed().as_nanos() as f64 / rounds as f64
}

/// Medians of both, measured in turn.
fn in_turn(mut measured: impl FnMut() -> f64, mut floor: impl FnMut() -> f64) -> (f64, f64) {
    let (values, floors): (Vec<_>, Vec<_>) = (0..TURNS).map(|_| (measured(), floor())).unzip();
    (median(values), median(floors))
}

impl Bench<'_> {
    fn rounds(&self, count: f64) -> usize {
        (count * self.scale).max(1.0) as usize
    }

    /// Nanoseconds a call, beside the floor's; everything that was stored before a burst is shipped before it begins.
    fn bursts(&self, mut call: impl FnMut(u64), floor: impl FnMut() -> f64) -> dsm::Result<(f64, f64)> {
        let count = self.rounds(10.0);
        let mut failed = None;
        let burst = || {
            let one = || {
                failed = self.session.fence().err().or(failed.take());
                time(BURST, |round| call(round as u64))
            };
            median(std::iter::repeat_with(one).take(count).collect())
        };
        let figures = in_turn(burst, floor);
        failed.map_or(Ok(figures), Err)
    }
}

fn read(bench: &Bench<'_>) -> Measured {
    let words = bench.session.array::<u64>("bench.local", 512)?;
    let private = vec![0u64; 512];
    // As a slice of unknown length, which is what the other is too. Both by value: what a closure borrows, `black_box`
    // makes it load anew every time.
    let slice = black_box(private.as_slice());
    let many = bench.rounds(5e6);
    let (value, floor) = in_turn(
        || time(many, move |i| _ = black_box(words.get(i & 511))),
        || time(many, move |i| _ = black_box(slice[i & 511])),
    );
    Ok(Figure::new("read", "ns", value, floor, "a load of private memory"))
}

fn accessor_get(bench: &Bench<'_>) -> Measured {
    let board = bench.session.open::<Board>("bench.board")?;
    let private = std::sync::atomic::AtomicU64::new(0);
    let private = &private;
    let many = bench.rounds(5e6);
    let (value, floor) = in_turn(
        || time(many, move |_| _ = black_box(board.phase())),
        || time(many, move |_| _ = black_box(private.load(std::sync::atomic::Ordering::Relaxed))),
    );
    Ok(Figure::new("accessor.get", "ns", value, floor, "a load of a private field"))
}

fn store_direct(bench: &Bench<'_>) -> Measured {
    let word = bench.session.array::<u64>("bench.local", 512)?.at(7);
    let (value, floor) = bench.bursts(|i| word.set(i), || floor::locked(bench.rounds(1e6)))?;
    Ok(Figure::new("store.direct", "ns", value, floor, "a compare-exchange and a store"))
}

fn accessor_set(bench: &Bench<'_>) -> Measured {
    let board = bench.session.open::<Board>("bench.board")?;
    let (value, floor) = bench.bursts(|i| board.set_turn(i), || floor::locked(bench.rounds(1e6)))?;
    Ok(Figure::new("accessor.set", "ns", value, floor, "a compare-exchange and a store"))
}

fn store_trapped(bench: &Bench<'_>) -> Measured {
    let pointer = bench.session.array::<u64>("bench.local", 512)?.as_ptr();
    let some = bench.rounds(50e3);
    let trapped = || {
        time(some, |i| {
            // SAFETY: a mapped word of the view; the store traps and is carried out by the library.
            unsafe { std::arch::asm!("mov [rax], rdx", in("rax") pointer, in("rdx") i, options(nostack)) };
        })
    };
    let bare = || {
        floor::bare_trap::<3>(some, |page| {
            // SAFETY: faults, and the handler steps over it: nothing is stored.
            unsafe { std::arch::asm!("mov [rax], rdx", in("rax") page, in("rdx") 1u64, options(nostack)) };
        })
    };
    let (value, floor) = in_turn(trapped, bare);
    Ok(Figure::new("store.trapped", "ns", value, floor, "a bare SIGSEGV and return"))
}

fn store_trapped_512(bench: &Bench<'_>) -> Measured {
    let pointer = bench.session.array::<u64>("bench.local", 512)?.as_ptr();
    let some = bench.rounds(50e3);
    let trapped = || {
        time(some, |_| {
            // SAFETY: 64 mapped bytes of the view; the store traps and is carried out by the library.
            unsafe { std::arch::asm!("vmovdqu64 [rax], zmm0", in("rax") pointer, options(nostack)) };
        })
    };
    let bare = || {
        floor::bare_trap::<6>(some, |page| {
            // SAFETY: faults, and the handler steps over it; the processor has the instruction (`run` has asked).
            unsafe { std::arch::asm!("vmovdqu64 [rax], zmm0", in("rax") page, options(nostack)) };
        })
    };
    let (value, floor) = in_turn(trapped, bare);
    Ok(Figure::new("store.trapped512", "ns", value, floor, "a bare SIGSEGV of the same instruction"))
}

fn store_contended(bench: &Bench<'_>) -> Measured {
    let word = bench.session.array::<u64>("bench.local", 512)?.at(7);
    let fence = || _ = bench.session.fence();
    let (value, floor) =
        in_turn(|| floor::two_threads(BURST, &|value| word.set(value), fence), || floor::contended_lock(BURST));
    Ok(Figure::new("store.contended", "ns", value, floor, "a bare spin lock with the same body"))
}

fn atomic_leased(bench: &Bench<'_>) -> Measured {
    let counter = bench.session.array::<u64>("bench.local", 512)?.atomic(9);
    let native = std::sync::atomic::AtomicU64::new(0);
    let native = &native;
    let many = bench.rounds(1e6);
    let bare = || time(many, move |_| _ = black_box(native.fetch_add(1, std::sync::atomic::Ordering::SeqCst)));
    let (value, floor) = bench.bursts(|_| _ = black_box(counter.fetch_add(1, SeqCst)), bare)?;
    Ok(Figure::new("atomic.leased", "ns", value, floor, "a fetch_add on private memory"))
}
