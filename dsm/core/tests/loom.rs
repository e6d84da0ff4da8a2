//! Model checks of what threads and processes do to each other in shared memory, under every schedule and every order
//! of memory accesses that the language allows, up to a number of preemptions.
//!
//! `CARGO_TARGET_DIR=target/loom RUSTFLAGS="--cfg loom" cargo test -p dsm-core --test loom --release`
//!
//! Models are small on purpose: a thread that spins in them multiplies the schedules without end, so that the arbiter
//! tries a few times, as the real one does, where others wait.
//!
//! What differs from the real thing:
//! - A sleep is a yield, so a wake-up that is lost shows as a sleep that never ends only where a test makes it one
//!   (`Patient`, `Bell`).
//! - Both halves of the asymmetric barrier are full fences: what membarrier(2) gives.
//! - `compiler_fence` is a full fence too, and so stronger than what runs: it would hide a missing Release after it.
//!   `what_is_drained_is_whole` therefore looks at a record that is written without it.
//! - With three parties at the lock more than one preemption makes two of them spin against each other, which has no
//!   end of schedules; those models are bounded to one.
//! - What a takeover reads of the dead (`tail`, the record, the bytes) is ordered here by the news of the death, as
//!   by the kernel. Without that news the language would let the arbiter see a later write of the dead and miss an
//!   earlier one; x86-64 never does, since stores become visible in program order.
#![cfg(loom)]

#[path = "loom/log.rs"]
mod log;

use dsm_core::bias::{BIASES, Bias, Favour};
use dsm_core::control::{ASLEEP, Control};
use dsm_core::lock::{ARBITER, BIASED, Lock, Seizure};
use dsm_core::log::{Area, Door, HostLog, Writer};
use dsm_core::memory::{Cells, Memory};
use dsm_core::record::{Kind, Record, SyncBody, push_store, records};
use dsm_core::replica::{Progress, Replica};
use dsm_core::slot::Slot;
use dsm_core::sync::Barrier;
use dsm_core::watch::{Lines, Watch};
use dsm_core::wire::{Frame, FrameHeader, FrameKind, Reply, status};
use log::{Arbiter, session};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicBool, AtomicU64};
use loom::thread;
use std::time::Duration;

type Tiny = Area<16, 1, 1, 1>;
type TinyLog<'a> = HostLog<'a, 16, 1, 1, 1>;

fn model(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    let schedules = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = schedules.clone();
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        test();
    });
    println!("{} schedules", schedules.load(std::sync::atomic::Ordering::Relaxed));
}

/// A word that everybody changes at the steps that matter, without ordering anything by it.
///
/// Loom remembers the last access to a word only: a thread that loads a word and then stores to it (as a writer does
/// with the tail) hides from loom that somebody else had loaded it before, and the other order is never tried. A
/// change of one common word before each such step makes loom try both.
struct Crossing(AtomicU64);

impl Crossing {
    fn pass(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A process whose sleeps may end for no reason.
struct Hand<'a>(u32, &'a Crossing);

impl Writer for Hand<'_> {
    fn number(&self) -> u32 {
        self.1.pass();
        self.0
    }

    fn ring_doorbell(&self) {}

    fn stalled(&self) {
        thread::yield_now();
    }
}

/// As [`Hand`], of a thread that the lock may be biased to.
struct Favoured<'a>(Hand<'a>, Favour);

impl Writer for Favoured<'_> {
    fn number(&self) -> u32 {
        self.0.number()
    }

    fn favour(&self) -> Option<&Favour> {
        Some(&self.1)
    }

    fn ring_doorbell(&self) {}

    fn stalled(&self) {
        self.0.stalled();
    }
}

// (a) The replica lock.

/// Data that the lock protects; loom fails when two threads are in it, or when one does not see the other's write.
struct Protected(UnsafeCell<u32>);

impl Protected {
    fn add(&self) -> u32 {
        self.0.with_mut(|value| {
            // SAFETY: the caller holds the lock, which is what the model checks.
            let value = unsafe { &mut *value };
            *value += 1;
            *value
        })
    }
}

// SAFETY: accessed under the lock only; loom checks exactly that.
unsafe impl Sync for Protected {}
// SAFETY: a number.
unsafe impl Send for Protected {}

/// A lock, what it protects, and what it may be biased to.
struct Locked {
    control: Control,
    biases: [Bias; BIASES],
    data: Protected,
}

