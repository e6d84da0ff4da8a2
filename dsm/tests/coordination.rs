//! Semaphores and barriers across hosts: order, timeouts, deaths.

mod common;

use common::{Cluster, PATIENCE, eventually, join_by_environment, role};
use dsm::prelude::*;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(30);

#[test]
fn a_semaphore_is_first_come_first_served_and_carries_the_stores() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "sem"), cluster.join(1, "sem"));
    let (here, there) = (a.open::<u64>("count").unwrap(), b.open::<u64>("count").unwrap());
    let (lock_a, lock_b) = (a.semaphore("lock", 1).unwrap(), b.semaphore("lock", 1).unwrap());
    std::thread::scope(|scope| {
        for (lock, count) in [(&lock_a, here), (&lock_b, there)] {
            for _ in 0..3 {
                scope.spawn(move || {
                    for _ in 0..300 {
                        let _g = lock.lock_timeout(PATIENCE).unwrap();
                        // Read and write: only right if the last owner's store is here.
                        count.set(count.get() + 1);
                    }
                });
            }
        }
    });
    let _g = lock_b.lock().unwrap();
    assert_eq!(there.get(), 6 * 300);
    drop(_g);
    drop((a, b));
}

#[test]
fn units_are_counted_and_waits_can_time_out() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "units"), cluster.join(1, "units"));
    let (pool_a, pool_b) = (a.semaphore("pool", 3).unwrap(), b.semaphore("pool", 99).unwrap());
    let two = pool_a.acquire_many(2).unwrap();
    let one = pool_b.try_lock().unwrap().unwrap();
    assert!(one.fencing_token() > two.fencing_token());
    assert!(pool_b.try_lock().unwrap().is_none());
    let start = Instant::now();
    assert!(matches!(pool_b.lock_timeout(SHORT), Err(LockError::Other(Error::TimedOut(_)))));
    assert!(start.elapsed() >= SHORT);
    drop(two);
    let again = pool_b.acquire_many_timeout(2, PATIENCE).unwrap();
    assert_eq!(again.units(), 2);
    assert!(matches!(pool_a.acquire_many(0), Err(LockError::Other(Error::TooLarge(_)))));
    assert!(matches!(pool_a.post(40_000), Err(Error::TooLarge(_))));
    assert!(matches!(a.semaphore("big", 40_000), Err(Error::TooLarge(_))));
    drop((one, again));
    // Signals: posted by one host, waited for on the other.
    let (ping, pong) = (a.semaphore("signal", 0).unwrap(), b.semaphore("signal", 0).unwrap());
    ping.post(2).unwrap();
    pong.wait_timeout(PATIENCE).unwrap();
    pong.wait_timeout(PATIENCE).unwrap();
    assert!(matches!(pong.wait_timeout(SHORT), Err(Error::TimedOut(_))));
    drop((a, b));
}

#[test]
fn a_signal_is_taken_once_even_if_its_taker_ends() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "taker");
    let signal = a.semaphore("signal", 0).unwrap();
    for how in ["leaves", "exits"] {
        signal.post(1).unwrap();
        cluster.spawn(1, "signal_taker", &[("HOW", how)]).succeeds();
        // The taker's host has told the server by the time that it answers the next process there.
        cluster.join(1, "taker").fence_timeout(PATIENCE).unwrap();
        assert!(
            matches!(signal.wait_timeout(SHORT), Err(Error::TimedOut(_))),
            "a signal came back when its taker {how}"
        );
    }
    drop(a);
}

#[test]
fn signal_taker() {
    if !role("signal_taker") {
        return;
    }
    let session = join_by_environment("taker");
    session.semaphore("signal", 0).unwrap().wait_timeout(PATIENCE).unwrap();
    session.fence().unwrap();
    if std::env::var("HOW").unwrap() == "exits" {
        std::process::exit(0);
    }
}

#[test]
fn a_barrier_lets_all_through_together_and_one_leads() {
    let cluster = Cluster::new();
    let sessions: Vec<Session> = (0..3).map(|host| cluster.join(host, "barrier")).collect();
    let leaders = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for (rank, session) in sessions.iter().enumerate() {
            let leaders = &leaders;
            scope.spawn(move || {
                let words = session.array::<u64>("phase", 3).unwrap();
                let barrier = session.barrier("b", 3).unwrap();
                for phase in 1..=200u64 {
                    words.set(rank, phase);
                    if barrier.wait_timeout(PATIENCE).unwrap().is_leader() {
                        leaders.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    // Everything that was written before anybody arrived is here, without waiting.
                    assert!(words.iter().all(|seen| seen >= phase), "{:?} in phase {phase}", words.to_vec());
                    let _phase = barrier.phase();
                }
            });
        }
    });
    assert_eq!(leaders.into_inner(), 200);
    assert!(matches!(sessions[0].barrier("b", 4), Err(Error::TooLarge(_))));
    let lonely = sessions[1].barrier("lonely", 2).unwrap();
    assert!(matches!(lonely.wait_timeout(SHORT), Err(Error::TimedOut(_))));
    drop(sessions);
}

