//! What the dead leave in the log, and what must not stay of it.
#![cfg(not(loom))]

mod common;

use common::Hand;
use dsm_core::lock::{ARBITER, Seizure};
use dsm_core::log::{Area, Door, HostLog};
use dsm_core::memory::{Cells, Memory};
use dsm_core::op::{AtomicOp, Rmw};
use dsm_core::record::records;
use dsm_core::sync::Ordering::Relaxed;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

const RING: usize = 64;
const INDEX: usize = 4;
type SmallLog<'a> = HostLog<'a, RING, INDEX, 1, 1>;

/// Memory in which whoever stores dies: after the intent and the entry in the index, before the first byte.
struct Deadly;

impl Memory for Deadly {
    fn write(&self, _: u64, _: &[u8]) {
        std::panic::resume_unwind(Box::new("dead"));
    }

    fn read(&self, _: u64, _: &mut [u8]) {}
}

/// Process 2 dies in a store.
fn die(log: &SmallLog<'_>, offset: u64, bytes: &[u8]) {
    let dead = catch_unwind(AssertUnwindSafe(|| log.store(&Deadly, &Hand(2), Door::Direct, offset, bytes)));
    assert!(dead.is_err());
    assert_eq!(log.lock().seize(|process| process == 1), Seizure::Free);
    assert_eq!(log.lock().seize(|process| process == 2), Seizure::Taken);
}

#[test]
fn a_refused_store_of_the_dead_leaves_nothing_behind() {
    let area = Area::<RING, INDEX, 1, 1>::boxed(1);
    let log: SmallLog<'_> = area.log();
    let memory = Cells::zeroed(4096);
    let allowed = |offset: u64, len: u64| offset + len <= 64;
    // Words 0, 4, 8, ... share a bucket. Pending: two stores to word 0, the first partly under the second.
    log.store(&memory, &Hand(1), Door::Direct, 0, &[1; 8]);
    log.store(&memory, &Hand(1), Door::Direct, 2, &[2; 2]);
    let tail = area.control.producer.tail.load(Relaxed);
    assert_eq!(log.covered(0, 0xff), 0xff);
    die(&log, 1024, &[9; 8]);
    log.recover(&memory, allowed);
    log.lock().release_to_all();
    assert_eq!(area.control.producer.tail.load(Relaxed), tail);
    assert_eq!(log.covered(0, 0xff), 0xff, "pending stores were forgotten");
    // Another store takes the place in the ring; the bucket of the refused one must not lead to it, nor lose others.
    log.store(&memory, &Hand(1), Door::Direct, 40, &[3; 4]);
    assert_eq!(log.covered(0, u64::MAX), 0xff | 0xf << 40);
    // The next to die has not got as far as its intent: the refused one's must not be taken for it.
    let tail = area.control.producer.tail.load(Relaxed);
    die(&log, 1024, &[9; 8]);
    log.recover(&memory, allowed);
    log.lock().release();
    assert!(log.lock().try_acquire(3));
    assert_eq!(log.lock().seize(|process| process == 3), Seizure::Taken);
    log.recover(&memory, |_, _| true);
    log.lock().release_to_all();
    assert_eq!(area.control.producer.tail.load(Relaxed), tail);
    let mut bytes = vec![0; 4096];
    memory.read(0, &mut bytes);
    assert!(bytes[64..].iter().all(|byte| *byte == 0));
    // Where it may be, it is completed, once.
    die(&log, 8, &[4; 8]);
    log.recover(&memory, allowed);
    log.recover(&memory, allowed);
    log.lock().release_to_all();
    memory.read(0, &mut bytes);
    assert_eq!((&bytes[..4], &bytes[8..16]), (&[1, 1, 2, 2][..], &[4; 8][..]));
    let mut out = Vec::new();
    log.drain(0, RING, &mut out).unwrap();
    let places: Vec<u64> = records(&out).map(|record| record.unwrap().place).collect();
    assert_eq!(places, [0, 2, 40, 8]);
}

/// Memory whose writer dies in its n-th write, before any byte of it.
struct Fuse<'a>(&'a Cells, Cell<usize>);

impl Memory for Fuse<'_> {
    fn write(&self, offset: u64, bytes: &[u8]) {
        let left = self.1.get().checked_sub(1).unwrap_or_else(|| std::panic::resume_unwind(Box::new("dead")));
        self.1.set(left);
        self.0.write(offset, bytes);
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        self.0.read(offset, out);
    }
}

