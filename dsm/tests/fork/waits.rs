//! Children that a signal handler makes in the middle of a wait.

use super::*;

/// A handler that interrupts a wait makes a child, which goes on after it, as its parent does.
#[test]
fn a_child_made_in_the_middle_of_a_wait_leaves_it_to_its_parent() {
    let cluster = Cluster::new();
    // Two hosts: atomics have to wait.
    let (a, b) = (cluster.join(0, "midway"), cluster.join(1, "midway"));
    let (here, there) = (a.array::<u64>("w", 256).unwrap(), b.array::<u64>("w", 256).unwrap());
    there.atomic(1).fetch_add(1, SeqCst);
    here.atomic(1).fetch_add(1, SeqCst);
    let arbiter = cluster.arbiter_pid(0);
    // Whatever becomes of the process that stops it.
    let goes_on = GoesOn(arbiter);
    cluster.spawn(0, "waits::forks_in_the_middle_of_a_wait", &[("ARBITER", &arbiter.to_string())]).succeeds();
    drop(goes_on);
    let added = if at_the_trap_door() { 0 } else { 2 };
    assert_eq!(there.atomic(0).fetch_add(0, SeqCst), added, "parent and child have added one each");
    for name in ["gate", "posted"] {
        assert!(a.semaphore(name, 0).unwrap().try_lock().unwrap().is_none(), "a unit of {name:?} too many");
    }
    let watch = Watch::new(&cluster, 0, "midway");
    eventually("no slot is left claimed", || watch.waits().all(|process| process == 0));
    drop((watch, a, b));
}

#[test]
fn forks_in_the_middle_of_a_wait() {
    if !role("waits::forks_in_the_middle_of_a_wait") {
        return;
    }
    let session = join_by_environment("midway");
    let words = session.array::<u64>("w", 256).unwrap();
    let gate = session.semaphore("gate", 0).unwrap();
    let watch = Watch::at(&own_dir(), "midway");
    // SAFETY: installs a handler.
    unsafe { libc::signal(libc::SIGUSR1, make_a_child as *const () as usize) };
    dsm::signals::adopt().unwrap();
    // SAFETY: takes nothing.
    let main = unsafe { libc::pthread_self() };
    let (parent, arbiter) = (std::process::id(), std::env::var("ARBITER").unwrap().parse().unwrap());
    let waits = || eventually("the main thread waits", || watch.waits().any(|process| process != 0));
    let make = || {
        CHILD.store(0, Relaxed);
        // SAFETY: the main thread lives until the scope ends.
        unsafe { libc::pthread_kill(main, libc::SIGUSR1) };
        eventually("there is a child", || CHILD.load(Relaxed) != 0);
        CHILD.load(Relaxed)
    };
    // A semaphore, whose unit the parent gets, whatever children there are.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            waits();
            for _ in 0..3 {
                assert_eq!(wait(make()), 0, "the child did not get an error");
            }
            gate.post(1).unwrap();
        });
        let result = gate.wait();
        end_if_child(parent, i32::from(!matches!(result, Err(dsm::Error::Unavailable(_)))));
        thread.join().unwrap();
        result.unwrap();
    });
    if skipped_at_the_trap_door() {
        return;
    }
    // An atomic, as if the signal had come before it: both carry it out.
    std::thread::scope(|scope| {
        // No answer comes meanwhile.
        let stopped = GoesOn::stop(arbiter);
        let thread = scope.spawn(move || {
            waits();
            let child = make();
            drop(stopped);
            wait(child) >> 8
        });
        let before = words.atomic(0).fetch_add(1, SeqCst);
        end_if_child(parent, before as i32);
        assert_eq!(before as i32 + thread.join().unwrap(), 1);
    });
    // Units that are given while somebody else has the replica lock: by the parent alone.
    let posted = session.semaphore("posted", 0).unwrap();
    std::thread::scope(|scope| {
        watch.lock_as(watch.process);
        let thread = scope.spawn(|| {
            let waiters = &watch.area().control.producer.lock_waiters;
            eventually("the main thread waits for the lock", || waiters.load(Relaxed) != 0);
            let child = make();
            watch.unlock();
            wait(child)
        });
        posted.post(1).unwrap();
        end_if_child(parent, 0);
        assert_eq!(thread.join().unwrap(), 0);
    });
    posted.wait().unwrap();
}