impl Locked {
    fn new() -> Arc<Self> {
        let biases = std::array::from_fn(|_| Bias::new());
        Arc::new(Self { control: Control::new(1, false), biases, data: Protected(UnsafeCell::new(0)) })
    }

    fn lock(&self) -> Lock<'_> {
        Lock::new(&self.control.producer, &self.biases, Barrier::new(false))
    }

    /// Takes the lock as process `me`, `times` times.
    fn visit(&self, me: u32, favour: Option<&Favour>, times: u32) -> u32 {
        for _ in 0..times {
            let hold = self.lock().enter(|| me, favour, || false, || (), thread::yield_now);
            self.data.add();
            self.lock().leave(hold, me);
        }
        times
    }

    /// Tries `times` times to take it.
    fn try_visit(&self, me: u32, times: u32) -> u32 {
        let mut held = 0;
        for _ in 0..times {
            if self.lock().try_acquire(me) {
                assert_eq!(self.lock().holder(), me);
                self.data.add();
                self.lock().release();
                held += 1;
            }
        }
        held
    }

    /// When everybody has gone: nobody holds it or waits, all have been here, and who comes now gets it.
    fn check(&self, visits: u32) {
        let word = self.control.producer.lock.load(Relaxed);
        assert_eq!((if word & BIASED != 0 { 0 } else { word & 0xffff }, self.waiters()), (0, 0));
        assert_eq!(self.try_visit(6, 1), 1);
        assert_eq!(self.data.add(), visits + 2);
    }

    fn waiters(&self) -> u32 {
        self.control.producer.lock_waiters.load(Relaxed)
    }

    fn seize(&self, dead: u32) -> Seizure {
        self.lock().seize(|process| process == dead)
    }
}

/// Unless somebody is just about to look whether the dead one is out.
fn seize_at_last(lock: Lock<'_>, dead: u32) -> Seizure {
    loop {
        match lock.seize(|process| process == dead) {
            Seizure::Later => thread::yield_now(),
            seizure => return seizure,
        }
    }
}

/// Of a thread to which the lock is biased from its first visit on.
fn favour(thread: u32) -> Favour {
    let favour = Favour::with_patience(0);
    favour.reset(thread, 1);
    favour
}

fn spawn<T: 'static>(shared: &Arc<Locked>, run: impl FnOnce(&Locked) -> T + 'static) -> thread::JoinHandle<T> {
    let shared = shared.clone();
    thread::spawn(move || run(&shared))
}

fn exclusion(arbiter: bool, preemptions: usize) {
    model(preemptions, move || {
        let shared = Locked::new();
        let mut others = vec![spawn(&shared, |shared| shared.visit(2, None, 1))];
        if arbiter {
            others.push(spawn(&shared, |shared| shared.try_visit(ARBITER, 1)));
        }
        let mine = shared.visit(1, None, 1);
        let all = others.into_iter().map(|thread| thread.join().expect("it ended")).sum::<u32>() + mine;
        shared.check(all);
    });
}

#[test]
fn one_of_two_holds_the_lock() {
    exclusion(false, 4);
}

#[test]
fn one_of_three_holds_the_lock() {
    exclusion(true, 1);
}

/// The first is favoured from its first visit on.
#[test]
fn a_favoured_thread_and_others_exclude_each_other() {
    model(3, || {
        let shared = Locked::new();
        let favoured = spawn(&shared, |shared| shared.visit(1, Some(&favour(11)), 3));
        let other = shared.visit(2, None, 1);
        shared.check(favoured.join().expect("it ended") + other);
    });
}

#[test]
fn two_favoured_threads_exclude_each_other() {
    model(3, || {
        let shared = Locked::new();
        let first = spawn(&shared, |shared| shared.visit(1, Some(&favour(11)), 2));
        let second = shared.visit(1, Some(&favour(12)), 2);
        shared.check(first.join().expect("it ended") + second);
    });
}

/// The arbiter tries; when the favoured thread stays, it goes away again, and a third comes.
#[test]
fn the_arbiter_and_another_find_out_whether_the_favoured_thread_is_out() {
    model(2, || {
        let shared = Locked::new();
        let favour = favour(11);
        assert_eq!(shared.visit(1, Some(&favour), 1), 1);
        assert_eq!(shared.control.producer.lock.load(Relaxed), BIASED);
        let arbiter = spawn(&shared, |shared| shared.try_visit(ARBITER, 2));
        let third = spawn(&shared, |shared| shared.try_visit(3, 1));
        let favoured = shared.visit(1, Some(&favour), 1);
        let all = arbiter.join().expect("it ended") + third.join().expect("it ended") + favoured;
        shared.check(all + 1);
    });
}

