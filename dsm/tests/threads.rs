//! Threads of several processes on two hosts, all storing at once by both doors: to the same words, to neighbouring
//! bytes, to the same atomics. Everybody's own order is kept wherever it is seen, sums are exact, and in the end all
//! hosts have the same bytes.
#![allow(missing_docs, reason = "test types")]

mod common;

use common::{Cluster, PATIENCE, Process, Watch, eventually, join_by_environment, role};
use dsm::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

const PROCESSES: usize = 4;
const THREADS: usize = 3;
const WRITERS: usize = PROCESSES * THREADS;
const ROUNDS: u64 = 400;

#[dsm::shared]
pub struct Ground {
    /// Everybody stores to these: writer in the upper half, round in the lower.
    pub common: [u64; 8],
    /// Byte `w` of each 16 belongs to writer `w`.
    pub bytes: [u8; 1024],
    /// Two words for each writer, in different lines: the second is stored after the first.
    pub first: [u64; 128],
    pub second: [u64; 128],
    /// Counted by typed atomics, by those of std, and by both.
    pub sums: [u64; 3],
    pub ready: u64,
}

fn worker(ground: Shared<'_, Ground>, writer: usize) {
    let plain = |to: *mut u64, value: u64| {
        // SAFETY: a pointer into the ground; traps.
        unsafe { to.write_volatile(value) };
    };
    let (common, bytes) = (ground.common().as_ptr().cast::<u64>(), ground.bytes().as_ptr().cast::<u8>());
    let (first, second) = (ground.first().as_ptr().cast::<u64>(), ground.second().as_ptr().cast::<u64>());
    let sums = ground.sums().as_ptr().cast::<u64>();
    for round in 1..=ROUNDS {
        // Which door: every writer takes them in another rhythm.
        let by_trap = |what: u64| (round + what + writer as u64).is_multiple_of(3);
        for word in 0..8usize {
            let value = (writer as u64) << 32 | round;
            if by_trap(word as u64) {
                plain(common.wrapping_add(word), value);
            } else {
                ground.common().set(word, value);
            }
        }
        for at in (writer..1024).step_by(16 * 8) {
            if by_trap(at as u64 / 16) {
                // SAFETY: within the array; traps.
                unsafe { bytes.wrapping_add(at).write_volatile(round as u8) };
            } else {
                ground.bytes().set(at, round as u8);
            }
        }
        let at = writer * 8;
        if by_trap(1) {
            plain(first.wrapping_add(at), round);
        } else {
            ground.first().set(at, round);
        }
        if by_trap(2) {
            plain(second.wrapping_add(at), round);
        } else {
            ground.second().set(at, round);
        }
        if round % 4 == 0 {
            ground.sums().at(0).atomic().fetch_add(1, SeqCst);
            // SAFETY: within the array, aligned; locked instructions trap.
            let std = |at| unsafe { AtomicU64::from_ptr(sums.wrapping_add(at)) };
            std(1).fetch_add(1, Relaxed);
            if by_trap(3) {
                std(2).fetch_add(1, Relaxed);
            } else {
                ground.sums().at(2).atomic().fetch_add(1, SeqCst);
            }
        }
    }
}

#[test]
fn stress_worker() {
    if !role("stress_worker") {
        return;
    }
    let session = join_by_environment("stress");
    let ground = session.open::<Ground>("ground").unwrap();
    let process: usize = std::env::var("NUMBER").unwrap().parse().unwrap();
    ground.ready_atomic().fetch_add(1, SeqCst);
    session.barrier("go", PROCESSES + 1).unwrap().wait_timeout(PATIENCE).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || worker(ground, process * THREADS + thread));
        }
    });
}

/// Looks all the time, on one host, that nobody's stores are seen out of their order.
fn observe(ground: Shared<'_, Ground>, stop: &AtomicBool) -> u64 {
    let mut newest = [[0u64; WRITERS]; 8];
    let mut looks = 0;
    while !stop.load(Relaxed) {
        for (word, newest) in newest.iter_mut().enumerate() {
            let value = ground.common().get(word);
            let (writer, round) = ((value >> 32) as usize, value & 0xffff_ffff);
            assert!(round >= newest[writer], "word {word}: {round} of writer {writer} after {}", newest[writer]);
            newest[writer] = round;
        }
        for writer in 0..WRITERS {
            // The later one first: what was stored before it must be there.
            let second = ground.second().get(writer * 8);
            let first = ground.first().get(writer * 8);
            assert!(first >= second, "writer {writer}: {second} is here, and only {first} of what came before");
        }
        looks += 1;
    }
    looks
}

