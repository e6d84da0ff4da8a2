//! `kill -9` at chosen instants of a capture. A child is stepped through one store, an instruction at a time (ptrace),
//! and killed after the k-th: for every k (up to 300 of them) while it holds the replica lock and shortly before and
//! after, and for some in between. Each time the lock must come free, the log must stay readable, and the store must be there on all hosts
//! or on none.

mod common;

use common::{Cluster, Watch, eventually, own_dir, role};
use dsm::prelude::*;
use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Steps before the lock is taken and after it is given back at which every kill is tried.
const MARGIN: usize = 12;
/// Kills within; where the lock is held for more instructions, they are spread evenly.
const INSIDE: usize = 300;
/// Kills outside of that.
const OUTSIDE: usize = 30;
/// Where the kernel keeps a tracee's instruction pointer.
const RIP: u64 = std::mem::offset_of!(libc::user_regs_struct, rip) as u64;
/// No capture takes as many instructions.
const MOST: usize = 400_000;

/// A child that waits to be stepped through its store.
struct Victim {
    pid: libc::pid_t,
    /// To be delivered with the next step.
    signal: libc::c_int,
}

enum Now {
    Stopped,
    Ended,
}

impl Victim {
    /// `None` where tracing is not allowed.
    ///
    /// `before` is what it does before it waits.
    fn new(before: impl FnOnce(), store: impl FnOnce()) -> Option<Self> {
        // SAFETY: the child stores, and ends without returning to the test harness.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: asks to be killed with the parent.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // Not traced yet: every trap would stop it.
            before();
            // SAFETY: asks to be traced by the parent.
            let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } == 0;
            if !traced {
                // SAFETY: ends the child.
                unsafe { libc::_exit(77) };
            }
            // SAFETY: stops the child for its parent.
            unsafe { libc::raise(libc::SIGSTOP) };
            store();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) };
        }
        let mut victim = Self { pid, signal: 0 };
        match victim.wait() {
            Now::Stopped => {
                victim.signal = 0;
                Some(victim)
            }
            Now::Ended => None,
        }
    }

    fn wait(&mut self) -> Now {
        let mut status = 0;
        // SAFETY: waits for our child.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.pid);
        if !libc::WIFSTOPPED(status) {
            self.pid = 0;
            assert!(libc::WIFEXITED(status) || libc::WTERMSIG(status) == libc::SIGKILL, "status {status:#x}");
            return Now::Ended;
        }
        // A fault is the child's to handle.
        self.signal = if libc::WSTOPSIG(status) == libc::SIGSEGV { libc::SIGSEGV } else { 0 };
        Now::Stopped
    }

    /// A request without memory of ours.
    fn request(&self, request: libc::c_uint, at: u64, data: i64) -> i64 {
        // SAFETY: our stopped child; no memory of ours is touched.
        unsafe { libc::ptrace(request, self.pid, at, data) }
    }

    /// Lets the child execute one instruction.
    fn step(&mut self) -> Now {
        assert_eq!(self.request(libc::PTRACE_SINGLESTEP, 0, i64::from(self.signal)), 0);
        self.wait()
    }

    /// Address of the next instruction.
    fn next(&self) -> u64 {
        self.request(libc::PTRACE_PEEKUSER, RIP, 0) as u64
    }

    /// Lets the child run up to the instruction at `address`, by a breakpoint in its copy of the code.
    fn run_to(&mut self, address: u64) -> Now {
        let code = self.request(libc::PTRACE_PEEKTEXT, address, 0);
        self.request(libc::PTRACE_POKETEXT, address, code & !0xff | 0xcc);
        loop {
            assert_eq!(self.request(libc::PTRACE_CONT, 0, i64::from(self.signal)), 0);
            if matches!(self.wait(), Now::Ended) {
                return Now::Ended;
            }
            if self.signal == 0 && self.next() == address + 1 {
                self.request(libc::PTRACE_POKETEXT, address, code);
                self.request(libc::PTRACE_POKEUSER, RIP, address as i64);
                return Now::Stopped;
            }
        }
    }

    /// Kills it, and does not wait.
    fn kill(&self) {
        if self.pid != 0 {
            // SAFETY: our child.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
    }

    /// Lets it go on to its end.
    fn release(mut self) {
        // Still traced: a trap that is left of the last step would end it.
        loop {
            assert_eq!(self.request(libc::PTRACE_CONT, 0, i64::from(self.signal)), 0);
            if matches!(self.wait(), Now::Ended) {
                return;
            }
        }
    }
}

