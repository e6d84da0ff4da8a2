//! Hosts and processes that are stopped, and not dead: what waits for them, and what goes on.

mod common;

use common::{Cluster, GoesOn, PATIENCE, Watch, eventually, processor_time};
use dsm::prelude::*;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

/// How long a peer may be silent.
const SILENCE: Duration = Duration::from_millis(1500);

/// One at a time: they load the machine, and its patience is short.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static ENVIRONMENT: Once = Once::new();
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: before a cluster is made; all tests of this program wait here.
    ENVIRONMENT.call_once(|| unsafe { std::env::set_var("DSM_PEER_TIMEOUT_MS", SILENCE.as_millis().to_string()) });
    one
}

/// Lets more time pass than a peer may be silent. What is tested is that nothing happens meanwhile.
fn silence() {
    let start = Instant::now();
    while start.elapsed() < SILENCE * 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process of `stopped` is stopped while it holds the replica lock, and the others store.
fn a_lock_holder_is_stopped(stopped: usize) {
    let _alone = alone();
    let cluster = Cluster::new();
    let sessions = [0, 1, 2].map(|host| cluster.join(host, "held"));
    let words = sessions.each_ref().map(|session| session.array::<u64>("w", 64).unwrap());
    let others: Vec<usize> = (0..3).filter(|host| *host != stopped).collect();
    let watch = Watch::new(&cluster, stopped, "held");
    // The lease of atomics is back, and nothing is on its way.
    words[others[0]].atomic(0).fetch_add(1, SeqCst);
    words[others[1]].atomic(0).fetch_add(1, SeqCst);
    watch.lock_as(watch.process);
    words[others[0]].set(1, 7);
    eventually("the other host has it", || words[others[1]].get(1) == 7);
    // More than the one frame that waits for the lock.
    for round in 1..=20 {
        words[others[0]].set(4, round);
        eventually("the other host has it", || words[others[1]].get(4) == round);
    }
    let arbiter = cluster.arbiter_pid(stopped);
    let (before, start) = (processor_time(arbiter), Instant::now());
    silence();
    let (used, passed) = (processor_time(arbiter) - before, start.elapsed().as_millis() as u64);
    assert!(used < passed / 2, "the arbiter used {used} of {passed} ms while it had nothing to do");
    for session in &sessions {
        assert!(session.ended().is_none(), "{:?}", session.ended());
    }
    assert_eq!(words[stopped].get(1), 0, "applied without the lock");
    words[others[1]].set(2, 8);
    eventually("the others go on", || words[others[0]].get(2) == 8);
    watch.unlock();
    eventually("what was held up arrives", || (words[stopped].get(1), words[stopped].get(2)) == (7, 8));
    words[stopped].set(3, 9);
    eventually("it stores again", || words[others[0]].get(3) == 9);
    drop((watch, sessions));
}

#[test]
fn a_process_stopped_in_the_lock_stalls_its_host_only_and_for_as_long_as_it_likes() {
    a_lock_holder_is_stopped(1);
}

#[test]
fn the_same_beside_the_server() {
    a_lock_holder_is_stopped(0);
}

/// The first and another host store so much that a third, which takes nothing, makes them wait: until it is given up.
/// `stop` returns what, dropped, lets it go on; until then `meanwhile` is called all the time.
fn under_load<Stopped>(stopped: usize, stop: impl FnOnce(&Cluster) -> Stopped, meanwhile: impl Fn(&Stopped)) {
    let cluster = Cluster::new();
    let sessions = [0, 1, 2].map(|host| cluster.join(host, "load"));
    let words = sessions.each_ref().map(|session| session.array::<u64>("w", 64 << 10).unwrap());
    let others: Vec<usize> = (0..3).filter(|host| *host != stopped).collect();
    let enough = AtomicBool::new(false);
    let (stored, stopped_now) = std::thread::scope(|scope| {
        // Dropped when an assertion fails: nobody waits for ever then.
        let stopped_now = stop(&cluster);
        let enough_now = Enough(&enough);
        let storers: Vec<_> = others
            .iter()
            .map(|host| {
                let (words, enough) = (words[*host], &enough);
                let half = (*host == others[0]) as usize * (32 << 10);
                scope.spawn(move || {
                    let mut round = 0u64;
                    while !enough.load(Relaxed) {
                        round += 1;
                        let mut hole = words.range(half + 8..half + (16 << 10)).hole().unwrap();
                        hole.iter_mut().for_each(|word| *word = round);
                        hole.fill().unwrap();
                        words.set(half, round);
                    }
                    round
                })
            })
            .collect();
        // More than all sockets between them hold, twice: what goes on after the first half was not just on its way.
        let start = Instant::now();
        let far = |words: Slice<'_, u64>, half: usize| words.get(half) > 400;
        while !(far(words[others[1]], 32 << 10) && far(words[others[0]], 0)) {
            assert!(start.elapsed() < PATIENCE, "the others do not go on");
            assert!(others.iter().all(|host| sessions[*host].ended().is_none()), "one of the others is cut off");
            meanwhile(&stopped_now);
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(enough_now);
        (storers.into_iter().map(|storer| storer.join().unwrap()).collect::<Vec<_>>(), stopped_now)
    });
    println!("rounds of 128 KiB: {stored:?}");
    eventually("they are equal", || words[others[0]].to_vec() == words[others[1]].to_vec());
    drop(stopped_now);
    eventually("the one that was given up learns of it", || sessions[stopped].ended().is_some());
    let why = sessions[stopped].ended();
    assert!(matches!(why, Some(dsm::Error::SessionEnded { why: dsm::Ended::ServerGone, .. })), "{why:?}");
    assert!(others.iter().all(|host| sessions[*host].ended().is_none()));
    drop(sessions);
}

struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_stopped_arbiter_is_given_up_and_nobody_else() {
    let _alone = alone();
    under_load(2, |cluster| GoesOn::stop(cluster.arbiter_pid(2)), |_| ());
}

#[test]
fn a_host_whose_lock_is_held_under_load_is_given_up_and_nobody_else() {
    let _alone = alone();
    for stopped in [1, 0] {
        let stop = |cluster: &Cluster| {
            let joined = Watch::new(cluster, stopped, "load");
            joined.lock_as(joined.process);
            joined
        };
        // The log has news when the host is cut off; that these can go nowhere is not the reason that is given.
        under_load(stopped, stop, Watch::append);
    }
}

#[test]
fn a_stopped_arbiter_that_goes_on_in_time_loses_nothing() {
    let _alone = alone();
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "pause"), cluster.join(1, "pause"));
    let (here, there) = (a.array::<u64>("w", 64 << 10).unwrap(), b.array::<u64>("w", 64 << 10).unwrap());
    let pid = cluster.arbiter_pid(1);
    for round in 1..=3u64 {
        let stopped = GoesOn::stop(pid);
        let mut hole = here.hole().unwrap();
        hole.iter_mut().for_each(|word| *word = round);
        hole.fill().unwrap();
        drop(stopped);
        eventually("everything arrives", || there.iter().all(|word| word == round));
    }
    assert!(a.ended().is_none() && b.ended().is_none());
    drop((a, b));
}