/// Under the lease, an atomic whose operand lies on two lines, or pages, is two records; nobody gets half of it.
#[test]
fn an_atomic_on_two_lines_is_whole_whoever_dies() {
    let ring = 256;
    for (offset, width) in [(60, 8), (63, 2), (64 - 14, 16), (128 - 2, 16), (4096 - 4, 8)] {
        for writes in 0..=2 {
            let area = Area::<256, INDEX, 2, 1>::boxed(1);
            let log: HostLog<'_, 256, INDEX, 2, 1> = area.log();
            let memory = Cells::zeroed(2 * 4096);
            assert!(log.try_lease());
            // Others are pending there, also in the buckets of the words.
            log.store(&memory, &Hand(1), Door::Direct, offset & !7, &[7; 8]);
            log.store(&memory, &Hand(1), Door::Direct, (offset | 63) + 1, &[7; 8]);
            let read = || {
                let mut bytes = [0; 16];
                memory.read(offset, &mut bytes[..width]);
                u128::from_le_bytes(bytes)
            };
            let add = AtomicOp::new(Rmw::Add, width as u8, 0x1111_1111_1111_1111_1111_1111_1111_1111);
            let (before, pending) = (read(), area.control.producer.tail.load(Relaxed));
            let fuse = Fuse(&memory, Cell::new(writes));
            let done = catch_unwind(AssertUnwindSafe(|| log.atomic(&fuse, &Hand(2), offset, &add)));
            assert_eq!(done.is_ok(), writes == 2);
            if writes < 2 {
                assert_eq!(log.lock().seize(|process| process == 2), Seizure::Taken);
                log.recover(&memory, |_, _| true);
                log.lock().release_to_all();
            }
            assert_eq!(read(), add.apply(before), "{width} bytes at {offset}, {writes} writes");
            let covers = |at: u64| log.covered(at & !63, 1 << (at & 63)) != 0;
            assert!((offset..offset + width as u64).all(covers), "not all of it is pending");
            let mut out = Vec::new();
            log.drain(pending, ring, &mut out).unwrap();
            let places: Vec<u64> = records(&out).map(|record| record.unwrap().place).collect();
            assert_eq!(places, [offset, (offset | 63) + 1]);
        }
    }
    // Where one half may not be stored, neither is, and what is pending there stays so.
    let area = Area::<RING, INDEX, 1, 1>::boxed(1);
    let log: SmallLog<'_> = area.log();
    let memory = Cells::zeroed(4096);
    assert!(log.try_lease());
    log.store(&memory, &Hand(1), Door::Direct, 56, &[7; 8]);
    let tail = area.control.producer.tail.load(Relaxed);
    let add = AtomicOp::new(Rmw::Add, 8, 1);
    let fuse = Fuse(&memory, Cell::new(0));
    assert!(catch_unwind(AssertUnwindSafe(|| log.atomic(&fuse, &Hand(2), 60, &add))).is_err());
    assert_eq!(log.lock().seize(|process| process == 2), Seizure::Taken);
    log.recover(&memory, |offset, len| offset + len <= 64);
    log.recover(&memory, |_, _| true);
    log.lock().release_to_all();
    let mut bytes = [0; 16];
    memory.read(56, &mut bytes);
    assert_eq!(u128::from_le_bytes(bytes), u128::from_le_bytes([7; 16]) >> 64);
    assert_eq!((area.control.producer.tail.load(Relaxed), log.covered(0, u64::MAX)), (tail, 0xff << 56));
}

#[test]
fn those_who_wait_for_room_are_forgotten_with_the_dead_and_come_back() {
    let area = Area::<RING, INDEX, 1, 1>::boxed(1);
    let log: SmallLog<'_> = area.log();
    let memory = Cells::zeroed(64);
    let rare = &area.control.rare;
    // Somebody was killed while it waited.
    rare.room_waiters.store(1, Relaxed);
    log.forget_room_waiters();
    assert_eq!(rare.room_waiters.load(Relaxed), 0);
    let full = RING as u64 / 3;
    (0..full).for_each(|_| log.store(&memory, &Hand(1), Door::Direct, 0, &[1]));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| log.store(&memory, &Hand(1), Door::Direct, 1, &[2]));
        let start = std::time::Instant::now();
        // It says again and again that it waits, and its own farewell counts nobody twice.
        for _ in 0..20 {
            while rare.room_waiters.load(Relaxed) == 0 {
                assert!(start.elapsed().as_secs() < 30, "nobody waits for room");
                std::thread::yield_now();
            }
            log.forget_room_waiters();
        }
        assert!(!waiting.is_finished());
        log.acknowledge(area.control.producer.tail.load(Relaxed));
        waiting.join().unwrap();
    });
    assert_eq!(rare.room_waiters.load(Relaxed), 0);
    assert_eq!(area.control.producer.tail.load(Relaxed), full * 3 + 3);
}

#[test]
fn a_takeover_wakes_whoever_waits_for_the_lock() {
    let area = Area::<RING, INDEX, 1, 1>::boxed(1);
    let log: SmallLog<'_> = area.log();
    assert!(log.lock().try_acquire(2));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| log.lock().leave(log.lock().enter(|| 1, None, || false, || (), || ()), 1));
        let start = std::time::Instant::now();
        while area.control.producer.lock_waiters.load(Relaxed) == 0 {
            assert!(start.elapsed().as_secs() < 30, "nobody waits for the lock");
            std::thread::yield_now();
        }
        assert_eq!(log.lock().seize(|process| process == 2), Seizure::Taken);
        assert_eq!(log.lock().holder(), ARBITER);
        log.lock().release_to_all();
        waiting.join().unwrap();
    });
    assert_eq!(log.lock().holder(), 0);
}