/// Kills it.
impl Drop for Victim {
    fn drop(&mut self) {
        if self.pid != 0 {
            self.kill();
            let _ = self.wait();
        }
    }
}

/// The ground of a test: an array on two hosts.
struct Ground<'s> {
    watch: Watch,
    here: Slice<'s, u64>,
    there: Slice<'s, u64>,
}

/// Elements that the victims store to; behind them lie those of the checks.
const WORDS: usize = 512;

fn with_ground(test: impl FnOnce(&Ground<'_>)) {
    // One at a time: every child joins all sessions of this process.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "death"), cluster.join(1, "death"));
    let (here, there) = (a.array::<u64>("w", WORDS + 64).unwrap(), b.array::<u64>("w", WORDS + 64).unwrap());
    test(&Ground { watch: Watch::new(&cluster, 0, "death"), here, there });
    drop((a, b));
}

impl Ground<'_> {
    /// A store by another process of the host: how long it took to get the lock. Afterwards both hosts have the same.
    fn check(&self) -> (Duration, Vec<u64>) {
        let start = Instant::now();
        let mark = self.here.get(WORDS) + 1;
        self.here.set(WORDS, mark);
        let took = start.elapsed();
        eventually("the other host has the next store", || self.there.get(WORDS) == mark);
        let (ours, theirs) = (self.here.range(..WORDS).to_vec(), self.there.range(..WORDS).to_vec());
        assert!(ours == theirs, "the hosts differ");
        (took, ours)
    }

    /// Steps victims through `store(round)`, kills them, and has `whole(before, after, round)` say whether all of the
    /// store is there (`Some(true)`), nothing (`Some(false)`), or something in between.
    fn kill_everywhere(&self, name: &str, store: impl Fn(u64), whole: impl Fn(&[u64], &[u64], u64) -> Option<bool>) {
        self.kill_everywhere_after(name, || (), store, whole);
    }

    /// As [`Ground::kill_everywhere`], of victims that do something before they are stepped, to be `favoured`.
    fn kill_everywhere_after(
        &self,
        name: &str,
        favoured: impl Fn(),
        store: impl Fn(u64),
        whole: impl Fn(&[u64], &[u64], u64) -> Option<bool>,
    ) {
        // One goes all the way, and shows when it holds the lock.
        let Some(mut victim) = Victim::new(&favoured, || store(1)) else {
            eprintln!("skipped: {name}: this process may not trace its children");
            return;
        };
        let mut held = Vec::new();
        let mut steps = 0;
        // Single steps are slow: instructions of this program that come for the first time serve as breakpoints.
        let ours = |address: u64| address >> 40 == Self::check as *const () as u64 >> 40;
        let (mut seen, mut breakpoints) = (HashSet::from([victim.next()]), vec![(0, 0)]);
        while matches!(victim.step(), Now::Stopped) {
            steps += 1;
            let next = victim.next();
            if ours(next) && seen.insert(next) && victim.signal == 0 {
                breakpoints.push((steps, next));
            }
            assert!(steps < MOST, "{name}: the store does not end");
            if self.watch.held() {
                held.push(steps);
            }
        }
        let (first, last) = (held[0].saturating_sub(MARGIN), (held[held.len() - 1] + MARGIN).min(steps));
        let (stride, fine) = ((steps / OUTSIDE).max(1), (last - first).div_ceil(INSIDE));
        let kills = (1..steps).filter(|k| {
            let inside = (first..=last).contains(k);
            if inside { (k - first).is_multiple_of(fine) } else { k.is_multiple_of(stride) }
        });
        let (_, mut before) = self.check();
        let (mut round, mut with_lock, mut done) = (1, 0, 0);
        let mut times = Vec::new();
        for k in kills {
            round += 1;
            let mut victim = Victim::new(&favoured, || store(round)).expect("the first could be traced");
            let (from, address) = breakpoints[breakpoints.partition_point(|(step, _)| *step <= k) - 1];
            let mut now = if from == 0 { Now::Stopped } else { victim.run_to(address) };
            for _ in from..k {
                if matches!(now, Now::Stopped) {
                    now = victim.step();
                }
            }
            let locked = self.watch.held();
            with_lock += usize::from(locked);
            victim.kill();
            let (took, after) = self.check();
            if locked {
                times.push(took);
            }
            match whole(&before, &after, round) {
                Some(is) => done += usize::from(is),
                None => panic!("{name}, killed after {k} instructions: half a store: {:?}", changes(&before, &after)),
            }
            before = after;
        }
        times.sort();
        let median = times[times.len() / 2];
        println!(
            "{name}: {steps} instructions, {} killed, {with_lock} with the lock, {done} stores happened; \
             from the kill until another had stored: median {median:?}, longest {:?}",
            round - 1,
            times[times.len() - 1]
        );
        assert!(
            with_lock >= held.len() / fine / 2,
            "{name}: {with_lock} of {} instants with the lock were tried",
            held.len()
        );
        assert!(done > 0 && done < round as usize, "{name}: {done} of {round}");
        // Naps are 2 ms: a wait that is ended by nothing but its naps, or by ticks of a second, shows.
        assert!(median < Duration::from_millis(500), "{name}: {median:?}");
    }
}

