//! `std`'s atomics of one byte, made from pointers into the view: locked instructions that trap, each at its place in the
//! total order. Two threads on each of two hosts use neighbouring bytes of a word at once, and nothing is lost.

mod common;

use common::Cluster;
use dsm::prelude::*;
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicU8};

#[dsm::shared]
struct Bytes {
    flags: [AtomicBool; 3],
    bits: AtomicU8,
    sum: AtomicU8,
    count: AtomicU8,
    /// Nobody changes these.
    still: [u8; 2],
}

const ROUNDS: u32 = 300;
const THREADS: u8 = 4;

/// What a thread has seen of flags that go up and down, and how often it changed the count.
#[derive(Default)]
struct Seen {
    up: [u32; 3],
    down: [u32; 3],
    counted: u32,
}

/// `bytes` is where the eight bytes of a [`Bytes`] lie.
fn hammer(bytes: *mut u8, thread: u8) -> Seen {
    // SAFETY: a byte of the view, which outlives this; it is 0 or 1, and all that change it do so atomically.
    let flag = |at: usize| unsafe { AtomicBool::from_ptr(bytes.wrapping_add(at).cast()) };
    // SAFETY: as above.
    let byte = |at: usize| unsafe { AtomicU8::from_ptr(bytes.wrapping_add(at)) };
    let mut seen = Seen::default();
    let mut note = |at: usize, was: bool, is: bool| match (was, is) {
        (false, true) => seen.up[at] += 1,
        (true, false) => seen.down[at] += 1,
        _ => {}
    };
    let own = 1 << thread;
    let mut counted = 0;
    for round in 0..ROUNDS {
        let up = !(round + u32::from(thread)).is_multiple_of(2);
        note(0, flag(0).swap(up, SeqCst), up);
        if up {
            note(1, flag(1).fetch_or(true, SeqCst), true);
        } else {
            note(1, flag(1).fetch_and(false, SeqCst), false);
        }
        if flag(2).compare_exchange(!up, up, SeqCst, SeqCst).is_ok() {
            note(2, !up, up);
        }
        assert_eq!(byte(3).fetch_or(own, SeqCst) & own, 0, "somebody else has set the bit of thread {thread}");
        assert_ne!(byte(3).fetch_and(!own, SeqCst) & own, 0, "the bit of thread {thread} is lost");
        byte(4).fetch_add(thread + 1, SeqCst);
        let old = byte(5).load(SeqCst);
        counted += u32::from(byte(5).compare_exchange(old, old.wrapping_add(1), SeqCst, SeqCst).is_ok());
    }
    seen.counted = counted;
    seen
}

#[test]
fn bytes_next_to_each_other_are_exact_on_both_hosts() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "bytes"), cluster.join(1, "bytes"));
    let (here, there) = (a.open::<Bytes>("bytes").unwrap(), b.open::<Bytes>("bytes").unwrap());
    let offsets = [offset_of!(Bytes, bits), offset_of!(Bytes, sum), offset_of!(Bytes, count), size_of::<Bytes>()];
    assert_eq!(offsets, [3, 4, 5, 8]);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let bytes = if thread % 2 == 0 { here } else { there };
                scope.spawn(move || hammer(bytes.as_ptr().cast(), thread))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    a.fence().unwrap();
    b.fence().unwrap();
    for bytes in [here, there] {
        let bytes = bytes.as_ptr().cast::<u8>();
        // SAFETY: within the value; any byte is a `u8`.
        let byte = |at: usize| u32::from(unsafe { bytes.wrapping_add(at).read_volatile() });
        for flag in 0..3 {
            let up: u32 = seen.iter().map(|seen| seen.up[flag]).sum();
            let down: u32 = seen.iter().map(|seen| seen.down[flag]).sum();
            // Each change was seen by exactly one.
            assert_eq!(up.checked_sub(down), Some(byte(flag)), "flag {flag} went up {up} times, and down {down} times");
            assert!(up > ROUNDS / 10, "flag {flag} went up {up} times");
        }
        assert_eq!(byte(3), 0);
        let sum: u32 = (1..=u32::from(THREADS)).sum();
        assert_eq!(byte(4), ROUNDS * sum % 256);
        let counted: u32 = seen.iter().map(|seen| seen.counted).sum();
        assert!(counted > ROUNDS / 10, "{counted}");
        assert_eq!(byte(5), counted % 256);
        assert_eq!((byte(6), byte(7)), (0, 0));
    }
    drop((a, b));
}
