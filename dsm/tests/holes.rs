//! Holes: what they leave alone, and how they end when the session does.
#![allow(missing_docs, reason = "test types")]

mod common;
#[path = "common/tasks.rs"]
mod tasks;

use common::{Cluster, GoesOn, PATIENCE, eventually, join_by_environment, own_dir, role};
use dsm::prelude::*;
use dsm::{Versioned, field};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

#[dsm::shared]
struct Account {
    balance: i64,
    changes: u64,
}

#[dsm::shared]
struct Bank {
    number: u64,
    safe: field::Mutex<Account>,
    shelves: [field::RwLock<u64>; 3],
    rate: Versioned<[u32; 2]>,
    visitors: u64,
}

#[test]
fn what_is_under_a_lock_or_published_is_left_as_it_is() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "bank"), cluster.join(1, "bank"));
    let [here, there] = [&a, &b].map(|session| session.array::<Bank>("banks", 2).unwrap());
    for (bank, number) in here.handles().zip(1..) {
        bank.set_number(number);
        bank.safe().lock().unwrap().value().set_balance(100 * number as i64);
        bank.shelves().handles().zip(0..).for_each(|(shelf, at)| shelf.write().unwrap().value().set(10 * number + at));
        bank.rate().publish(&[number as u32; 2]).unwrap();
    }
    // Everything changes places with everything else, but what has a protocol of its own does not.
    let mut hole = here.hole().unwrap();
    let (one, other) = hole.split_at_mut(1);
    std::mem::swap(&mut one[0], &mut other[0]);
    one[0].shelves.reverse();
    let (first, rest) = other[0].shelves.split_at_mut(1);
    std::mem::swap(&mut first[0], &mut rest[1]);
    one[0].visitors = 7;
    assert_eq!(
        format!("{:?} {:?} {:?}", one[0].safe, first[0], one[0].rate),
        "Mutex<Account> RwLock<u64> Versioned<[u32; 2]>"
    );
    hole.fill().unwrap();
    a.fence().unwrap();
    eventually("the hole arrives", || there.at(0).visitors() == 7);
    for (session, banks) in [(&a, here), (&b, there)] {
        for (bank, number) in banks.handles().zip(1..) {
            assert_eq!(bank.number(), 3 - number);
            assert_eq!(bank.safe().lock_timeout(PATIENCE).unwrap().value().balance(), 100 * number as i64);
            let shelves: Vec<u64> =
                bank.shelves().handles().map(|shelf| shelf.read_timeout(PATIENCE).unwrap().load()).collect();
            assert_eq!(shelves, [10 * number, 10 * number + 1, 10 * number + 2]);
            assert_eq!(bank.rate().snapshot_with_version().unwrap(), (1, [number as u32; 2]));
        }
        session.fence().unwrap();
    }
    // What changed under a lock while a hole was open is not put back.
    let hole = here.hole().unwrap();
    there.at(0).safe().lock_timeout(PATIENCE).unwrap().value().set_balance(-1);
    hole.fill().unwrap();
    assert_eq!(here.at(0).safe().lock_timeout(PATIENCE).unwrap().value().balance(), -1);
    // In a hole of a guard there is the value itself.
    let mut guard = here.at(1).safe().lock_timeout(PATIENCE).unwrap();
    let mut hole = guard.hole().unwrap();
    (hole.balance, hole.changes) = (5, 6);
    hole.fill().unwrap();
    drop(guard);
    let guard = there.at(1).safe().lock_timeout(PATIENCE).unwrap();
    assert_eq!((guard.value().balance(), guard.value().changes()), (5, 6));
    drop(guard);
    drop((a, b));
}

/// More than the log holds: filling such a hole waits for the arbiter.
const LARGE: usize = 4 << 20;

/// Waits until all of these threads of this process sleep.
fn sleep(threads: &Mutex<Vec<i32>>, count: usize) {
    eventually("the threads sleep", || {
        let threads = threads.lock().unwrap();
        threads.len() == count
            && threads.iter().all(|thread| {
                let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
                let stat = stat.expect("the thread has ended");
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
            })
    });
}