#[test]
fn an_arbiter_that_can_send_nothing_sleeps() {
    let _alone = alone();
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "full"), cluster.join(1, "full"));
    let (here, there) = (a.array::<u64>("w", 64 << 10).unwrap(), b.array::<u64>("w", 64 << 10).unwrap());
    let arbiter = cluster.arbiter_pid(0);
    let (rounds, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let stopped = GoesOn::stop(cluster.arbiter_pid(1));
    std::thread::scope(|scope| {
        let enough_now = Enough(&enough);
        scope.spawn(|| {
            while !enough.load(Relaxed) {
                let round = rounds.load(Relaxed) + 1;
                let mut hole = here.hole().unwrap();
                hole.iter_mut().for_each(|word| *word = round);
                hole.fill().unwrap();
                rounds.store(round, Relaxed);
            }
        });
        // Until sockets, queue and ring are full, and the storer waits for room.
        let mut before = 0;
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = rounds.load(Relaxed);
            if now != 0 && now == before {
                break;
            }
            before = now;
        }
        let (before, start) = (processor_time(arbiter), Instant::now());
        std::thread::sleep(Duration::from_millis(300));
        let (used, passed) = (processor_time(arbiter) - before, start.elapsed().as_millis() as u64);
        drop((stopped, enough_now));
        assert!(used < passed / 2, "the arbiter used {used} of {passed} ms while it could send nothing");
    });
    let last = rounds.into_inner();
    eventually("everything arrives", || there.iter().all(|word| word == last));
    assert!(a.ended().is_none() && b.ended().is_none());
    drop((a, b));
}
