//! Waiting until a word has a value: across hosts and processes, by every kind of store, without using the processor.

mod common;

use common::{Cluster, PATIENCE, eventually, join_by_environment, role};
use dsm::prelude::*;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(30);

/// Processor time that this thread has used.
fn used() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::new(time.tv_sec().unsigned_abs(), time.tv_nsec() as u32)
}

#[test]
fn a_token_goes_round_threads_of_two_hosts() {
    const ROUNDS: u64 = 150;
    let cluster = Cluster::new();
    let sessions = [cluster.join(0, "ring"), cluster.join(1, "ring")];
    // Neighbours share lines, so that waiters are also woken for nothing.
    let words: Vec<_> = (0..6).map(|rank| sessions[rank % 2].array::<u64>("words", 6).unwrap()).collect();
    std::thread::scope(|scope| {
        for (rank, words) in words.iter().enumerate() {
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    if rank > 0 || round > 1 {
                        let due = if rank == 0 { round - 1 } else { round };
                        words.at((rank + 5) % 6).wait_until_timeout(|seen| seen >= due, PATIENCE).unwrap();
                    }
                    words.set(rank, round);
                }
            });
        }
    });
    assert_eq!(words[0].at(5).wait_until_timeout(|seen| seen >= ROUNDS, PATIENCE).unwrap(), ROUNDS);
    drop(sessions);
}

/// Waits on `watched` for 1, 2, ... and has each one stored by one of `ways`, once this thread sleeps.
fn each_wakes(watched: Shared<'_, u64>, ways: &[&(dyn Fn(u64) + Sync)]) {
    for (way, value) in ways.iter().zip(1..) {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| watched.wait_until_timeout(|seen| seen == value, PATIENCE));
            // Long enough for it to sleep in most runs; either order must work.
            std::thread::sleep(Duration::from_millis(5));
            way(value);
            assert_eq!(waiting.join().unwrap().unwrap(), value);
        });
    }
}

#[test]
fn every_kind_of_store_wakes() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "kinds"), cluster.join(1, "kinds"));
    let (here, there) = (a.array::<u64>("words", 2000).unwrap(), b.array::<u64>("words", 2000).unwrap());
    for writer in [here, there] {
        let word = writer.at(1000);
        word.set(0);
        here.at(1000).wait_until_timeout(|seen| seen == 0, PATIENCE).unwrap();
        each_wakes(
            here.at(1000),
            &[
                &|value| word.set(value),
                &|value| assert_eq!(word.atomic().swap(value, SeqCst), value - 1),
                &|value| assert_eq!(word.atomic().fetch_add(1, SeqCst), value - 1),
                // SAFETY: within the array; traps, and is carried out.
                &|value| unsafe { word.as_ptr().write_volatile(value) },
                &|value| {
                    let mut hole = writer.hole().unwrap();
                    hole[1000] = value;
                    hole.fill().unwrap();
                },
                &|value| writer.fill(value),
            ],
        );
    }
    drop((a, b));
}

#[test]
fn an_atomic_under_the_lease_wakes_too() {
    let cluster = Cluster::new();
    let alone = cluster.join(0, "leased");
    let word = alone.open::<u64>("word").unwrap();
    each_wakes(
        word,
        &[&|value| word.set(value), &|value| assert_eq!(word.atomic().fetch_add(1, SeqCst), value - 1), &|value| {
            assert_eq!(word.atomic().fetch_add(1, SeqCst), value - 1)
        }],
    );
    assert_eq!(word.atomic().wait_until(|seen| seen == 3).unwrap(), 3);
    drop(alone);
}

#[test]
fn flags_atomics_and_what_is_read_only_can_be_waited_for() {
    use std::sync::atomic::{AtomicBool, AtomicU64};
    let cluster = Cluster::new();
    let sessions = [cluster.join(0, "signals"), cluster.join(1, "signals")];
    let [(ready, over, count), (ready_there, over_there, count_there)] = sessions.each_ref().map(|session| {
        let flag = session.open::<AtomicBool>("ready").unwrap().flag();
        (flag, session.open::<bool>("over").unwrap(), session.open::<AtomicU64>("count").unwrap().atomic())
    });
    std::thread::scope(|scope| {
        scope.spawn(move || {
            assert!(ready_there.wait_until_timeout(|ready| ready, PATIENCE).unwrap());
            assert_eq!(count_there.wait_until_timeout(|count| count >= 3, PATIENCE).unwrap(), 3);
            over_there.set(true);
        });
        ready.store(true, SeqCst);
        for before in 0..3 {
            assert_eq!(count.fetch_add(1, SeqCst), before);
        }
        assert!(over.read_only().wait_until_timeout(|over| over, PATIENCE).unwrap());
    });
    drop(sessions);
}

#[dsm::shared]
#[derive(Debug, PartialEq)]
#[repr(u16)]
enum Stage {
    Off = 0,
    Warm = 300,
    On = 301,
}

#[dsm::shared]
struct Machine {
    stage: Stage,
    pad: [u8; 2],
    sign: char,
}

