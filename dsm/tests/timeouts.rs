//! Waits with a timeout while what would answer them is stopped, and not dead: they end, and leave nothing behind when it
//! goes on.

mod common;

use common::{Cluster, GoesOn, Watch, eventually};
use dsm::{Error, LockError};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Of each wait.
const TIMEOUT: Duration = Duration::from_millis(30);
/// What each may take: its timeout, what it waits to find out what the order says, and a loaded machine.
const MOST: Duration = Duration::from_secs(4);

fn over<T>(what: &str, wait: impl FnOnce() -> dsm::Result<T>) {
    let start = Instant::now();
    let result = wait().map(drop);
    let took = start.elapsed();
    assert!(matches!(result, Err(Error::TimedOut(_))), "{what}: {result:?} after {took:?}");
    assert!((TIMEOUT..MOST).contains(&took), "{what} took {took:?}");
}

/// All waits of a process of host 1, while what `stop` stops cannot answer.
fn waits_end(stop: impl FnOnce(&Cluster) -> GoesOn) {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "stop"), cluster.join(1, "stop"));
    let free = b.semaphore("free", 2).unwrap();
    let held = b.semaphore("held", 1).unwrap();
    let barrier = [&a, &b].map(|session| session.barrier("both", 2).unwrap());
    let value = b.mutex::<u64>("value").unwrap();
    let guard = a.semaphore("held", 1).unwrap().lock().unwrap();
    drop(value.lock().unwrap());

    let stopped = stop(&cluster);
    over("a semaphore that is free", || free.acquire_many_timeout(2, TIMEOUT).map_err(other));
    over("a semaphore that is held", || held.wait_timeout(TIMEOUT));
    over("a mutex", || value.lock_timeout(TIMEOUT).map_err(other));
    over("a barrier", || barrier[1].wait_timeout(TIMEOUT));
    over("a fence", || b.fence_timeout(TIMEOUT));
    drop(stopped);

    b.fence().unwrap();
    // What was granted too late has gone back, and nobody is in line.
    drop(free.try_acquire_many(2).unwrap().expect("both are free"));
    drop(value.try_lock().unwrap().expect("nobody has it"));
    drop(guard);
    drop(held.lock_timeout(MOST).map_err(other).unwrap());
    // The arrival was taken back: nobody is there yet.
    assert!(matches!(barrier[0].wait_timeout(TIMEOUT), Err(Error::TimedOut(_))));
    std::thread::scope(|scope| {
        let [one, other] = barrier.each_ref().map(|barrier| scope.spawn(|| barrier.wait_timeout(MOST).unwrap()));
        assert_ne!(one.join().unwrap().is_leader(), other.join().unwrap().is_leader());
    });
    assert!(a.ended().is_none() && b.ended().is_none());
    drop((a, b));
}

fn other<T>(error: LockError<T>) -> Error {
    match error {
        LockError::OwnerDied(..) => panic!("nobody has died"),
        LockError::Other(error) => error,
    }
}

#[test]
fn waits_end_while_the_own_arbiter_is_stopped() {
    waits_end(|cluster| GoesOn::stop(cluster.arbiter_pid(1)));
}

#[test]
fn waits_end_while_the_server_is_stopped() {
    waits_end(|cluster| GoesOn::stop(cluster.arbiter_pid(0)));
}

#[test]
fn waits_end_while_a_process_is_stopped_in_the_middle_of_a_store() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "inside"), cluster.join(1, "inside"));
    let units = b.semaphore("units", 1).unwrap();
    let barrier = b.barrier("both", 2).unwrap();
    let watch = Watch::new(&cluster, 1, "inside");
    watch.lock_as(watch.process);
    over("a semaphore", || units.acquire_many_timeout(1, TIMEOUT).map_err(other));
    over("a barrier", || barrier.wait_timeout(TIMEOUT));
    over("a fence", || b.fence_timeout(TIMEOUT));
    let waiters = &watch.area().control.producer.lock_waiters;
    assert_eq!(waiters.load(Relaxed), 0, "who has given up does not wait");
    watch.unlock();
    drop(units.try_lock().unwrap().expect("nobody has it"));
    eventually("the slots are free", || watch.waits().all(|process| process == 0));
    drop((watch, a, b));
}

/// That a wait is over cannot even be said: it is with the next one, and what was granted meanwhile goes back then.
#[test]
fn what_could_not_be_said_is_said_later() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "later"), cluster.join(1, "later"));
    let (units, theirs) = (b.semaphore("units", 1).unwrap(), a.semaphore("units", 1).unwrap());
    let barrier = [&a, &b].map(|session| session.barrier("both", 2).unwrap());
    let watch = Watch::new(&cluster, 1, "later");
    let long = Duration::from_millis(400);
    let guard = theirs.lock().unwrap();
    std::thread::scope(|scope| {
        let waits = [
            scope.spawn(|| units.acquire_many_timeout(1, long).map(drop).map_err(other)),
            scope.spawn(|| barrier[1].wait_timeout(long).map(drop)),
        ];
        eventually("both wait", || {
            let list = a.list().unwrap();
            list.semaphores.iter().any(|it| it.waiting == 1) && list.barriers.iter().any(|it| it.arrived == 1)
        });
        watch.lock_as(watch.process);
        for wait in waits {
            let result = wait.join().unwrap();
            assert!(matches!(result, Err(Error::TimedOut(_))), "{result:?}");
        }
    });
    watch.unlock();
    drop(guard);
    eventually("it is granted to who does not wait any more", || theirs.try_lock().unwrap().is_none());
    drop(units.try_lock().unwrap().expect("it went back"));
    drop(theirs.lock_timeout(MOST).map_err(other).unwrap());
    assert!(matches!(barrier[0].wait_timeout(TIMEOUT), Err(Error::TimedOut(_))), "the arrival was taken back");
    eventually("the slots are free", || watch.waits().all(|process| process == 0));
    drop((watch, a, b));
}

/// A rank whose call was not answered in time finds out with its next one, and all are in step.
#[test]
fn collectives_end_while_the_own_arbiter_is_stopped() {
    let cluster = Cluster::new();
    let sessions = [0, 1].map(|rank| cluster.builder(rank, "ranks").rank(rank).size(2).join().unwrap());
    let [one, other] = sessions.each_ref().map(|session| session.world().unwrap());
    let gather = |one: &dsm::Team<'_>, other: &dsm::Team<'_>, round: u32| {
        std::thread::scope(|scope| {
            let late = scope.spawn(move || other.clone().with_timeout(MOST).all_gather(round + 1));
            assert_eq!(one.clone().with_timeout(MOST).all_gather(round).unwrap(), [round, round + 1]);
            assert_eq!(late.join().unwrap().unwrap(), [round, round + 1]);
        });
    };
    gather(&one, &other, 10);
    let hasty = other.clone().with_timeout(TIMEOUT);
    let stopped = GoesOn::stop(cluster.arbiter_pid(1));
    over("a collective", || hasty.all_gather(0u32));
    over("the next one", || hasty.all_gather(1u32));
    drop(stopped);
    // Its arrival and that it was taken back come before the other's.
    sessions[1].fence().unwrap();
    gather(&one, &other, 20);
    gather(&one, &other, 30);
    drop(sessions);
}