/// All of `words` from `at` on have `new`, and nothing else has changed; or nothing at all has.
fn all_or_nothing(before: &[u64], after: &[u64], at: usize, new: &[u64]) -> Option<bool> {
    if before == after {
        return Some(false);
    }
    let mut expected = before.to_vec();
    expected[at..at + new.len()].copy_from_slice(new);
    (expected == after).then_some(true)
}

/// Index, value before, value after.
fn changes(before: &[u64], after: &[u64]) -> Vec<(usize, u64, u64)> {
    let pairs = before.iter().zip(after).enumerate();
    pairs.filter(|(_, (old, new))| old != new).map(|(at, (old, new))| (at, *old, *new)).collect()
}

#[test]
fn a_word_at_the_direct_door() {
    with_ground(|ground| {
        ground.kill_everywhere(
            "direct word",
            |round| ground.here.set(5, round),
            |before, after, round| all_or_nothing(before, after, 5, &[round]),
        );
    });
}

/// Stores until the lock is biased to this thread.
fn be_favoured(ground: &Ground<'_>) {
    let log = ground.watch.area().log();
    for _ in 0..20 * dsm_core::bias::PATIENCE {
        ground.here.set(6, 6);
        if log.lock().holder() != 0 {
            return;
        }
    }
    panic!("the lock is biased to nobody");
}

#[test]
fn a_word_of_a_favoured_thread() {
    with_ground(|ground| {
        ground.here.set(6, 6);
        ground.kill_everywhere_after(
            "favoured word",
            || be_favoured(ground),
            |round| ground.here.set(5, round),
            |before, after, round| all_or_nothing(before, after, 5, &[round]),
        );
    });
}

#[test]
fn an_atomic_of_a_favoured_thread() {
    with_ground(|ground| {
        ground.here.set(6, 6);
        ground.kill_everywhere_after(
            "favoured atomic",
            || be_favoured(ground),
            |_| _ = ground.here.atomic(40).fetch_add(1, SeqCst),
            |before, after, _| match after[40].wrapping_sub(before[40]) {
                more @ 0..=1 => all_or_nothing(before, after, 40, &[before[40] + more]).map(|_| more == 1),
                _ => None,
            },
        );
    });
}

