//! `fork` in programs with threads, `fork` in children, `fork` and `exec`: a child is a process of its own, and
//! nothing that another thread of its parent was doing at that moment can keep it from storing.

mod common;
#[path = "fork/waits.rs"]
mod waits;

use common::{
    Cluster, GoesOn, PATIENCE, Watch, at_the_trap_door, eventually, join_by_environment, own_dir, role,
    skipped_at_the_trap_door,
};
use dsm::prelude::*;
use dsm_core::wire::control::{Ask, frame};
use dsm_core::wire::{Hello, Role};
use futures_lite::future::{block_on, poll_once, zip};
use std::cell::Cell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Runs `action` in a child, which then ends at once; returns its number.
fn fork(action: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child runs `action` and ends without returning to the test harness.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // A child that hangs is found out by its parent, and ends with it.
        // SAFETY: asks to be killed with the parent.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action));
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    }
    child
}

/// Waits for a child; one that hangs is killed, and fails the test.
#[track_caller]
fn wait(child: libc::pid_t) -> i32 {
    let start = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: asks after our child.
        let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if ended == child {
            return status;
        }
        if start.elapsed() > PATIENCE {
            // SAFETY: our child.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("a child hangs");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// All that a process does: both doors, atomics, holes, opening.
fn everything(session: &Session, words: Slice<'_, u64>, number: usize) {
    let at = 16 + number % 32 * 4;
    words.set(at, number as u64);
    // SAFETY: within the array; traps.
    unsafe { words.as_ptr().wrapping_add(at + 1).write_volatile(number as u64) };
    words.atomic(0).fetch_add(1, SeqCst);
    // SAFETY: within the array; traps.
    unsafe { AtomicU64::from_ptr(words.as_ptr().wrapping_add(1)) }.fetch_add(1, Relaxed);
    let mut hole = words.range(at + 2..at + 4).hole().unwrap();
    hole.iter_mut().for_each(|word| *word += 1);
    hole.fill().unwrap();
    let other = session.open::<u64>(&format!("other-{}", number % 8)).unwrap();
    other.set(number as u64);
    let lock = session.semaphore("lock", 1).unwrap();
    let _guard = lock.lock_timeout(PATIENCE).unwrap();
    words.set(2, words.get(2) + 1);
}

#[test]
fn children_of_a_program_whose_threads_do_everything_meanwhile() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "fork"), cluster.join(1, "fork"));
    let (here, there) = (a.array::<u64>("w", 2048).unwrap(), b.array::<u64>("w", 2048).unwrap());
    let stop = AtomicBool::new(false);
    let forks = 25;
    std::thread::scope(|scope| {
        for thread in 0..3usize {
            let (a, stop, cluster) = (&a, &stop, &cluster);
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Relaxed) {
                    round += 1;
                    // A page of its own, for the raw hole.
                    let at = 512 + thread * 512;
                    here.set(at, round);
                    // SAFETY: within the array; traps.
                    unsafe { here.as_ptr().wrapping_add(at + 1).write_volatile(round) };
                    let mut hole = here.range(at + 8..at + 100).hole().unwrap();
                    hole.iter_mut().for_each(|word| *word = round);
                    hole.fill().unwrap();
                    drop(a.raw_hole(here.range(at + 2..at + 3).as_ptr().cast(), 8));
                    // The connection to the arbiter, and the list of segments.
                    a.open::<u64>("opened-all-the-time").unwrap().set(round);
                    if round % 16 == 0 {
                        drop(cluster.join(0, &format!("passing-{thread}")));
                    }
                }
            });
        }
        let children: Vec<_> = (0..forks)
            .map(|number| {
                let child = fork(|| {
                    everything(&a, here, number);
                    // A child of the child, which has threads of nobody but its own.
                    let grandchild = fork(|| everything(&a, here, number + 100));
                    assert_eq!(wait(grandchild), 0);
                    everything(&a, here, number + 200);
                });
                std::thread::sleep(Duration::from_millis(2));
                child
            })
            .collect();
        let statuses: Vec<i32> = children.into_iter().map(wait).collect();
        stop.store(true, Relaxed);
        assert!(statuses.iter().all(|status| *status == 0), "{statuses:?}");
    });
    let expected = 3 * forks as u64;
    assert_eq!(here.atomic(0).fetch_add(0, SeqCst), expected);
    assert_eq!(there.atomic(1).fetch_add(0, SeqCst), expected);
    let lock = b.semaphore("lock", 1).unwrap();
    let guard = lock.lock_timeout(PATIENCE).unwrap();
    assert_eq!(there.get(2), expected);
    drop(guard);
    here.set(3, 1);
    eventually("the last store arrives", || there.get(3) == 1);
    assert!(here.to_vec() == there.to_vec());
    drop((a, b));
}

