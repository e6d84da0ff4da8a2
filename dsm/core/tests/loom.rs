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

#[path = "loom/lock.rs"]
mod lock;
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
use lock::{favour, seize_at_last};
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

// (a) The replica lock: `loom/lock.rs`.

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