#[test]
fn a_line_at_the_direct_door() {
    with_ground(|ground| {
        ground.kill_everywhere(
            "direct line",
            |round| ground.here.range(8..16).copy_from_slice(&[round; 8]),
            // In trap mode this is one store for each word.
            |before, after, round| match std::env::var_os("DSM_CAPTURE") {
                None => all_or_nothing(before, after, 8, &[round; 8]),
                Some(_) => Some(after[8] == round).filter(|_| before[..8] == after[..8] && before[16..] == after[16..]),
            },
        );
    });
}

#[test]
fn a_word_at_the_trap_door() {
    with_ground(|ground| {
        ground.kill_everywhere(
            "trapped word",
            // SAFETY: within the array; traps.
            |round| unsafe { ground.here.as_ptr().wrapping_add(7).write_volatile(round) },
            |before, after, round| all_or_nothing(before, after, 7, &[round]),
        );
    });
}

#[test]
fn a_vector_at_the_trap_door() {
    with_ground(|ground| {
        ground.kill_everywhere(
            "trapped vector",
            |round| {
                // SAFETY: within the array; traps.
                unsafe {
                    std::arch::asm!("movq xmm0, {r}", "punpcklqdq xmm0, xmm0", "movups [{to}], xmm0", r = in(reg) round,
                        to = in(reg) ground.here.as_ptr().wrapping_add(21), out("xmm0") _, options(nostack));
                }
            },
            |before, after, round| all_or_nothing(before, after, 21, &[round; 2]),
        );
    });
}

#[test]
fn an_atomic_at_the_direct_door() {
    with_ground(|ground| {
        ground.kill_everywhere(
            "direct atomic",
            |_| {
                ground.here.atomic(40).fetch_add(1, SeqCst);
            },
            // It may still be on its way when the next store is not: the order says.
            |before, after, _| match after[40].wrapping_sub(before[40]) {
                more @ 0..=1 => all_or_nothing(before, after, 40, &[before[40] + more]).map(|_| more == 1),
                _ => None,
            },
        );
    });
}

#[test]
fn a_locked_instruction_at_the_trap_door() {
    with_ground(|ground| {
        ground.kill_everywhere(
            "locked instruction",
            |_| {
                // SAFETY: within the array; traps.
                unsafe {
                    std::arch::asm!("lock add qword ptr [{to}], 1",
                        to = in(reg) ground.here.as_ptr().wrapping_add(41), options(nostack));
                }
            },
            |before, after, _| match after[41].wrapping_sub(before[41]) {
                more @ 0..=1 => all_or_nothing(before, after, 41, &[before[41] + more]).map(|_| more == 1),
                _ => None,
            },
        );
    });
}

#[test]
fn the_publication_of_a_hole() {
    with_ground(|ground| {
        // Two lines of one page: one record. What is larger is whole for each run of changed lines of a page.
        let hole_of = |round: u64| {
            let mut hole = ground.here.range(128..144).hole().unwrap();
            hole.iter_mut().step_by(5).for_each(|word| *word = round);
            hole.fill().unwrap();
        };
        ground.kill_everywhere("hole", hole_of, |before, after, round| {
            if before == after {
                return Some(false);
            }
            let new = (128..144).map(|at| if (at - 128) % 5 == 0 { round } else { before[at] }).collect::<Vec<_>>();
            all_or_nothing(before, after, 128, &new)
        });
    });
}

#[test]
fn a_stopped_holder_stalls_its_host_and_no_other_until_it_goes_on() {
    with_ground(|ground| stopped_inside(ground, || ()));
}

#[test]
fn so_does_a_favoured_one() {
    with_ground(|ground| stopped_inside(ground, || be_favoured(ground)));
}