#[test]
fn a_child_that_execs_and_one_that_only_exits() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "exec"), cluster.join(1, "exec"));
    let (here, there) = (a.array::<u64>("w", 256).unwrap(), b.array::<u64>("w", 256).unwrap());
    let stop = AtomicBool::new(false);
    let before = common::descriptors(std::process::id() as i32);
    std::thread::scope(|scope| {
        for thread in 0..2usize {
            let stop = &stop;
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Relaxed) {
                    round += 1;
                    here.set(thread, round);
                    // SAFETY: within the array; traps.
                    unsafe { here.as_ptr().wrapping_add(thread + 8).write_volatile(round) };
                }
            });
        }
        for round in 0..20 {
            // As std makes processes: vfork or posix_spawn, and, with a hook, fork and exec.
            assert!(Command::new("/bin/true").status().unwrap().success());
            let mut hooked = Command::new("/bin/true");
            let to = here.as_ptr() as usize + 20 * 8;
            let hook = move || {
                // SAFETY: within the array, which is mapped in the child as in its parent; traps.
                unsafe { (to as *mut u64).write_volatile(round + 1) };
                Ok(())
            };
            // SAFETY: the hook stores once, in what is by then a process of its own.
            unsafe { std::os::unix::process::CommandExt::pre_exec(&mut hooked, hook) };
            assert!(hooked.status().unwrap().success());
            assert_eq!(here.get(20), round + 1);
            assert_eq!(wait(fork(|| ())), 0);
            // Killed in the middle of whatever it does.
            let child = fork(|| {
                for round in 0.. {
                    here.set(24 + round as usize % 8, round);
                }
            });
            std::thread::sleep(Duration::from_micros(500 * round));
            // SAFETY: our child.
            unsafe { libc::kill(child, libc::SIGKILL) };
            assert_eq!(wait(child) & 0x7f, libc::SIGKILL);
        }
        stop.store(true, Relaxed);
    });
    // Other tests of this process open and close some meanwhile.
    eventually("no descriptors are left over", || common::descriptors(std::process::id() as i32) <= before + 4);
    here.set(40, 1);
    eventually("the last store arrives", || there.get(40) == 1);
    assert!(here.to_vec() == there.to_vec());
    // The processes that came and went are gone.
    eventually("one process is left on the host", || a.status().unwrap().processes.len() == 1);
    drop((a, b));
}

#[test]
fn fork_in_a_handler_that_interrupted_a_store() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "torn");
    let words = a.array::<u64>("w", 256).unwrap();
    cluster.spawn(0, "forks_in_a_handler", &[]).succeeds();
    words.atomic(0).fetch_add(1, SeqCst);
    assert!(words.get(1) > 0);
    drop(a);
}

static FORKED: AtomicU64 = AtomicU64::new(0);

/// The child execs at once, as such handlers do (crash reporters).
extern "C" fn forking(_: i32) {
    // SAFETY: the child ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for our child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    FORKED.fetch_add(u64::from(status == 0), Relaxed);
}

#[test]
fn forks_in_a_handler() {
    if !role("forks_in_a_handler") {
        return;
    }
    let session = join_by_environment("torn");
    let words = session.array::<u64>("w", 256).unwrap();
    for adopted in [false, true] {
        // SAFETY: installs a handler.
        unsafe { libc::signal(libc::SIGUSR1, forking as *const () as usize) };
        if adopted {
            dsm::signals::adopt().unwrap();
        }
        FORKED.store(0, Relaxed);
        // SAFETY: takes nothing.
        let main = unsafe { libc::pthread_self() };
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut sent = 0;
                while !stop.load(Relaxed) {
                    // One at a time: else the main thread does nothing but handle them.
                    if FORKED.load(Relaxed) == sent {
                        sent += 1;
                        // SAFETY: the main thread lives until this scope ends.
                        unsafe { libc::pthread_kill(main, libc::SIGUSR1) };
                    }
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
            let (start, mut round) = (Instant::now(), 0);
            while FORKED.load(Relaxed) < 30 && start.elapsed() < PATIENCE {
                round += 1;
                (0..100).for_each(|at| words.set(at % 7 + 1, round));
            }
            stop.store(true, Relaxed);
        });
        assert!(FORKED.load(Relaxed) >= 30, "{}", FORKED.load(Relaxed));
    }
}

