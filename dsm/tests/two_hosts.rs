//! Two virtual hosts, each with an arbiter of its own, in this one test process.

use dsm::prelude::*;
use std::time::{Duration, Instant};

#[dsm::shared]
pub struct Board {
    pub turn: u32,
    pub phase: u32,
    pub scores: [u64; 64],
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_store_on_one_host_is_seen_on_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let a = Session::builder("game").runtime_dir(dir.path().join("a")).join().unwrap();
    let b = Session::builder("game").runtime_dir(dir.path().join("b")).daemon(a.daemon()).join().unwrap();
    assert_ne!(a.host(), b.host());
    let here = a.open::<Board>("board").unwrap();
    let there = b.open::<Board>("board").unwrap();
    here.set_turn(7);
    eventually("turn", || there.turn() == 7);
    // SAFETY: a plain store through the view's pointer is what the trap door is for.
    unsafe { (*here.as_ptr()).phase = 9 };
    eventually("phase", || there.phase() == 9);
    there.scores().set(3, 42);
    eventually("score", || here.scores().get(3) == 42);
    assert_eq!(here.phase_atomic().fetch_add(1, SeqCst), 9);
    assert_eq!(there.phase_atomic().fetch_add(1, SeqCst), 10);
    a.fence().unwrap();
    let sem = a.semaphore("s", 1).unwrap();
    let guard = sem.lock().unwrap();
    here.set_turn(8);
    drop(guard);
    let _g = b.semaphore("s", 1).unwrap().lock().unwrap();
    assert_eq!(there.turn(), 8);
    let mut hole = there.hole().unwrap();
    hole.scores.iter_mut().for_each(|s| *s += 1);
    hole.fill().unwrap();
    eventually("hole", || here.scores().get(3) == 43 && here.scores().get(63) == 1);
}
