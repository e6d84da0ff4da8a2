//! Atomics of 16 bytes across hosts: `lock cmpxchg16b` at the trap door, and the typed ones, from several threads of two
//! hosts at once, while the second host comes and the lease of atomics is recalled.

mod common;

use common::{Cluster, eventually};
use dsm::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const EACH: u64 = 300;
/// One in both halves: they differ only in a value that was torn.
const ONE: u128 = 1 << 64 | 1;

/// `lock cmpxchg16b` on what is there: stores `new` where `old` is, and returns what was there.
fn compare_exchange(at: *mut u128, old: u128, new: u128) -> u128 {
    let (mut low, mut high) = (old as u64, (old >> 64) as u64);
    // SAFETY: an aligned value in the view; the instruction traps, and is carried out by the library. rbx, which the
    // compiler keeps for itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, rsi", "lock cmpxchg16b [rdi]", "mov rbx, rsi",
            in("rdi") at, inout("rsi") new as u64 => _, in("rcx") (new >> 64) as u64,
            inout("rax") low, inout("rdx") high,
            options(nostack)
        );
    }
    u128::from(low) | u128::from(high) << 64
}

fn whole(value: u128) {
    assert_eq!(value as u64, (value >> 64) as u64, "{value:x} is torn");
}

/// Counts `EACH` times by each door.
fn count(words: Slice<'_, u128>, done: &AtomicU64) {
    for _ in 0..EACH {
        whole(words.atomic(0).fetch_add(ONE, SeqCst));
        let mut old = words.get(1);
        loop {
            whole(old);
            match compare_exchange(words.as_ptr().wrapping_add(1), old, old + ONE) {
                found if found == old => break,
                found => old = found,
            }
        }
        done.fetch_add(1, Relaxed);
    }
}

#[test]
fn sixteen_bytes_count_exactly_while_a_second_host_comes() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "wide");
    let here = a.array::<u128>("w", 2).unwrap();
    let (first, second, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let b = std::thread::scope(|scope| {
        let own = [(); 2].map(|()| scope.spawn(|| count(here, &first)));
        eventually("the first host counts", || first.load(Relaxed) > 20);
        // From now on the atomics of the first host are the server's, in the middle of its counting.
        let b = cluster.join(1, "wide");
        let there = b.array::<u128>("w", 2).unwrap();
        std::thread::scope(|scope| {
            let readers = [here, there].map(|words| {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Relaxed) {
                        (0..2).for_each(|at| whole(words.get(at)));
                    }
                })
            });
            let (there, second) = (&there, &second);
            let others = [(); 2].map(|()| scope.spawn(move || count(*there, second)));
            let counted = others.into_iter().all(|thread| thread.join().is_ok());
            eventually("the first host is done, or has failed", || own.iter().all(|thread| thread.is_finished()));
            stop.store(true, Relaxed);
            let looked = readers.into_iter().all(|thread| thread.join().is_ok());
            assert!(counted && looked);
        });
        b.fence().unwrap();
        assert_eq!(there.to_vec(), [ONE * u128::from(4 * EACH); 2]);
        b
    });
    a.fence().unwrap();
    assert_eq!(here.to_vec(), [ONE * u128::from(4 * EACH); 2]);
    drop((a, b));
}