#[test]
fn no_handler_runs_in_a_child_before_it_is_a_process_of_its_own() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "between");
    let words = a.array::<u64>("w", 256).unwrap();
    cluster.spawn(0, "signalled_while_it_forks", &[]).succeeds();
    assert_eq!((words.get(0), words.get(1)), (1, 1));
    drop(a);
}

static FORKING: AtomicBool = AtomicBool::new(false);
static CAME: AtomicU64 = AtomicU64::new(0);
static TOO_EARLY: AtomicU64 = AtomicU64::new(0);

/// Runs in parent and child, before the library's own handlers of `fork`, which were registered later.
extern "C" fn signal_myself() {
    FORKING.store(true, Relaxed);
    // SAFETY: sends a signal to this thread.
    unsafe { libc::raise(libc::SIGUSR1) };
    FORKING.store(false, Relaxed);
}

extern "C" fn note(_: i32) {
    CAME.fetch_add(1, Relaxed);
    TOO_EARLY.fetch_add(u64::from(FORKING.load(Relaxed)), Relaxed);
}

#[test]
fn signalled_while_it_forks() {
    if !role("signalled_while_it_forks") {
        return;
    }
    // SAFETY: installs a handler.
    unsafe { libc::signal(libc::SIGUSR1, note as *const () as usize) };
    // SAFETY: functions of this program.
    assert_eq!(unsafe { libc::pthread_atfork(None, Some(signal_myself), Some(signal_myself)) }, 0);
    let session = join_by_environment("between");
    let words = session.array::<u64>("w", 256).unwrap();
    let check = || assert_eq!((CAME.load(Relaxed), TOO_EARLY.load(Relaxed)), (1, 0));
    let child = fork(|| {
        check();
        words.set(0, 1);
    });
    assert_eq!(wait(child), 0);
    check();
    words.set(1, 1);
}

static CHILD: AtomicI32 = AtomicI32::new(0);

extern "C" fn make_a_child(_: i32) {
    // SAFETY: the child goes on where the signal came.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: asks to be killed with the parent.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    } else {
        CHILD.store(child, Relaxed);
    }
}

/// In a child, ends it.
fn end_if_child(parent: u32, code: i32) {
    if std::process::id() != parent {
        // SAFETY: ends the child.
        unsafe { libc::_exit(code) };
    }
}

/// The first program is gone when the second joins, although both have the same process number of the system, and the
/// second may map the log before the arbiter has looked whether the first still does.
#[test]
fn what_a_program_held_is_given_back_before_the_one_that_it_becomes_joins() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "becomes");
    let units = a.semaphore("units", 2).unwrap();
    let arbiter = cluster.arbiter_pid(0);
    // Whatever becomes of the process that stops it.
    let goes_on = GoesOn(arbiter);
    cluster.spawn(0, "becomes_another", &[("ARBITER", &arbiter.to_string())]).succeeds();
    drop(goes_on);
    assert!(units.try_acquire_many(2).unwrap().is_some(), "units that nobody has are not free");
    drop(a);
}

