//! Signal handlers that store, at any instruction; programs that handle SIGSEGV themselves; alternate stacks.
//!
//! What changes the actions of a whole process, or may end it, runs in a process of its own ([`child`]).

mod common;
#[path = "signals/faults.rs"]
mod faults;
#[path = "signals/jumps.rs"]
mod jumps;

use common::{Cluster, PATIENCE, Watch, eventually, join_by_environment, own_dir, role, skipped_at_the_trap_door};
use dsm::prelude::*;
use faults::{
    blocked, chains, overflow, own_handler, own_handler_after, own_handler_before, own_stack, passes_on, put_back,
    unblocked,
};
use jumps::{jumping, jumping_out_of_wait};
use std::os::unix::process::ExitStatusExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst as Strict};
use std::time::Instant;

type Info = *mut libc::siginfo_t;
type Context = *mut libc::c_void;

/// How long a program is interrupted all the time.
const WHILE: std::time::Duration = std::time::Duration::from_millis(400);

static SESSION: OnceLock<&'static Session> = OnceLock::new();
static WORDS: OnceLock<Slice<'static, u64>> = OnceLock::new();
static SEMAPHORE: OnceLock<dsm::Semaphore<'static>> = OnceLock::new();

fn words() -> Slice<'static, u64> {
    *WORDS.get().unwrap()
}

/// A plain store, as C would make it.
fn plain(at: usize, value: u64) {
    // SAFETY: within the array; traps.
    unsafe { words().as_ptr().wrapping_add(at).write_volatile(value) };
}

fn handle(signal: i32, handler: usize, flags: i32) {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags | libc::SA_RESTART;
    // SAFETY: the handlers of this file are made to be handlers.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }, 0);
}

/// Has the handler of `signal` not be interrupted by the two signals that are used here.
fn block_during(signal: i32) {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks.
    unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    for other in [libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: a set of ours.
        unsafe { libc::sigaddset(&raw mut action.sa_mask, other) };
    }
    // SAFETY: what was there, with another mask.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}

/// Are all stores made at the trap door? There no signal comes in the middle of one.
/// Runs the part `name` of [`child`] in a process on host 0 and returns how it ended; the other host must then have
/// the same bytes, which `check` looks at.
fn in_child(name: &str, check: impl FnOnce(&[u64])) -> std::process::ExitStatus {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "signals"), cluster.join(1, "signals"));
    let (here, there) = (a.array::<u64>("w", 512).unwrap(), b.array::<u64>("w", 512).unwrap());
    let mut process = cluster.spawn(0, "child", &[("PART", name)]);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.0.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < PATIENCE, "{name} does not end");
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    here.set(511, 1);
    eventually("the last store arrives", || there.get(511) == 1);
    let bytes = there.to_vec();
    assert!(here.to_vec() == bytes, "{name}: the hosts differ");
    check(&bytes);
    drop((a, b));
    status
}

#[track_caller]
fn succeeds(name: &str, check: impl FnOnce(&[u64])) {
    let mut bytes = Vec::new();
    let status = in_child(name, |found| bytes = found.to_vec());
    assert!(status.success(), "{name}: {status}");
    check(&bytes);
}

#[test]
fn child() {
    if !role("child") {
        return;
    }
    let part = std::env::var("PART").unwrap();
    let before: fn() = match part.as_str() {
        "own-handler-before" => || handle(libc::SIGSEGV, own_handler as *const () as usize, libc::SA_SIGINFO),
        "own-stack" => || own_stack(false),
        _ => || (),
    };
    before();
    let session = join_by_environment("signals").leak();
    let _ = SESSION.set(session);
    let _ = WORDS.set(session.array::<u64>("w", 512).unwrap());
    let _ = SEMAPHORE.set(session.semaphore("s", 0).unwrap());
    match part.as_str() {
        "counting" => hammered(counting as *const () as usize, libc::SA_SIGINFO, true),
        "counting-plain" => hammered(counting_plain as *const () as usize, 0, true),
        "counting-atomics" => hammered(counting_atomics as *const () as usize, libc::SA_NODEFER, true),
        "crossing" => crossing(),
        "posting" => hammered(posting as *const () as usize, 0, true),
        "unadopted" => hammered(storing as *const () as usize, libc::SA_NODEFER, false),
        "jumping" => jumping(),
        "jumping-out-of-wait" => jumping_out_of_wait(),
        "all-stacks" => all_stacks(),
        "profile" => profile(),
        "dies-unadopted" => dies_unadopted(),
        "own-handler-before" => own_handler_before(),
        "own-handler-after" => own_handler_after(),
        "passes-on" => passes_on(),
        "chains" => chains(),
        "put-back" => put_back(),
        "blocked" => blocked(),
        "unblocked" => unblocked(),
        "overflow" => overflow(&mut [0; 4096]),
        "overflow-in-thread" => std::thread::spawn(|| overflow(&mut [0; 4096])).join().unwrap(),
        "own-stack" => own_stack(true),
        part => panic!("no part {part}"),
    }
}