/// A favoured thread is killed inside, while somebody wants the lock.
#[test]
fn the_arbiter_takes_over_from_a_favoured_thread() {
    model(3, || {
        let shared = Locked::new();
        let dying = spawn(&shared, |shared| {
            let favour = favour(11);
            shared.visit(7, Some(&favour), 1);
            let hold = shared.lock().enter(|| 7, Some(&favour), || false, || (), thread::yield_now);
            shared.data.add();
            // Never left.
            drop(hold);
        });
        let other = spawn(&shared, |shared| shared.try_visit(2, 2));
        // The kernel tells of the death after all that the dead have done.
        dying.join().expect("it ended");
        // It was inside, and nobody else can have got it out.
        assert_eq!(seize_at_last(shared.lock(), 7), Seizure::Taken);
        shared.data.add();
        shared.lock().forget(7);
        shared.lock().release_to_all();
        let other = other.join().expect("it ended");
        assert!(shared.biases.iter().all(|bias| bias.process() != 7));
        shared.check(2 + 1 + other);
    });
}

/// Somebody is killed between asking for the lock and finding out whether the favoured thread is inside.
#[test]
fn who_dies_asking_for_the_lock_takes_it_from_nobody() {
    model(3, || {
        let shared = Locked::new();
        let favour = favour(11);
        assert_eq!(shared.visit(1, Some(&favour), 1), 1);
        let asking = spawn(&shared, |shared| {
            let lock = &shared.control.producer.lock;
            lock.compare_exchange(BIASED, 1 << 16 | 7, Acquire, Relaxed).is_ok()
        });
        let arbiter = spawn(&shared, move |shared| {
            assert!(asking.join().expect("it ended"), "nobody else takes it from the favoured thread");
            let taken = shared.seize(7) == Seizure::Taken;
            if taken {
                shared.data.add();
                shared.lock().release_to_all();
            }
            u32::from(taken)
        });
        // As often as it can before it has to wait.
        let mut favoured = 0;
        for _ in 0..2 {
            if let Some(hold) = shared.lock().try_enter(1, Some(&favour)) {
                shared.data.add();
                shared.lock().leave(hold, 1);
                favoured += 1;
            }
        }
        let arbiter = arbiter.join().expect("it ended");
        shared.check(1 + favoured + arbiter);
    });
}

#[test]
fn the_arbiter_takes_over_from_the_dead_and_only_then_do_others_go_on() {
    model(3, || {
        let shared = Locked::new();
        let dying = spawn(&shared, |shared| {
            drop(shared.lock().enter(|| 7, None, || false, || (), thread::yield_now));
            shared.data.add();
        });
        let living = spawn(&shared, |shared| shared.try_visit(8, 2));
        assert_eq!((shared.seize(9), shared.seize(0)), (Seizure::Free, Seizure::Free), "who never had it");
        // The kernel tells of the death after all that the dead have done.
        dying.join().expect("it ended");
        assert_eq!(shared.seize(7), Seizure::Taken, "the dead one still has it");
        shared.data.add();
        shared.lock().release();
        let held = living.join().expect("it ended");
        assert_eq!(shared.seize(7), Seizure::Free);
        shared.check(2 + held);
    });
}

/// Deaths while somebody waits for the lock: of one who held it, and of one who did not, after which all waiters are
/// forgotten. Whoever waited gets it, and in the end nobody is counted who does not wait.
#[test]
fn those_who_wait_are_forgotten_with_the_dead_and_get_the_lock() {
    model(3, || {
        let shared = Locked::new();
        assert!(shared.lock().try_acquire(7));
        shared.data.add();
        let waiting = spawn(&shared, |shared| shared.visit(8, None, 1));
        assert_eq!(shared.seize(9), Seizure::Free);
        assert_eq!(shared.seize(7), Seizure::Taken);
        shared.data.add();
        shared.lock().release_to_all();
        shared.check(2 + waiting.join().expect("it ended"));
    });
}

/// As before, with a release by one who lives, and something to let in while the lock is waited for.
#[test]
fn those_who_let_something_in_while_they_wait_are_counted_again() {
    model(3, || {
        let shared = Locked::new();
        assert!(shared.lock().try_acquire(7));
        let waiting = spawn(&shared, |shared| {
            let let_in = || assert_eq!(shared.waiters(), 0, "counted");
            let hold = shared.lock().enter(|| 8, None, || true, let_in, thread::yield_now);
            shared.data.add();
            shared.lock().leave(hold, 8);
        });
        shared.data.add();
        shared.lock().release();
        waiting.join().expect("it ended");
        shared.check(2);
    });
}