#[test]
fn becomes_another() {
    if !role("becomes_another") {
        return;
    }
    let arbiter: i32 = std::env::var("ARBITER").unwrap().parse().unwrap();
    if std::env::var_os("BECAME").is_none() {
        let session = join_by_environment("becomes");
        let units = session.semaphore("units", 2).unwrap();
        let guard = units.lock_timeout(PATIENCE).unwrap();
        // The arbiter finds the end of this program, and what the next one asks, at the same time.
        std::mem::forget(GoesOn::stop(arbiter));
        let mut next = Command::new(std::env::current_exe().unwrap());
        next.args(std::env::args_os().skip(1)).env("BECAME", "yes");
        let error = std::os::unix::process::CommandExt::exec(&mut next);
        drop(guard);
        panic!("{error}");
    }
    // Between our question and its look at the first program, the arbiter has much to answer.
    let asked = Watch::ask(&own_dir(), "becomes");
    let mut others = UnixStream::connect(own_dir().join("arbiter.sock")).unwrap();
    let mut bytes = bytemuck::bytes_of(&Hello::new(Role::Process, [0; 32], false)).to_vec();
    (0..1000).for_each(|id| bytes.extend(frame(&Ask::Status, id, 0, 0).unwrap()));
    others.write_all(&bytes).unwrap();
    drop(GoesOn(arbiter));
    let watch = Watch::joined(asked);
    let session = join_by_environment("becomes");
    let units = session.semaphore("units", 2).unwrap();
    // Both.
    let taken = units.acquire_many_timeout(2, PATIENCE / 3);
    let Err(died @ dsm::LockError::OwnerDied(..)) = taken else {
        panic!("what the first program held is still its own")
    };
    let guard = died.recover().unwrap();
    drop((guard, watch, others));
}

/// The number of a process is used again: a child may get the one that its parent had while it waited.
#[test]
fn a_child_with_its_parents_number_knows_that_it_is_not_the_one_that_waits() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "number");
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("result").display().to_string();
    // The number is free as soon as all is done for the dead, which is now and then just too late for the child.
    for round in 1.. {
        let mut parent = cluster.spawn(0, "is_killed_by_its_child", &[("RESULT", &path)]);
        let status = parent.0.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL), "{status}");
        let result = || std::fs::read_to_string(&path).unwrap_or_default();
        eventually("the child has ended its wait", || result().ends_with('.'));
        eventually("one process is left on the host", || a.status().unwrap().processes.len() == 1);
        match result().as_str() {
            "same number, the wait is its parent's." => break,
            "another number, the wait is its parent's." => assert!(round < 20, "never the same number"),
            other => panic!("{other}"),
        }
        std::fs::remove_file(&path).unwrap();
    }
    drop(a);
}

/// The log, for the child.
static LOG: OnceLock<Watch> = OnceLock::new();

/// Runs in the child before the library makes it a process of its own: its parent dies first.
extern "C" fn kill_the_parent() {
    let watch = LOG.get().expect("set before there is a child");
    let parent = std::os::unix::process::parent_id() as i32;
    // SAFETY: asks to be killed, should this hang.
    unsafe { libc::alarm(2 * PATIENCE.as_secs() as u32) };
    // SAFETY: ends the parent, which waits.
    unsafe { libc::kill(parent, libc::SIGKILL) };
    eventually("the parent is buried", || watch.waits().all(|process| process == 0));
}

#[test]
fn is_killed_by_its_child() {
    if !role("is_killed_by_its_child") {
        return;
    }
    // SAFETY: a function of this program.
    assert_eq!(unsafe { libc::pthread_atfork(None, None, Some(kill_the_parent)) }, 0);
    let session = join_by_environment("number");
    let gate = session.semaphore("gate", 0).unwrap();
    LOG.set(Watch::at(&own_dir(), "number")).unwrap_or_else(|_| panic!("set once"));
    let watch = LOG.get().unwrap();
    // SAFETY: installs a handler.
    unsafe { libc::signal(libc::SIGUSR1, make_a_child as *const () as usize) };
    dsm::signals::adopt().unwrap();
    // SAFETY: takes nothing.
    let main = unsafe { libc::pthread_self() };
    let parent = std::process::id();
    let number = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the main thread waits", || watch.waits().any(|process| process != 0));
            number.store(u64::from(watch.waits().find(|process| *process != 0).unwrap()), Relaxed);
            // SAFETY: the main thread lives until this process ends.
            unsafe { libc::pthread_kill(main, libc::SIGUSR1) };
        });
        let result = gate.wait();
        assert_ne!(std::process::id(), parent, "nobody has posted");
        // Its number now, as it says when it waits for something else.
        let (fence, seen) = (session.semaphore("other", 0).unwrap(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                eventually("it waits", || watch.waits().any(|process| process != 0));
                seen.store(u64::from(watch.waits().find(|process| *process != 0).unwrap()), Relaxed);
            });
            drop(fence.lock_timeout(Duration::from_millis(100)));
        });
        let same = if seen.load(Relaxed) == number.load(Relaxed) { "same number" } else { "another number" };
        let wait = match result {
            Err(dsm::Error::Unavailable(_)) => "the wait is its parent's".to_owned(),
            other => format!("{other:?}"),
        };
        std::fs::write(std::env::var("RESULT").unwrap(), format!("{same}, {wait}.")).unwrap();
        // SAFETY: ends the child, whose parent's other threads it does not have.
        unsafe { libc::_exit(0) };
    });
}