#[test]
fn what_waits_for_room_ends_with_an_error_when_the_session_does() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "room");
    let words = a.array::<u64>("words", LARGE).unwrap();
    let (lock, gate) = (a.semaphore("lock", 1).unwrap(), a.semaphore("gate", 1).unwrap());
    let rate = a.open::<Versioned<[u32; 2]>>("rate").unwrap();
    let (barrier, world) = (a.barrier("barrier", 2).unwrap(), a.world().unwrap());
    let (guard, draft) = (lock.lock().unwrap(), rate.draft().unwrap());
    let filled = |range: std::ops::Range<usize>| {
        let mut hole = words.range(range).hole().unwrap();
        hole.iter_mut().zip(1..).for_each(|(word, value)| *word = value);
        hole
    };
    let (first, second) = (filled(0..LARGE / 2), filled(LARGE / 2..LARGE));
    // If the test fails, it goes on, and so do all who wait for it.
    let stopped = GoesOn::stop(cluster.arbiter_pid(0));
    let threads = Mutex::new(Vec::new());
    let begin = || threads.lock().unwrap().push(nix::unistd::gettid().as_raw());
    std::thread::scope(|scope| {
        let mut waits = Vec::new();
        let mut start = |wait: Box<dyn FnOnce() -> Result<(), Error> + Send>| {
            let begin = &begin;
            waits.push(scope.spawn(move || {
                begin();
                wait()
            }));
            sleep(&threads, waits.len());
        };
        start(Box::new(|| first.fill()));
        // Nothing is shorter: there is no room from here on.
        start(Box::new(|| {
            loop {
                gate.post(1)?;
            }
        }));
        start(Box::new(move || Ok(dsm::io::fill_with(words, |bytes| Ok(bytes.len())).map(drop)?)));
        start(Box::new(|| gate.wait()));
        start(Box::new(|| barrier.wait_timeout(PATIENCE).map(drop)));
        start(Box::new(|| draft.publish().map(drop)));
        start(Box::new(|| world.all_gather(1u8).map(drop)));
        start(Box::new(|| a.fence_timeout(PATIENCE)));
        start(Box::new(|| tasks::run(a.fence_async())));
        // What has no result does not panic.
        start(Box::new(|| {
            drop(guard);
            a.ended().map_or(Ok(()), Err)
        }));
        // The hole is dropped while this unwinds: another panic would end the process.
        threads.lock().unwrap().clear();
        let panicking = scope.spawn(|| -> () {
            begin();
            let _hole = second;
            std::panic::resume_unwind(Box::new("for the test"));
        });
        sleep(&threads, 1);
        assert!(!panicking.is_finished() && waits.iter().all(|wait| !wait.is_finished()));
        kill(Pid::from_raw(stopped.0), Signal::SIGKILL).unwrap();
        std::mem::forget(stopped);
        for (at, wait) in waits.into_iter().enumerate() {
            let result = wait.join().unwrap_or_else(|_| panic!("wait {at} panicked"));
            assert!(
                matches!(result, Err(Error::ArbiterGone { .. } | Error::SessionEnded { .. })),
                "wait {at}: {result:?}"
            );
        }
        let payload = panicking.join().unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"for the test"));
    });
    // Nor is there anything to be had of it later.
    assert!(matches!(words.hole(), Err(Error::ArbiterGone { .. } | Error::SessionEnded { .. })));
    drop(a);
    for left in std::fs::read_dir(cluster.dir(0)).into_iter().flatten() {
        let _ = left.map(|left| std::fs::remove_file(left.path()));
    }
    let _ = std::fs::remove_dir(cluster.dir(0));
}

#[test]
fn a_hole_that_is_dropped_too_late_says_so() {
    let cluster = Cluster::new();
    let output = cluster.command(0, "loser_of_a_hole", &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("hole")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].starts_with("dsm: a hole was dropped and its changes are lost: the arbiter of"), "{said}");
    let _ = std::fs::remove_dir_all(cluster.dir(0));
}

#[test]
fn loser_of_a_hole() {
    if !role("loser_of_a_hole") {
        return;
    }
    let session = join_by_environment("late");
    let bank = session.open::<Bank>("bank").unwrap();
    let (mut hole, mut discarded) = (bank.number_ref().hole().unwrap(), bank.visitors_ref().hole().unwrap());
    (*hole, *discarded) = (7, 7);
    let arbiter = UnixStream::connect(own_dir().join("arbiter.sock")).unwrap();
    let arbiter = dsm_core::sys::process::peer(arbiter.as_fd()).unwrap().pid;
    kill(Pid::from_raw(arbiter), Signal::SIGKILL).unwrap();
    eventually("it is noticed", || session.ended().is_some());
    discarded.discard();
    drop(hole);
}