// (b) Writers and the arbiter at the same bytes: `loom/log.rs`.

// (c) Slots.

fn reply(token: u64, value: u64) -> Reply {
    Reply { token, status: status::OK, width: 0, offset: 0, fence: value, old: [value; 2], new: [0; 2] }
}

fn awaited(slot: &Slot) -> u64 {
    loop {
        if let Some(answer) = slot.answer() {
            assert_eq!(answer.value, u128::from(answer.fence) << 64 | u128::from(answer.fence), "an answer in halves");
            return answer.fence;
        }
        slot.sleep(Duration::ZERO, Barrier::new(false));
    }
}

/// A slot that was freed and claimed again never shows an answer to its former operation.
#[test]
fn a_late_answer_finds_no_taker() {
    model(3, || {
        let shared = Arc::new((Slot::new(), AtomicU64::new(0)));
        let answering = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (slot, published) = &*shared;
                let next = |before: u64| loop {
                    match published.load(Acquire) {
                        token if token != before => return token,
                        _ => thread::yield_now(),
                    }
                };
                let barrier = Barrier::new(false);
                let first = next(0);
                assert!(slot.deliver(first, &reply(first, 1), barrier));
                let second = next(first);
                assert!(!slot.deliver(first, &reply(first, 2), barrier), "a late answer was taken");
                assert!(slot.deliver(second, &reply(second, 3), barrier));
                assert!(!slot.deliver(second ^ 1 << 40, &reply(second, 4), barrier), "a made-up answer was taken");
            })
        };
        let (slot, published) = &*shared;
        for expected in [1, 3] {
            let token = slot.claim(0, 5).expect("it is free");
            assert_eq!(slot.claim(0, 6), None);
            published.store(token, Release);
            assert_eq!(awaited(slot), expected);
            slot.free(token, 5);
        }
        answering.join().expect("it ended");
    });
}

/// Whoever gives up leaves the slot to the answer, and exactly one of the two frees it.
#[test]
fn an_abandoned_slot_is_freed_by_its_answer() {
    model(3, || {
        let shared = Arc::new(Slot::new());
        let token = shared.claim(0, 5).expect("it is free");
        let answering = {
            let shared = shared.clone();
            thread::spawn(move || shared.deliver(token, &reply(token, 1), Barrier::new(false)))
        };
        let abandoned = shared.abandon();
        if !abandoned {
            assert_eq!(awaited(&shared), 1);
            shared.free(token, 5);
        }
        let delivered = answering.join().expect("it ended");
        assert_ne!(abandoned, delivered);
        assert!(shared.claim(0, 6).is_some(), "nobody freed it");
    });
}

/// Two threads want the same slot: one has it, and its successor sees a clean one.
#[test]
fn one_of_two_claims_a_slot() {
    model(4, || {
        let shared = Arc::new(Slot::new());
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.claim(0, 6))
        };
        let mine = shared.claim(0, 5);
        let theirs = other.join().expect("it ended");
        assert!(mine.is_some() != theirs.is_some());
        assert!(shared.answer().is_none());
    });
}

/// Who listens instead of sleeping either sees the answer, or has their bell rung.
#[test]
fn nobody_listens_for_an_answer_that_has_come() {
    model(4, || {
        let shared = Arc::new(Slot::new());
        let token = shared.claim(0, 5).expect("it is free");
        let answering = {
            let shared = shared.clone();
            thread::spawn(move || {
                assert!(shared.deliver(token, &reply(token, 1), Barrier::new(false)));
                shared.listener(token)
            })
        };
        shared.listen(Barrier::new(false));
        let listens = shared.answer().is_none();
        let rung = answering.join().expect("it ended");
        assert!(!listens || rung == Some(5), "listens, and nobody rang");
        shared.free(token, 5);
        assert_eq!(shared.listener(token), None);
    });
}

// (d) Sleeping and waking.

/// A process with a doorbell that can be heard.
struct Bell<'a>(&'a AtomicBool);

impl Writer for Bell<'_> {
    fn number(&self) -> u32 {
        1
    }

    fn ring_doorbell(&self) {
        self.0.store(true, Relaxed);
    }

    fn stalled(&self) {
        thread::yield_now();
    }
}

