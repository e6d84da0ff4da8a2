//! `kill -9` at chosen instants of a capture. A child is stepped through one store, an instruction at a time (ptrace),
//! and killed after the k-th: for every k (up to 300 of them) while it holds the replica lock and shortly before and
//! after, and for some in between. Each time the lock must come free, the log must stay readable, and the store must be
//! there on all hosts or on none.

mod common;
#[path = "death/victim.rs"]
mod victim;

use common::{Cluster, Watch, eventually, own_dir, role, skipped, skipped_at_the_trap_door};
use dsm::prelude::*;
use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use victim::{Now, Victim};

/// Steps before the lock is taken and after it is given back at which every kill is tried.
const MARGIN: usize = 12;
/// No capture takes as many instructions.
const MOST: usize = 400_000;

/// The ground of a test: an array on two hosts.
struct Ground<'s> {
    watch: Watch,
    here: Slice<'s, u64>,
    there: Slice<'s, u64>,
}

/// At how many instants victims are killed.
struct Course {
    /// While they hold the lock, and shortly before and after; where it is held for more instructions, spread evenly.
    inside: usize,
    outside: usize,
    /// A signal that comes when they have just taken the lock; 0 for none.
    signal: libc::c_int,
}

const THOROUGH: Course = Course { inside: 300, outside: 30, signal: 0 };
/// For stores of which but the way into the log differs.
const SPARSE: Course = Course { inside: 40, outside: 12, signal: 0 };

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
    /// store is there (`Some(true)`), not all (`Some(false)`), or what cannot be.
    fn kill_everywhere(&self, name: &str, store: impl Fn(u64), whole: impl Fn(&[u64], &[u64], u64) -> Option<bool>) {
        self.kill(&THOROUGH, name, || (), store, whole);
    }

    /// As [`Ground::kill_everywhere`], of victims that do something before they are stepped, to be `favoured`, say.
    fn kill(
        &self,
        course: &Course,
        name: &str,
        before: impl Fn(),
        store: impl Fn(u64),
        whole: impl Fn(&[u64], &[u64], u64) -> Option<bool>,
    ) {
        // One goes all the way, and shows when it holds the lock.
        let Some(mut victim) = Victim::new(&before, || store(1)) else {
            skipped(&format!("{name}: this process may not trace its children"));
            return;
        };
        let mut held = Vec::new();
        let mut steps = 0;
        // When the signal comes, at which instruction, and when the thread is back there.
        let (mut interrupted, mut back) = (None, None);
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
                if course.signal != 0 && interrupted.is_none() {
                    (interrupted, victim.signal) = (Some((steps, next)), course.signal);
                }
            }
            if back.is_none() && interrupted.is_some_and(|(step, address)| step < steps && address == next) {
                back = Some(steps);
            }
        }
        assert_eq!(interrupted.is_some(), back.is_some(), "{name}: the handler does not return");
        let first = back.unwrap_or(held[0]).saturating_sub(MARGIN);
        let last = (held[held.len() - 1] + MARGIN).min(steps);
        let held = held.iter().filter(|step| (first..=last).contains(step)).count();
        let (stride, fine) = ((steps / course.outside).max(1), (last - first).div_ceil(course.inside));
        let kills = (1..steps).filter(|k| {
            let inside = (first..=last).contains(k);
            if inside { (k - first).is_multiple_of(fine) } else { k.is_multiple_of(stride) }
        });
        let (_, mut before_it) = self.check();
        let (mut round, mut with_lock, mut done) = (1, 0, 0);
        let mut times = Vec::new();
        for k in kills {
            round += 1;
            let mut victim = Victim::new(&before, || store(round)).expect("the first could be traced");
            let mut at = 0;
            if let Some((step, _)) = interrupted.filter(|(step, _)| *step < k) {
                victim.go(at, step, &breakpoints);
                victim.signal = course.signal;
                victim.step();
                at = step + 1;
            }
            victim.go(at, k, &breakpoints);
            let locked = self.watch.held();
            with_lock += usize::from(locked);
            victim.kill();
            let (took, after) = self.check();
            if locked {
                times.push(took);
            }
            match whole(&before_it, &after, round) {
                Some(is) => done += usize::from(is),
                None => panic!("{name}, killed after {k} instructions: {:?}", changes(&before_it, &after)),
            }
            before_it = after;
        }
        times.sort();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{name}: {steps} instructions, {} killed, {with_lock} with the lock, {done} stores happened; \
             from the kill until another had stored: median {median:?}, longest {longest:?}",
            round - 1,
        );
        assert!(with_lock >= held / fine / 2, "{name}: {with_lock} of {held} instants with the lock were tried");
        assert!(done > 0 && done < round as usize, "{name}: {done} of {round}");
        // About one millisecond where the machine has nothing else to do. A wait that is ended by nothing but its naps
        // or by the arbiter's looks (see `several_looks`) shows; the longest may be one of a machine that has.
        assert!(
            median <= Duration::from_millis(20) && longest <= Duration::from_secs(1),
            "{name}: {median:?}, {longest:?}"
        );
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