#[test]
fn threads_of_processes_of_two_hosts_store_at_once() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "stress"), cluster.join(1, "stress"));
    let (here, there) = (a.open::<Ground>("ground").unwrap(), b.open::<Ground>("ground").unwrap());
    let numbers: Vec<String> = (0..PROCESSES).map(|number| number.to_string()).collect();
    let workers: Vec<Process> = (0..PROCESSES)
        .map(|number| cluster.spawn(number % 2, "stress_worker", &[("NUMBER", &numbers[number])]))
        .collect();
    let go = a.barrier("go", PROCESSES + 1).unwrap();
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let observers = [here, there].map(|ground| scope.spawn(move || observe(ground, stop)));
        let start = Instant::now();
        go.wait_timeout(PATIENCE).unwrap();
        workers.into_iter().for_each(Process::succeeds);
        stop.store(true, Relaxed);
        let looks = observers.map(|observer| observer.join().unwrap());
        println!("{WRITERS} writers, {:?}, looks {looks:?}", start.elapsed());
        assert!(looks.iter().all(|looks| *looks > 10));
    });
    let sum = WRITERS as u64 * ROUNDS / 4;
    for at in 0..3 {
        assert_eq!(here.sums().at(at).atomic().fetch_add(0, SeqCst), sum, "sum {at}");
    }
    there.set_ready(0);
    eventually("the last store arrives", || here.ready() == 0);
    here.set_ready(1);
    eventually("the last store arrives", || there.ready() == 1);
    for ground in [here, there] {
        for writer in 0..WRITERS {
            assert_eq!((ground.first().get(writer * 8), ground.second().get(writer * 8)), (ROUNDS, ROUNDS));
        }
        for (at, byte) in ground.bytes().iter().enumerate() {
            let writer = at % 16;
            let owned = writer < WRITERS && at % 128 < 16;
            assert_eq!(byte, if owned { ROUNDS as u8 } else { 0 }, "byte {at}");
        }
        // Whoever was last, it was with its last round.
        assert!(ground.common().iter().all(|value| value & 0xffff_ffff == ROUNDS));
    }
    assert!(here.common().iter().eq(there.common().iter()));
    drop((a, b));
}

/// Stores of one party in a row: enough for the lock to be biased to its thread.
const BURST: u64 = 3 * dsm_core::bias::PATIENCE as u64;
const BURSTS: u64 = 30;

fn bursts(words: &Slice<'_, u64>, party: usize) {
    for burst in 1..=BURSTS {
        for store in 1..=BURST {
            words.set(party * 8, burst * BURST + store);
        }
        std::thread::yield_now();
    }
}

#[test]
fn stores_in_bursts() {
    if role("stores_in_bursts") {
        let session = join_by_environment("bursts");
        let words = session.array::<u64>("w", 64).unwrap();
        std::thread::scope(|scope| {
            for party in [2, 3] {
                scope.spawn(move || bursts(&words, party));
            }
        });
    }
}

/// Threads of two processes to which the lock is biased in turn, while remote stores come in: the number of stores, which
/// is counted under the lock without atomics, is exact, and the log makes sense to the end.
#[test]
fn favoured_threads_and_others_exclude_each_other() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "bursts"), cluster.join(1, "bursts"));
    let (here, there) = (a.array::<u64>("w", 64).unwrap(), b.array::<u64>("w", 64).unwrap());
    let watch = Watch::new(&cluster, 0, "bursts");
    let producer = &watch.area().control.producer;
    // Alone, a thread is favoured before long.
    let alone = (1..100).find(|_| {
        (1..=BURST).for_each(|store| here.set(32, store));
        producer.lock.load(Relaxed) & dsm_core::lock::BIASED != 0
    });
    let alone = alone.expect("the lock is biased to somebody");
    let process = cluster.spawn(0, "stores_in_bursts", &[]);
    let mut remote = 0;
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|party| scope.spawn(move || bursts(&here, party)));
        while threads.iter().any(|thread| !thread.is_finished()) {
            remote += 1;
            there.set(48, remote);
            std::thread::yield_now();
        }
    });
    process.succeeds();
    let last = BURSTS * BURST + BURST;
    eventually("all stores are there", || {
        here.get(48) == remote && (0..4).all(|party| here.get(party * 8) == last && there.get(party * 8) == last)
    });
    let counted = producer.direct.load(Relaxed) + producer.trapped.load(Relaxed);
    assert_eq!(counted, (alone + 4 * BURSTS) * BURST, "stores, of which the lock was taken for each");
}

/// A child of a `fork` that no handler has seen goes by its parent's number, but not for the thread that the parent's lock
/// is biased to: both store at once, and the number of stores, counted under the lock without atomics, is exact.
#[test]
fn a_child_that_no_handler_has_seen_is_not_the_favoured_thread() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "unseen");
    let words = a.array::<u64>("w", 64).unwrap();
    let watch = Watch::new(&cluster, 0, "unseen");
    let producer = &watch.area().control.producer;
    for round in 1.. {
        words.set(0, round);
        if producer.lock.load(Relaxed) & dsm_core::lock::BIASED != 0 {
            break;
        }
        assert!(round < 100_000, "the lock is biased to nobody");
    }
    let before = producer.direct.load(Relaxed) + producer.trapped.load(Relaxed);
    // For a while only: until it ends, the child has what other tests of this process have open.
    let bursts = |at: usize| {
        let (start, mut stored) = (Instant::now(), 0);
        while start.elapsed() < std::time::Duration::from_millis(200) {
            (0..1000).for_each(|_| {
                stored += 1;
                words.set(at, stored);
            });
        }
    };
    // SAFETY: the child stores, which allocates nothing, and ends.
    let child = unsafe { libc::syscall(libc::SYS_fork) } as libc::pid_t;
    if child == 0 {
        bursts(8);
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    eventually("the child stores", || words.get(8) > 0);
    bursts(16);
    let mut status = 0;
    // SAFETY: waits for our child.
    assert_eq!((unsafe { libc::waitpid(child, &raw mut status, 0) }, status), (child, 0));
    let counted = producer.direct.load(Relaxed) + producer.trapped.load(Relaxed);
    assert_eq!(counted - before, words.get(8) + words.get(16), "stores, of which the lock was taken for each");
}