// Handlers that store.

/// Signals that were sent, and handlers that ran.
static RAN: AtomicU64 = AtomicU64::new(0);

/// Reads, and stores what it read and one more: any store that the handler does not see is a count that is lost.
extern "C" fn counting(_: i32, _: Info, _: Context) {
    begin();
    let words = words();
    for at in 100..103 {
        words.set(at, words.get(at) + 1);
    }
    // A line, so that more than a word is stored.
    words.range(104..112).copy_from_slice(&[words.get(100); 8]);
    end();
}

/// As before, by instructions that trap; the last of them reads and writes.
extern "C" fn counting_plain(_: i32) {
    begin();
    plain(100, words().get(100) + 1);
    plain(101, words().get(101) + 1);
    // SAFETY: within the array; traps.
    unsafe {
        std::arch::asm!("add qword ptr [{to}], 1", to = in(reg) words().as_ptr().wrapping_add(102), options(nostack));
    }
    end();
}

/// With SA_NODEFER: how deep handlers may interrupt each other.
const DEPTH: usize = 3;
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static BEGUN: AtomicU64 = AtomicU64::new(0);

fn begin() {
    RUNNING.fetch_add(1, Relaxed);
    BEGUN.fetch_add(1, Relaxed);
}

fn end() {
    RAN.fetch_add(1, Relaxed);
    RUNNING.fetch_sub(1, Relaxed);
}

extern "C" fn counting_atomics(_: i32) {
    begin();
    words().atomic(100).fetch_add(1, SeqCst);
    // SAFETY: within the array; traps.
    unsafe { AtomicU64::from_ptr(words().as_ptr().wrapping_add(101)) }.fetch_add(1, Strict);
    words().atomic(102).fetch_add(1, SeqCst);
    end();
}

extern "C" fn posting(_: i32) {
    begin();
    SEMAPHORE.get().unwrap().post(1).unwrap();
    for at in 100..103 {
        words().set(at, words().get(at) + 1);
    }
    end();
}

extern "C" fn storing(_: i32) {
    begin();
    words().set(100, RAN.load(Relaxed) + 1);
    plain(101, 1);
    words().set(102, 1);
    end();
}

/// The main thread does everything there is, while another one interrupts it as fast as it can.
fn hammered(handler: usize, flags: i32, adopt: bool) {
    if !adopt {
        // What comes by open and join is over: nobody adopts this one but the first store that it interrupts.
        assert_eq!(flags & libc::SA_SIGINFO, 0);
    }
    // Both signals have one handler, and it must not interrupt itself between reading and storing.
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        handle(signal, handler, flags);
        if flags & libc::SA_NODEFER == 0 {
            block_during(signal);
        }
    }
    if adopt {
        dsm::signals::adopt().unwrap();
    }
    // SAFETY: takes nothing.
    let main = unsafe { libc::pthread_self() };
    let stop = AtomicBool::new(false);
    let own = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let before = BEGUN.load(Relaxed);
                for signal in [libc::SIGUSR1, libc::SIGUSR2] {
                    // SAFETY: the main thread lives until this scope ends.
                    unsafe { libc::pthread_kill(main, signal) };
                }
                // Handlers that interrupt each other without end would end the stack: each must have begun, so that it
                // is counted, before more come; or be held back, which shows in nothing but time.
                let start = Instant::now();
                let soon = || start.elapsed() < std::time::Duration::from_micros(200);
                while !stop.load(Relaxed) && (BEGUN.load(Relaxed) == before && soon() || RUNNING.load(Relaxed) >= DEPTH)
                {
                    std::thread::yield_now();
                }
                for _ in 0..before % 200 {
                    std::hint::spin_loop();
                }
            }
        });
        let _stop = Stop(&stop);
        let (start, mut round) = (Instant::now(), 0u64);
        while start.elapsed() < WHILE || RAN.load(Relaxed) < 50 {
            assert!(start.elapsed() < PATIENCE);
            round += 1;
            // The direct door, mostly.
            (0..50).for_each(|at| words().set(at % 7, round));
            words().range(16..24).copy_from_slice(&[round; 8]);
            words().range(64..96).fill(round);
            plain(8, round);
            plain(9, round);
            if round % 16 == 0 && adopt {
                words().atomic(10).fetch_add(1, SeqCst);
                // SAFETY: within the array; traps.
                unsafe { AtomicU64::from_ptr(words().as_ptr().wrapping_add(11)) }.fetch_add(1, Strict);
                let mut hole = words().range(32..40).hole().unwrap();
                hole.iter_mut().for_each(|word| *word = round);
                hole.fill().unwrap();
                let own = SESSION.get().unwrap().semaphore("own", 1).unwrap();
                drop(own.lock().unwrap());
            }
        }
        round
    });
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        handle(signal, libc::SIG_IGN, 0);
    }
    let ran = RAN.load(Relaxed);
    println!("{own} rounds, {ran} handlers");
    assert_eq!(words().get(6), own);
    plain(6, 6);
    words().set(300, ran);
    if adopt {
        assert_eq!((words().get(10), words().get(11), words().get(32)), (own / 16, own / 16, own / 16 * 16));
        for at in 100..103 {
            assert_eq!(words().get(at), ran, "at {at}: a handler did not see what it had stored");
        }
    }
}