/// Stores that one instruction or a handler makes one after the other: the first so many are there, each as a whole.
fn in_order(before: &[u64], after: &[u64], stores: &[(usize, &[u64])]) -> Option<bool> {
    let mut expected = before.to_vec();
    for (at, new) in stores {
        if expected == after {
            return Some(false);
        }
        expected[*at..at + new.len()].copy_from_slice(new);
    }
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
        ground.kill(
            &THOROUGH,
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
        ground.kill(
            &THOROUGH,
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
fn a_read_modify_write_at_the_trap_door() {
    with_ground(|ground| {
        ground.kill(
            &SPARSE,
            "read-modify-write",
            || (),
            |round| {
                // SAFETY: within the array; traps.
                unsafe {
                    std::arch::asm!("add [{to}], {r}", r = in(reg) round,
                        to = in(reg) ground.here.as_ptr().wrapping_add(30), options(nostack));
                }
            },
            |before, after, round| all_or_nothing(before, after, 30, &[before[30] + round]),
        );
    });
}

#[test]
fn a_string_at_the_trap_door() {
    // Over lines, from the middle of one on.
    const WORDS: usize = 21;
    let ends = |before: &[u64], after: &[u64], new: &[u64]| {
        let words: Vec<(usize, &[u64])> = (260..).zip(new.chunks(1)).collect();
        in_order(before, after, &words)
    };
    with_ground(|ground| {
        let to = || ground.here.as_ptr().wrapping_add(260);
        let fill = |round: u64| {
            // SAFETY: within the array; traps.
            unsafe {
                std::arch::asm!("rep stosq", in("rax") round, inout("rcx") WORDS => _, inout("rdi") to() => _,
                    options(nostack));
            }
        };
        ground.kill(&SPARSE, "rep stos", || (), fill, |before, after, round| ends(before, after, &[round; WORDS]));
        let numbers = |round: u64| -> [u64; WORDS] { std::array::from_fn(|at| (round << 32) + at as u64) };
        let copy = |round: u64| {
            let from = numbers(round);
            // SAFETY: as above; as much is read of an array of ours.
            unsafe {
                std::arch::asm!("rep movsq", inout("rsi") from.as_ptr() => _, inout("rcx") WORDS => _,
                    inout("rdi") to() => _, options(nostack));
            }
        };
        ground.kill(&SPARSE, "rep movs", || (), copy, |before, after, round| ends(before, after, &numbers(round)));
    });
}

#[test]
fn a_masked_vector_at_the_trap_door() {
    if !std::is_x86_feature_detected!("avx") {
        skipped("the processor has no AVX");
        return;
    }
    with_ground(|ground| {
        ground.kill(
            &SPARSE,
            "masked vector",
            || (),
            |round| {
                let (value, mask) = ([round; 4], [u64::MAX, 0, u64::MAX, u64::MAX]);
                // SAFETY: within the array; traps. The processor has AVX.
                unsafe {
                    std::arch::asm!("vmovdqu ymm0, [{value}]", "vmovdqu ymm1, [{mask}]", "vmaskmovpd [{to}], ymm1, ymm0",
                        value = in(reg) &raw const value, mask = in(reg) &raw const mask,
                        to = in(reg) ground.here.as_ptr().wrapping_add(65), out("ymm0") _, out("ymm1") _,
                        options(nostack));
                }
            },
            |before, after, round| in_order(before, after, &[(65, &[round]), (67, &[round; 2])]),
        );
    });
}

/// A handler that nobody adopted interrupts a store of its thread while that has the lock: what the handler stores waits
/// in the thread's queue, and is carried out behind it.
#[test]
fn stores_of_a_handler_that_wait_for_the_one_that_it_interrupted() {
    static WORDS: AtomicPtr<Slice<'static, u64>> = AtomicPtr::new(std::ptr::null_mut());
    static ROUND: AtomicU64 = AtomicU64::new(0);
    extern "C" fn storing(_: libc::c_int) {
        // SAFETY: what the test has put there, which lives until the children of this process have ended.
        let words = unsafe { &*WORDS.load(Relaxed) };
        words.set(50, ROUND.load(Relaxed));
        words.set(51, ROUND.load(Relaxed));
    }
    if skipped_at_the_trap_door() {
        return;
    }
    with_ground(|ground| {
        WORDS.store(std::ptr::from_ref(&ground.here).cast_mut().cast(), Relaxed);
        // Installed by a child, so that nobody adopts it but the first store that it interrupts.
        // SAFETY: the handler may interrupt whatever it likes.
        let install = || _ = unsafe { libc::signal(libc::SIGUSR1, storing as *const () as usize) };
        ground.kill(
            &Course { inside: 100, outside: 10, signal: libc::SIGUSR1 },
            "handler",
            install,
            |round| {
                ROUND.store(round, Relaxed);
                ground.here.set(5, round);
            },
            |before, after, round| in_order(before, after, &[(5, &[round]), (50, &[round]), (51, &[round])]),
        );
        WORDS.store(std::ptr::null_mut(), Relaxed);
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
        skipped("this process may not trace its children");
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