/// The arbiter never sleeps on news: either it sees the record, or the writer sees it asleep and rings.
#[test]
fn nobody_sleeps_on_news() {
    model(4, || {
        let shared = Arc::new((Tiny::boxed(1), Cells::zeroed(8), AtomicBool::new(false)));
        let thread = {
            let shared = shared.clone();
            thread::spawn(move || {
                let log: TinyLog<'_> = shared.0.log();
                log.store(&shared.1, &Bell(&shared.2), Door::Direct, 0, &[1]);
            })
        };
        let log: TinyLog<'_> = shared.0.log();
        log.control().rare.arbiter.word.store(ASLEEP, Relaxed);
        log.barrier().heavy();
        let sleeps = !log.has_news(0);
        thread.join().expect("it ended");
        assert!(log.has_news(0));
        assert!(!sleeps || shared.2.load(Relaxed), "asleep, and nobody rang");
    });
}

/// A process that, once it sleeps for room, sleeps until it is woken.
struct Patient<'a>(&'a Control);

impl Writer for Patient<'_> {
    fn number(&self) -> u32 {
        1
    }

    fn ring_doorbell(&self) {}

    fn stalled(&self) {
        while self.0.rare.room.load(Relaxed) == 0 {
            thread::yield_now();
        }
    }
}

/// Who waits for room is told when there is some.
#[test]
fn nobody_misses_the_room_that_was_made() {
    model(3, || {
        let shared = session();
        let log: TinyLog<'_> = shared.0.log();
        for at in 0..5 {
            log.store(&shared.1, &Hand(1, &shared.1.1), Door::Direct, at, &[at as u8]);
        }
        let thread = {
            let shared = shared.clone();
            thread::spawn(move || {
                let log: TinyLog<'_> = shared.0.log();
                log.store(&shared.1, &Patient(&shared.0.control), Door::Direct, 0, &[7]);
            })
        };
        let mut arbiter = Arbiter::new();
        arbiter.drain(&log, &shared.1);
        arbiter.acknowledge(&log, &shared.1);
        thread.join().expect("it ended");
        arbiter.check(&log, &shared.1);
        assert_eq!(arbiter.replica.sent(), 18);
        assert_eq!(log.control().rare.room_waiters.load(Relaxed), 0);
    });
}

// (e) Waiting for a word to change.

/// Nobody sleeps on a change that the arbiter has seen: whoever does not see it may not be asleep when the arbiter has
/// looked, and of two that wait at one bucket neither hides the other.
#[test]
fn nobody_sleeps_on_a_change() {
    model(3, || {
        let shared = Arc::new((Watch::new(), AtomicU64::new(0)));
        let waiter = || {
            let shared = shared.clone();
            thread::spawn(move || {
                let (watch, word) = &*shared;
                // The second change is waited for by who has missed or seen the first.
                let mut turn = watch.enter(0, Barrier::new(false));
                if word.load(Relaxed) == 1 {
                    turn = watch.enter(0, Barrier::new(false));
                }
                (word.load(Relaxed) < 2).then_some(turn)
            })
        };
        let waiters = [waiter(), waiter()];
        let (watch, word) = &*shared;
        let mut line = Lines::default();
        line.add(0, 8);
        for value in 1..=2 {
            word.store(value, Relaxed);
            if watch.watched(Barrier::new(false)) {
                watch.wake(line);
            }
        }
        for waiter in waiters {
            let sleeps = waiter.join().expect("it ended");
            assert!(sleeps.is_none_or(|turn| watch.is_over(turn)), "asleep, and nobody woke it");
        }
    });
}

/// The same for those who listen for a bell instead of sleeping.
#[test]
fn nobody_listens_for_a_bell_that_has_rung() {
    model(4, || {
        let shared = Arc::new((Watch::new(), AtomicU64::new(0), AtomicU64::new(0)));
        let listener = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (watch, word, rung) = &*shared;
                let before = rung.load(Acquire);
                watch.listen(0, Barrier::new(false));
                (word.load(Relaxed) == 0).then_some(before)
            })
        };
        let (watch, word, rung) = &*shared;
        let mut line = Lines::default();
        line.add(0, 8);
        word.store(1, Relaxed);
        if watch.watched(Barrier::new(false)) && watch.wake(line) {
            rung.fetch_add(1, Release);
        }
        let listens = listener.join().expect("it ended");
        assert!(listens.is_none_or(|before| rung.load(Relaxed) != before), "listens, and nobody rang");
    });
}