/// Ends the thread that interrupts, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn handlers_interrupt_stores_and_count_exactly() {
    for name in ["counting", "counting-plain"] {
        succeeds(name, |bytes| {
            assert!(bytes[300] >= 50);
            assert_eq!(bytes[100..103], [bytes[300]; 3]);
        });
    }
}

#[test]
fn handlers_use_atomics_and_semaphores() {
    for name in ["counting-atomics", "posting"] {
        succeeds(name, |bytes| assert_eq!(bytes[100..103], [bytes[300]; 3]));
    }
}

#[test]
fn a_handler_that_nobody_adopted_does_not_deadlock() {
    succeeds("unadopted", |bytes| assert!(bytes[100] > 0 && bytes[101..103] == [1, 1]));
}

/// Handlers of two signals that do not block each other, nor themselves for longer than they run: each may come when the
/// other has just been held.
fn crossing() {
    static CAME: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    extern "C" fn first(_: i32) {
        CAME[0].fetch_add(1, Strict);
        words().set(100, CAME[0].load(Strict));
    }
    extern "C" fn second(_: i32) {
        CAME[1].fetch_add(1, Strict);
        words().set(101, CAME[1].load(Strict));
    }
    handle(libc::SIGUSR1, first as *const () as usize, 0);
    handle(libc::SIGUSR2, second as *const () as usize, 0);
    dsm::signals::adopt().unwrap();
    // SAFETY: takes nothing.
    let main = unsafe { libc::pthread_self() };
    let rounds = 40_000;
    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                for signal in [libc::SIGUSR1, libc::SIGUSR2] {
                    // SAFETY: the main thread lives until this scope ends.
                    unsafe { libc::pthread_kill(main, signal) };
                }
                sent.store(round, Strict);
                // Each must come before it is sent again, as two that wait are one.
                while CAME.iter().any(|came| came.load(Strict) < round) && !stop.load(Relaxed) {
                    std::hint::spin_loop();
                }
            }
        });
        let _stop = Stop(&stop);
        let (mut last, mut since, mut number) = (0, Instant::now(), 0u64);
        while CAME.iter().any(|came| came.load(Strict) < rounds) {
            number += 1;
            (0..20).for_each(|at| words().set(at % 7, number));
            let now = CAME[0].load(Strict) + CAME[1].load(Strict);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            let counts = (sent.load(Strict), CAME[0].load(Strict), CAME[1].load(Strict));
            assert!(since.elapsed() < PATIENCE / 2, "a signal was lost, or is blocked for ever: {counts:?}");
        }
    });
    let mut blocked = 0u64;
    // SAFETY: asks for this thread's mask, of the kernel's size.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0usize, &raw mut blocked, size_of::<u64>()) };
    assert_eq!(blocked, 0);
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        handle(signal, libc::SIG_IGN, 0);
    }
    words().set(300, CAME[0].load(Strict));
    words().set(301, CAME[1].load(Strict));
}

#[test]
fn handlers_that_do_not_block_each_other_are_all_called() {
    succeeds("crossing", |bytes| assert!(bytes[300..302] == [40_000; 2] && bytes[100..102] == [40_000; 2]));
}