/// A destructor of a thread's own locals that runs behind all of the library's.
struct Late(Cell<Option<Box<dyn FnOnce()>>>);

impl Drop for Late {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

thread_local! {
    static LATE: Late = const { Late(Cell::new(None)) };
}

#[test]
fn fork_in_the_last_destructor_of_a_thread() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "late"), cluster.join(1, "late"));
    cluster.spawn(0, "forks_late", &[]).succeeds();
    let words = b.array::<u64>("w", 256).unwrap();
    assert_eq!((words.atomic(0).fetch_add(0, SeqCst), words.atomic(2).fetch_add(0, SeqCst)), (1, 1));
    eventually("one process is left on the host", || a.status().unwrap().processes.len() == 1);
    drop((a, b));
}

#[test]
fn forks_late() {
    if !role("forks_late") {
        return;
    }
    let session: &'static Session = Box::leak(Box::new(join_by_environment("late")));
    let words = session.array::<u64>("w", 256).unwrap();
    let before = session.status().unwrap().processes.len();
    let (sender, status) = std::sync::mpsc::channel();
    let ends = std::thread::spawn(move || {
        // Destructors run in the reverse order of first use: this one behind those of what follows.
        LATE.with(|late| {
            late.0.set(Some(Box::new(move || {
                let child = fork(|| {
                    words.atomic(0).fetch_add(1, SeqCst);
                    words.set(1, 1);
                    assert_eq!(session.status().unwrap().processes.len(), before + 1, "it is no process of its own");
                    // The turn to adopt is free.
                    std::thread::spawn(|| dsm::signals::adopt().unwrap()).join().unwrap();
                });
                sender.send(wait(child)).unwrap();
            })));
        });
        assert_eq!(wait(fork(|| words.set(3, 1))), 0);
        words.atomic(2).fetch_add(1, SeqCst);
    });
    ends.join().unwrap();
    assert_eq!(status.recv_timeout(PATIENCE), Ok(0));
    // The parent's own turn, too.
    dsm::signals::adopt().unwrap();
    drop(session.fence());
    // SAFETY: ends the process, whose session is never dropped.
    unsafe { libc::_exit(0) };
}

#[test]
fn a_child_made_in_the_middle_of_a_collective_leaves_it_to_its_parent() {
    let cluster = Cluster::new();
    let [one, other] = [0, 1].map(|rank| cluster.builder(rank, "ranks").rank(rank).size(2).join().unwrap());
    let world = one.world().unwrap();
    let watch = Watch::new(&cluster, 0, "ranks");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| world.all_gather(1u8));
        eventually("the thread waits", || watch.waits().any(|process| process != 0));
        assert_eq!(wait(fork(|| assert!(matches!(world.barrier(), Err(Error::Unavailable(_)))))), 0);
        assert_eq!(other.world().unwrap().all_gather(2u8).unwrap(), [1, 2]);
        assert_eq!(thread.join().unwrap().unwrap(), [1, 2]);
    });
    drop((watch, one, other));
}

#[test]
fn a_future_that_joins_ends_in_a_child_and_goes_on_in_its_parent() {
    let cluster = Cluster::new();
    let join = |host| Box::pin(cluster.builder(host, "joins").expect_timeout(2, PATIENCE).join_async());
    let (mut one, other) = (join(0), join(1));
    assert!(block_on(poll_once(one.as_mut())).is_none());
    let child = fork(|| {
        let result = block_on(one.as_mut());
        assert!(matches!(&result, Err(Error::Unavailable(text)) if text.contains("fork")), "{result:?}");
    });
    assert_eq!(wait(child), 0);
    let (one, other) = block_on(zip(one, other));
    assert_eq!(one.unwrap().rank() + other.unwrap().rank(), 1);
}
