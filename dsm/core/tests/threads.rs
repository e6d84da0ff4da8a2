//! Threads that store, publish and add to one log at once, and an arbiter that drains it: what it has seen, in the order
//! of the log, makes the memory that they leave. (What loom cannot: laid over plain memory, and with sleeps that are
//! sleeps. Miri runs it, too.)
#![cfg(not(loom))]

mod common;

use common::Hand;
use dsm_core::log::{Area, Door, HostLog};
use dsm_core::memory::{Cells, Mapped, Memory};
use dsm_core::op::{AtomicOp, Rmw};
use dsm_core::record::{Kind, records};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const RING: usize = 256;
const INDEX: usize = 4;
type SmallLog<'a> = HostLog<'a, RING, INDEX, 1, 1>;

const WRITERS: u32 = 3;
/// Rounds of a writer; but for Miri's, the ring is full several times.
const ROUNDS: u64 = if cfg!(miri) { 2 } else { 2000 };

/// Aligned as a mapping is.
#[repr(align(64))]
struct Plain([AtomicU64; 64]);

/// Where all count.
const COUNT: u64 = 0;
/// Where all store what only grows, each in a word of its own that the others read.
const PROGRESS: u64 = 64;
/// Where all store words of all widths.
const SMALL: u64 = 128;
/// Where all publish lines.
const LINES: u64 = 256;

fn add(log: &SmallLog<'_>, memory: &Mapped, hand: &Hand) -> u64 {
    let op = AtomicOp::new(Rmw::Add, 8, 1);
    let quick = log.try_atomic_word::<8>(memory, hand, COUNT, &op);
    quick.or_else(|| log.atomic(memory, hand, COUNT, &op)).expect("leased") as u64
}

/// What one writer does, with or without stores that cover parts of what others cover.
fn write(log: &SmallLog<'_>, memory: &Mapped, number: u32, all_widths: bool) {
    let (hand, own) = (Hand(number), PROGRESS + 8 * u64::from(number));
    let (mut last, mut seen) = (None, [0; 8]);
    for round in 1..=ROUNDS {
        let before = add(log, memory, &hand);
        assert!(last.is_none_or(|last| before > last), "counted back, or twice");
        last = Some(before);
        if !log.try_store_word(memory, &hand, Door::Direct, own, round.to_le_bytes()) {
            log.store(memory, &hand, Door::Direct, own, &round.to_le_bytes());
        }
        let byte = [number as u8 ^ round as u8];
        if all_widths {
            log.store(memory, &hand, Door::Trap, SMALL + round % 64, &byte);
            log.store(memory, &hand, Door::Trap, SMALL + round % 16 * 4, &[byte[0]; 4]);
            log.store_long(memory, &hand, Door::Direct, SMALL + round % 3, &[byte[0]; 100]);
        }
        let masks = [u64::MAX, (u64::MAX >> (round % 64)) & !u64::from(number)];
        log.publish(memory, &hand, LINES, &masks, &[[byte[0]; 64]; 2]);
        log.publish(memory, &hand, LINES + 64, &[u64::MAX], &[[byte[0]; 64]]);
        // Without the lock: words, which only grow.
        for other in 1..=WRITERS {
            let now = u64::from_le_bytes(memory.read_word(PROGRESS + 8 * u64::from(other)));
            let seen = &mut seen[other as usize];
            assert!(now >= *seen && (other != number || now == round));
            *seen = now;
        }
    }
}

/// Carries out what the log says, until nothing can come any more.
fn drain(log: &SmallLog<'_>, writing: &AtomicUsize) -> Cells {
    let (replica, mut at) = (Cells::zeroed(512), 0);
    loop {
        let last = writing.load(SeqCst) == 0;
        let mut drained = Vec::new();
        let to = log.drain(at, 64, &mut drained).expect("whole records");
        for record in records(&drained) {
            let record = record.expect("a record");
            match record.kind {
                Kind::Store => replica.write(record.place, record.payload),
                Kind::Bulk => record.lines().for_each(|(at, mask, line)| replica.write_masked(at, line, mask)),
                kind => panic!("nobody asks for {kind:?}"),
            }
        }
        log.acknowledge(to);
        if last && to == at {
            return replica;
        }
        if to == at {
            thread::yield_now();
        }
        at = to;
    }
}

/// One less writes, also when it is because of a panic.
struct Ends<'a>(&'a AtomicUsize);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn run(all_widths: bool) {
    let area = Area::<RING, INDEX, 1, 1>::boxed(1);
    let log: SmallLog<'_> = area.log();
    let plain = Plain(std::array::from_fn(|_| AtomicU64::new(0)));
    // SAFETY: all offsets are within the 512 bytes of `plain`, which are atomics and outlive the threads.
    let memory = unsafe { Mapped::new((&raw const plain).cast_mut().cast()) };
    assert!(log.try_lease());
    let writing = AtomicUsize::new(WRITERS as usize);
    let replica = thread::scope(|scope| {
        for number in 1..=WRITERS {
            let (log, memory, writing) = (&log, &memory, &writing);
            scope.spawn(move || {
                let _ends = Ends(writing);
                write(log, memory, number, all_widths);
            });
        }
        drain(&log, &writing)
    });
    let found: Vec<u8> = plain.0.iter().flat_map(|word| word.load(SeqCst).to_ne_bytes()).collect();
    assert_eq!(replica.to_vec(), found);
    assert_eq!(plain.0[0].load(SeqCst), u64::from(WRITERS) * ROUNDS);
}

/// Runs in a thread of its own, and gives up on it after a minute.
fn watched(all_widths: bool) {
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        run(all_widths);
        let _ = done.send(());
    });
    // (Miri's seconds are those of the steps that it counts.)
    match wait.recv_timeout(Duration::from_secs(if cfg!(miri) { 86400 } else { 60 })) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

#[test]
fn what_is_drained_makes_the_memory() {
    watched(false);
}

/// Miri can run this one only by `-Zmiri-disable-weak-memory-emulation`: it keeps old values of an atomic by its width.
#[test]
fn stores_of_all_widths() {
    watched(true);
}