/// As many threads as there are stacks wait at the trap door for the lock. A handler of a thread that may hold it does
/// not wait for one of theirs.
fn all_stacks() {
    static HANDLED: AtomicBool = AtomicBool::new(false);
    extern "C" fn trapping(_: i32) {
        plain(3, 33);
        HANDLED.store(true, Strict);
    }
    // Nobody adopts handlers of this one.
    handle(libc::SIGTRAP, trapping as *const () as usize, 0);
    let watch = Watch::at(&own_dir(), "signals");
    watch.lock_as(watch.process);
    // SAFETY: takes nothing.
    let main = unsafe { libc::pthread_self() };
    let count = 300;
    let begun = AtomicUsize::new(0);
    let waiters = &watch.area().control.producer.lock_waiters;
    std::thread::scope(|scope| {
        for thread in 0..count {
            let begun = &begun;
            scope.spawn(move || {
                begun.fetch_add(1, Strict);
                plain(150 + thread % 100, thread as u64);
            });
        }
        eventually("they wait", || begun.load(Strict) == count && waiters.load(Relaxed) >= 255);
        scope.spawn(|| {
            eventually("the main thread waits", || waiters.load(Relaxed) >= 256);
            // SAFETY: the main thread lives until this scope ends.
            unsafe { libc::pthread_kill(main, libc::SIGTRAP) };
            eventually("the handler is done", || HANDLED.load(Strict));
            watch.unlock();
        });
        words().set(2, 22);
    });
}

#[test]
fn a_handler_that_interrupts_a_store_finds_a_stack_of_its_own() {
    if skipped_at_the_trap_door() {
        return;
    }
    succeeds("all-stacks", |bytes| assert_eq!(bytes[2..4], [22, 33]));
}

/// An interval timer, as profilers use it, in a program with several threads.
fn profile() {
    handle(libc::SIGPROF, counting_atomics as *const () as usize, 0);
    dsm::signals::adopt().unwrap();
    let every = libc::timeval { tv_sec: 0, tv_usec: 500 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: a valid timer.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) }, 0);
    std::thread::scope(|scope| {
        let work = |thread: usize| {
            move || {
                let start = Instant::now();
                let mut round = 0;
                // The timer counts this process's time, in ticks of the kernel's.
                while start.elapsed() < WHILE || RAN.load(Relaxed) < 20 {
                    assert!(start.elapsed() < PATIENCE);
                    round += 1;
                    words().set(thread, round);
                    plain(thread + 8, round);
                    words().range(200 + thread * 16..216 + thread * 16).fill(round);
                }
                assert_eq!((words().get(thread), words().get(thread + 8)), (round, round));
            }
        };
        let threads: Vec<_> = (0..3).map(|thread| scope.spawn(work(thread))).collect();
        // The end of the scope waits for the closures only: a handler can interrupt what a thread does after its own.
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    // SAFETY: all zeros is a timer that is off.
    let off: libc::itimerval = unsafe { std::mem::zeroed() };
    // SAFETY: a valid timer.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const off, std::ptr::null_mut()) };
    // What is still on its way is dropped; what the test harness's thread has begun ends.
    handle(libc::SIGPROF, libc::SIG_IGN, 0);
    let start = Instant::now();
    while RUNNING.load(Relaxed) > 0 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    words().set(300, RAN.load(Relaxed));
}

#[test]
fn a_profiling_timer_interrupts_all_threads() {
    succeeds("profile", |bytes| {
        assert!(bytes[300] > 10);
        // One may have interrupted the harness's thread, and not begun to count, when the timer was stopped.
        assert!(bytes[100] - bytes[300] <= 1 && bytes[102] - bytes[300] <= 1, "{:?}", &bytes[100..103]);
    });
}

static INSIDE: AtomicBool = AtomicBool::new(false);

extern "C" fn atomic_inside(_: i32) {
    words().atomic(100).fetch_add(1, SeqCst);
    INSIDE.store(true, Relaxed);
}

/// What must wait, in a handler that nobody adopted: in time it interrupts a store, and the process ends with a word.
fn dies_unadopted() {
    handle(libc::SIGUSR1, atomic_inside as *const () as usize, 0);
    // SAFETY: takes nothing.
    let main = unsafe { libc::pthread_self() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                // SAFETY: the main thread lives until this scope ends, which it does not.
                unsafe { libc::pthread_kill(main, libc::SIGUSR1) };
                (0..500).for_each(|_| std::hint::spin_loop());
            }
        });
        for round in 0.. {
            words().set(round as usize % 7, round);
        }
    });
}

#[test]
fn what_has_to_wait_in_a_handler_that_nobody_adopted_ends_the_process_and_frees_the_lock() {
    if skipped_at_the_trap_door() {
        return;
    }
    let status = in_child("dies-unadopted", |_| ());
    assert_eq!(status.signal(), Some(libc::SIGABRT));
}

// Programs that handle SIGSEGV themselves.
