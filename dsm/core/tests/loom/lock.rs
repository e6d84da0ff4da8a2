//! The replica lock.

use super::*;

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
pub(super) fn seize_at_last(lock: Lock<'_>, dead: u32) -> Seizure {
    loop {
        match lock.seize(|process| process == dead) {
            Seizure::Later => thread::yield_now(),
            seizure => return seizure,
        }
    }
}

/// Of a thread to which the lock is biased from its first visit on.
pub(super) fn favour(thread: u32) -> Favour {
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

/// A favoured thread dies when it is out, while another that will be favoured asks whether it is in: the arbiter may find
/// the lock biased to the dead, held by who asks, or gone on already, and its bias may be given to the other at once.
#[test]
fn a_favoured_thread_that_died_outside_is_forgotten_while_another_asks() {
    model(3, || {
        let shared = Locked::new();
        let dying = spawn(&shared, |shared| shared.visit(7, Some(&favour(11)), 1));
        let other = spawn(&shared, |shared| shared.visit(2, Some(&favour(12)), 2));
        // The kernel tells of the death after all that the dead have done.
        let mut visits = dying.join().expect("it ended");
        if seize_at_last(shared.lock(), 7) == Seizure::Taken {
            visits += 1;
            shared.data.add();
            shared.lock().release_to_all();
        }
        shared.lock().forget(7);
        visits += other.join().expect("it ended");
        assert!(shared.biases.iter().all(|bias| bias.process() != 7));
        shared.check(visits);
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