fn stopped_inside(ground: &Ground<'_>, favoured: impl Fn()) {
    let Some(mut victim) = Victim::new(favoured, || ground.here.set(5, 55)) else {
        eprintln!("skipped: this process may not trace its children");
        return;
    };
    for _ in 0..MOST {
        if ground.watch.held() {
            break;
        }
        assert!(matches!(victim.step(), Now::Stopped), "it never held the lock");
    }
    assert!(ground.watch.held());
    // As after SIGSTOP: it does nothing, and holds the lock.
    let stored = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            ground.here.set(6, 66);
            stored.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        // The other host's stores go on. They are not seen here meanwhile.
        for round in 1..=2000 {
            ground.there.set(100, round);
        }
        eventually("somebody waits for the lock", || {
            ground.watch.area().control.producer.lock_waiters.load(Relaxed) > 0
        });
        assert!(!stored.load(std::sync::atomic::Ordering::SeqCst) && ground.here.get(100) < 2000);
        victim.release();
    });
    eventually("the stalled host has caught up", || ground.here.get(100) == 2000);
    ground.check();
    assert_eq!((ground.there.get(5), ground.there.get(6)), (55, 66));
}

/// Until the arbiter has looked after its processes and its lock several times.
fn several_looks(session: &Session) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(800) {
        session.status().unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A process whose connection is over may be in the middle of a store all the same.
#[test]
fn a_process_without_a_connection_keeps_the_lock_and_its_number() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "cut"), cluster.join(1, "cut"));
    let (here, there) = (a.array::<u64>("w", 64).unwrap(), b.array::<u64>("w", 64).unwrap());
    let watch = Watch::new(&cluster, 0, "cut");
    watch.lock_as(watch.process);
    watch.fall_out();
    there.set(1, 1);
    several_looks(&a);
    assert_eq!(watch.area().control.producer.lock.load(Relaxed), watch.process, "taken from a process that lives");
    let next = Watch::new(&cluster, 0, "cut");
    assert_ne!(next.process, watch.process, "a number was given to two processes");
    watch.unlock();
    here.set(0, 1);
    eventually("stores go on", || there.get(0) == 1 && here.get(1) == 1);
    drop((watch, next, a, b));
}

#[test]
fn a_process_that_closes_all_descriptors_is_cleaned_up_after_when_it_ends_or_becomes_another_program() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "closed"), cluster.join(1, "closed"));
    let (here, there) = (a.array::<u64>("w", 64).unwrap(), b.array::<u64>("w", 64).unwrap());
    let watch = Watch::new(&cluster, 0, "closed");
    for (round, end) in (1..).zip(["exec", "exit", "kill"]) {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().display().to_string();
        let process = cluster.spawn(0, "closes_all_descriptors", &[("FILES", &path), ("END", end)]);
        eventually("it has closed them", || files.path().join("closed").exists());
        several_looks(&a);
        assert!(watch.held(), "the lock was taken from a process that lives");
        if end == "kill" {
            process.kill();
        } else {
            std::fs::write(files.path().join("go"), []).unwrap();
        }
        eventually("the lock is free", || !watch.held());
        here.set(0, round);
        eventually("stores go on", || there.get(0) == round);
    }
    drop((watch, a, b));
}

#[test]
fn closes_all_descriptors() {
    if !role("closes_all_descriptors") {
        return;
    }
    let watch = Watch::at(&own_dir(), "closed");
    watch.lock_as(watch.process);
    // SAFETY: what is mapped stays so; nothing here uses a descriptor of before.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    let files = std::env::var("FILES").unwrap();
    std::fs::write(Path::new(&files).join("closed"), []).unwrap();
    eventually("it may go on", || Path::new(&files).join("go").exists());
    if std::env::var("END").unwrap() == "exec" {
        panic!("{}", Command::new("/bin/sleep").arg("1000").exec());
    }
    // SAFETY: ends the process, whose descriptors are not what std takes them for.
    unsafe { libc::_exit(0) };
}

/// With nobody else in the session, no frame comes at which the arbiter would want the lock itself.
#[test]
fn a_number_in_the_lock_that_is_nobodys_is_taken_out_without_any_frame() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "stranger");
    let word = a.open::<u64>("w").unwrap();
    let watch = Watch::new(&cluster, 0, "stranger");
    for (value, number) in (1..).zip([777, 0xffff, 0x1_0309, 0x7fff_0309, 0x8000_0003, u32::MAX]) {
        watch.lock_as(number);
        word.set(value);
        assert_eq!(word.get(), value);
    }
    drop((watch, a));
}
