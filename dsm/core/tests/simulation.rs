//! Deterministic simulation of whole sessions in one thread: the real log, replica, sequencer, semaphores, barriers
//! and frames, under every fault that we know of, against a reference of what the operations mean.
//!
//! Every history is drawn from a seed. `DSM_SEEDS` says how many (10,000), `DSM_SEED` which is the first; a history
//! that fails says how to run it again.
#![cfg(not(loom))]

#[path = "simulation/host.rs"]
mod host;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/threads.rs"]
mod threads;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use world::World;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// One history. Rings and indexes of several sizes: small ones wrap, collide and fill up all the time.
fn history(seed: u64) -> usize {
    fn run<const RING: usize, const INDEX: usize>(seed: u64) -> usize {
        let mut world = World::<RING, INDEX>::new(seed);
        world.run();
        world.steps
    }
    match seed % 4 {
        0 => run::<64, 16>(seed),
        1 => run::<256, 8>(seed),
        2 => run::<1024, 64>(seed),
        _ => run::<2048, 64>(seed),
    }
}

#[test]
fn every_history_is_one_total_order() {
    let (first, count) = (number("DSM_SEED", 1), number("DSM_SEEDS", 10_000));
    let (next, done, steps) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let running: Vec<_> = (0..workers).map(|_| AtomicU64::new(u64::MAX)).collect();
    let left = AtomicUsize::new(workers);
    std::thread::scope(|scope| {
        for current in &running {
            let (next, done, steps, failed, left) = (&next, &done, &steps, &failed, &left);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= first.saturating_add(count) || !failed.lock().expect("not poisoned").is_empty() {
                        break;
                    }
                    current.store(seed, SeqCst);
                    match catch_unwind(AssertUnwindSafe(|| history(seed))) {
                        Ok(taken) => _ = steps.fetch_add(taken as u64, SeqCst),
                        Err(_) => failed.lock().expect("not poisoned").push(seed),
                    }
                    done.fetch_add(1, SeqCst);
                }
                left.fetch_sub(1, SeqCst);
            });
        }
        // The watchdog: a history takes milliseconds.
        let (mut seen, mut since) = (u64::MAX, Instant::now());
        while left.load(SeqCst) != 0 {
            std::thread::park_timeout(Duration::from_millis(20));
            let now = done.load(SeqCst);
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() > Duration::from_secs(60) {
                eprintln!("no history ended for a minute; running: {running:?}");
                std::process::abort();
            }
        }
    });
    let failed = failed.into_inner().expect("not poisoned");
    if let Some(seed) = failed.first() {
        panic!(
            "seed {seed} fails; again: DSM_SEED={seed} DSM_SEEDS=1 cargo test -p dsm-core --test simulation -- --nocapture"
        );
    }
    let leased = threads::LEASED.load(SeqCst);
    assert!(leased > 0 || count < 1000, "nothing was done under the lease");
    println!("{leased} atomics under the lease");
    println!("{} histories, {} steps, {:.1?}", done.into_inner(), steps.into_inner(), begun.elapsed());
}