#[test]
fn enums_and_characters_can_be_waited_for() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "stages"), cluster.join(1, "stages"));
    let (here, there) = (a.open::<Machine>("machine").unwrap(), b.open::<Machine>("machine").unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let stage = there.stage_ref().wait_until_timeout(|stage| stage == Ok(Stage::Warm), PATIENCE).unwrap();
            assert_eq!(stage, Ok(Stage::Warm));
            there.set_sign('ß');
            // What is no value is told, and can be waited for, too.
            let stage = there.stage_ref().read_only().wait_until_timeout(|stage| stage.is_err(), PATIENCE).unwrap();
            assert_eq!(stage.unwrap_err().bits, 17);
            there.set_sign('?');
            let stage = async_io::block_on(there.stage_ref().wait_until_async(|stage| stage == Ok(Stage::On)));
            assert_eq!(stage.unwrap(), Ok(Stage::On));
            there.set_sign('!');
        });
        here.set_stage(Stage::Warm);
        assert_eq!(here.sign_ref().wait_until_timeout(|sign| sign != Ok('\0'), PATIENCE).unwrap(), Ok('ß'));
        // SAFETY: the place of an enum that is stored as a `u16`; the store traps.
        unsafe { here.stage_ref().as_ptr().cast::<u16>().write_volatile(17) };
        assert!(here.sign_ref().wait_until_timeout(|sign| sign == Ok('?'), PATIENCE).unwrap().is_ok());
        here.set_stage(Stage::On);
        assert!(here.sign_ref().wait_until_timeout(|sign| sign == Ok('!'), PATIENCE).unwrap().is_ok());
    });
    let late = here.stage_ref().wait_until_timeout(|stage| stage == Ok(Stage::Off), SHORT);
    assert!(matches!(late, Err(Error::TimedOut(SHORT))));
    // In code for any scalar, too.
    fn any<T: dsm::Scalar + PartialEq>(word: Shared<'_, T>, value: T) -> T {
        word.set(value);
        word.wait_until_timeout(|seen| seen == value, PATIENCE).unwrap()
    }
    let word = a.open::<f32>("word").unwrap();
    assert_eq!((any(word, 0.5), word.swap(1.5, SeqCst)), (0.5, 0.5));
    drop((a, b));
}

#[test]
fn a_wait_ends_at_its_deadline_and_not_before() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "deadline");
    let word = a.open::<u32>("word").unwrap();
    let start = Instant::now();
    assert!(matches!(word.wait_until_timeout(|seen| seen > 0, SHORT), Err(Error::TimedOut(SHORT))));
    assert!(start.elapsed() >= SHORT);
    let error = word.atomic().wait_until_timeout(|seen| seen > 0, Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::TimedOut(Duration::ZERO)));
    word.set(7);
    assert_eq!(word.wait_until_timeout(|seen| seen > 0, Duration::ZERO).unwrap(), 7);
    assert_eq!(word.wait_until_timeout(|seen| seen > 0, Duration::MAX).unwrap(), 7);
    drop(a);
}

#[test]
fn a_waiter_uses_next_to_no_processor_time() {
    const WAIT: Duration = Duration::from_secs(2);
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "idle"), cluster.join(1, "idle"));
    let (word, other) = (a.open::<u64>("word").unwrap(), b.open::<u64>("word").unwrap());
    let (start, before) = (Instant::now(), used());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(WAIT);
            other.set(1);
        });
        word.wait_until_timeout(|seen| seen == 1, PATIENCE).unwrap();
    });
    let (elapsed, used) = (start.elapsed(), used() - before);
    println!("waited {elapsed:?}, used {used:?}");
    assert!(elapsed >= WAIT && used < WAIT / 20, "{used:?} of {elapsed:?}");
    drop((a, b));
}

#[test]
fn whoever_dies_waiting_harms_nobody_who_waits_beside_it() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "beside"), cluster.join(1, "beside"));
    let (words, there) = (a.array::<u64>("words", 2).unwrap(), b.array::<u64>("words", 2).unwrap());
    for round in 1..=10 {
        let dying = cluster.spawn(0, "waiter", &[]);
        eventually("the other process waits", || words.get(1) == round);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| words.at(0).wait_until_timeout(|seen| seen == round, PATIENCE));
            dying.kill();
            there.set(0, round);
            waiting.join().unwrap().unwrap();
        });
    }
    drop((a, b));
}

#[test]
fn waiter() {
    if !role("waiter") {
        return;
    }
    let session = join_by_environment("beside");
    let words = session.array::<u64>("words", 2).unwrap();
    words.at(1).atomic().fetch_add(1, SeqCst);
    words.at(0).wait_until(|_| false).unwrap();
}

#[test]
fn a_wait_ends_when_nobody_can_wake_it_any_more() {
    let cluster = Cluster::new();
    for how in [nix::sys::signal::Signal::SIGKILL, nix::sys::signal::Signal::SIGTERM] {
        let a = cluster.join(0, "over");
        let word = a.open::<u64>("word").unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| word.wait_until_timeout(|seen| seen == 1, PATIENCE));
            std::thread::sleep(SHORT);
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(cluster.arbiter_pid(0)), how).unwrap();
            let error = waiting.join().unwrap().unwrap_err();
            assert!(matches!(error, Error::ArbiterGone { .. } | Error::SessionEnded { .. }), "{error}");
        });
        drop(a);
        for left in std::fs::read_dir(cluster.dir(0)).into_iter().flatten() {
            // One that was told to stop may be about to do it itself.
            let _ = left.map(|left| std::fs::remove_file(left.path()));
        }
        let _ = std::fs::remove_dir(cluster.dir(0));
    }
}
