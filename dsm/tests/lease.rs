//! The lease of atomics: a host that is alone carries them out itself; when another comes, nothing is lost or doubled.

mod common;

use common::{Cluster, eventually, join_by_environment, role};
use dsm::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[test]
fn atomics_of_a_host_alone_cost_no_message() {
    let cluster = Cluster::new();
    let session = cluster.join(0, "alone");
    let words = session.array::<u64>("words", 8).unwrap();
    let mut next = 0;
    // The server says that this host is alone at once, but not before it has joined.
    let mut cost = |count: u64, call: &dyn Fn(u64)| {
        session.fence().unwrap();
        let before = session.status().unwrap();
        (next..next + count).for_each(call);
        next += count;
        session.fence().unwrap();
        let after = session.status().unwrap();
        (after.bytes_out - before.bytes_out, after.bytes_in - before.bytes_in)
    };
    eventually("the lease", || cost(100, &|at| assert_eq!(words.atomic(0).fetch_add(1, SeqCst), at)).0 < 100 * 40);
    // Its record is a store's: 24 bytes, and no answer for each. (64 and 96 where the server is asked.)
    let before = words.get(0);
    let (sent, received) = cost(10_000, &|_| _ = words.atomic(0).fetch_add(1, SeqCst));
    assert_eq!(words.get(0), before + 10_000);
    assert!(sent < 10_000 * 32 && received < 10_000 * 48, "{sent} bytes sent, {received} received");
    // One that changes nothing is no operation at all.
    let (sent, _) = cost(10_000, &|_| _ = words.atomic(1).compare_exchange(5, 6, SeqCst, SeqCst).unwrap_err());
    assert!(sent < 1000, "{sent} bytes sent for atomics that changed nothing");
    drop(session);
}

/// Counts on the first word through typed handles, on the second through an ordinary `AtomicU64`, until told to stop by
/// the third; says on the fourth how often.
#[test]
fn counter() {
    if !role("counter") {
        return;
    }
    let session = join_by_environment("load");
    let words = session.array::<u64>("words", 8).unwrap();
    // SAFETY: a mapped, aligned word that outlives the session's borrow; atomics may be shared with other processes.
    let plain = unsafe { AtomicU64::from_ptr(words.as_ptr().wrapping_add(1)) };
    let mut count = 0;
    words.atomic(4).fetch_add(1, SeqCst);
    while words.get(2) == 0 {
        words.atomic(0).fetch_add(1, SeqCst);
        plain.fetch_add(1, Ordering::SeqCst);
        count += 1;
    }
    words.atomic(3).fetch_add(count, SeqCst);
}

#[test]
fn the_recall_of_the_lease_loses_and_doubles_nothing() {
    let cluster = Cluster::new();
    let first = cluster.join(0, "load");
    let words = first.array::<u64>("words", 8).unwrap();
    let others: Vec<_> = (0..2).map(|_| cluster.spawn(0, "counter", &[])).collect();
    eventually("the counters", || words.get(4) == 2);
    let stop = AtomicBool::new(false);
    let (mut expected, mut hosts) = (0, std::collections::BTreeSet::new());
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                words.atomic(0).fetch_add(1, SeqCst);
                words.atomic(1).fetch_add(1, SeqCst);
                count += 1;
            }
            count
        });
        for _ in 0..25 {
            // A host joins in the middle of it, counts too, and goes: the lease is recalled and given again.
            let second = cluster.join(1, "load");
            let theirs = second.array::<u64>("words", 8).unwrap();
            for _ in 0..20 {
                theirs.atomic(0).fetch_add(1, SeqCst);
                theirs.atomic(1).fetch_add(1, SeqCst);
            }
            expected += 20;
            hosts.insert(second.host());
            drop(second);
            // Its arbiter has left when the session is unused there; then the first host is alone again.
            let before = words.get(0);
            eventually("the first host to go on", || words.get(0) > before + 500);
        }
        stop.store(true, Ordering::Relaxed);
        expected += counting.join().unwrap();
    });
    // Every host has a number of its own: it has left and joined anew.
    assert!(hosts.len() > 5, "{hosts:?}");
    words.set(2, 1);
    others.into_iter().for_each(common::Process::succeeds);
    expected += words.atomic(3).fetch_add(0, SeqCst);
    assert_eq!(words.atomic(0).fetch_add(0, SeqCst), expected);
    assert_eq!(words.atomic(1).fetch_add(0, SeqCst), expected);
    let second = cluster.join(1, "load");
    let theirs = second.array::<u64>("words", 8).unwrap();
    assert_eq!((theirs.get(0), theirs.get(1)), (expected, expected));
    drop((first, second));
}