#[test]
fn barriers_hold_in_processes_without_a_terminal_and_lose_no_wake_up() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "sid");
    // Twelve times, since an earlier system of this kind hung in twelve of twelve.
    for round in 0..12 {
        let name = format!("round-{round}");
        let workers: Vec<_> =
            (0..4).map(|rank| cluster.spawn(rank % 2, "barrier_worker", &[("BARRIER", &name)])).collect();
        workers.into_iter().for_each(common::Process::succeeds);
    }
    assert_eq!(a.open::<u64>("passed").unwrap().atomic().fetch_add(0, SeqCst), 12 * 4 * 50);
    drop(a);
}

#[test]
fn barrier_worker() {
    if !role("barrier_worker") {
        return;
    }
    // No controlling terminal.
    nix::unistd::setsid().unwrap();
    let session = join_by_environment("sid");
    let barrier = session.barrier(&std::env::var("BARRIER").unwrap(), 4).unwrap();
    let passed = session.open::<u64>("passed").unwrap();
    for _ in 0..50 {
        barrier.wait_timeout(PATIENCE).unwrap();
        passed.atomic().fetch_add(1, SeqCst);
    }
}

#[test]
fn a_dead_owners_units_come_back_and_the_next_is_told() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "owner");
    let ready = a.open::<u64>("ready").unwrap();
    let lock = a.semaphore("lock", 1).unwrap();
    let holder = cluster.spawn(1, "lock_holder", &[]);
    eventually("the other process has the lock", || ready.get() == 1);
    assert!(lock.try_lock().unwrap().is_none());
    holder.kill();
    let news = lock.lock_timeout(PATIENCE).unwrap_err();
    assert!(matches!(news, LockError::OwnerDied(..)), "{news}");
    // Not recovered: the next is told again.
    drop(news);
    let guard = lock.lock_timeout(PATIENCE).unwrap_err().recover().unwrap();
    // What the dead one wrote before is here.
    assert_eq!(ready.get(), 1);
    drop(guard);
    drop(lock.lock_timeout(PATIENCE).unwrap());
    drop(a);
}

#[test]
fn lock_holder() {
    if !role("lock_holder") {
        return;
    }
    let session = join_by_environment("owner");
    let _g = session.semaphore("lock", 1).unwrap().lock().unwrap();
    session.open::<u64>("ready").unwrap().set(1);
    loop {
        std::thread::sleep(PATIENCE);
    }
}

#[test]
fn a_dead_party_breaks_the_barrier() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "party");
    let ready = a.open::<u64>("ready").unwrap();
    let barrier = a.barrier("b", 2).unwrap();
    let party = cluster.spawn(1, "barrier_party", &[]);
    eventually("the other party knows the barrier", || ready.get() == 1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| barrier.wait_timeout(PATIENCE));
        party.kill();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::BarrierBroken(_)), "{error}");
    });
    assert!(matches!(barrier.wait_timeout(PATIENCE), Err(Error::BarrierBroken(_))), "whoever comes later is told too");
    drop(a);
}

#[test]
fn barrier_party() {
    if !role("barrier_party") {
        return;
    }
    let session = join_by_environment("party");
    let _b = session.barrier("b", 2).unwrap();
    session.open::<u64>("ready").unwrap().set(1);
    loop {
        std::thread::sleep(PATIENCE);
    }
}

#[test]
fn waiting_shows_nobody_as_stopped() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "state");
    let ready = a.open::<u64>("ready").unwrap();
    let waiter = cluster.spawn(1, "state_waiter", &[]);
    eventually("the other process waits", || ready.get() == 1);
    for _ in 0..20 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", waiter.0.id())).unwrap();
        let state = stat.rsplit(") ").next().unwrap().chars().next().unwrap();
        assert!(!"TtZ".contains(state), "{stat}");
        std::thread::sleep(Duration::from_millis(2));
    }
    a.semaphore("go", 0).unwrap().post(1).unwrap();
    waiter.succeeds();
    drop(a);
}

#[test]
fn state_waiter() {
    if !role("state_waiter") {
        return;
    }
    let session = join_by_environment("state");
    session.open::<u64>("ready").unwrap().set(1);
    session.semaphore("go", 0).unwrap().wait().unwrap();
}
