//! Signal handlers at every step of a thread that stores, and of each other.
//!
//! A signal is a call that the thread did not ask for: whatever it interrupts goes on only when it is over. So all
//! interleavings of a thread with its handlers are the ways to nest calls at its steps, and they are tried one after
//! the other, exhaustively, for a small program: a thread that stores twice and up to three handlers with one or two
//! stores each. What the kernel adds (a mask, and signals that wait until it lets them in) is modelled here.
#![cfg(not(loom))]

use dsm_core::deferral::{Deferral, Signals, Steps};
use std::cell::{Cell, RefCell};

/// Which store: (handler or 0 for the thread itself, number).
type Op = (u8, u8);

const HANDLERS: u8 = 3;
/// Signals `1..=HANDLERS`, and one that the thread has blocked all the time.
const OTHER: u64 = 1 << 40;

/// Whether the handler of a signal is one that can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Held,
    /// Interrupts captures, and stores.
    Immediate,
    /// The same, and does not block itself while it runs.
    Open,
}

#[derive(Default)]
struct World {
    /// Prefix of choices to repeat, then whatever comes first.
    script: Vec<bool>,
    made: Vec<bool>,
    started: u8,
    how: Vec<How>,
    stores: u8,
    /// Captures are quick ones where that can be.
    quick: bool,
    /// The kernel's.
    blocked: u64,
    waiting: u64,
    performing: bool,
    /// What happened: a store is made.
    done: Vec<Op>,
    /// For each handler that was not held: which had ended when it began.
    after: Vec<(u8, Vec<u8>)>,
    ended: Vec<u8>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
    static THREAD: Deferral<Op, 8, Nested> = const { Deferral::new([const { Cell::new((0, 0)) }; 8]) };
}

/// Steps at which a signal may come.
struct Nested;

impl Steps for Nested {
    fn step() {
        let comes = WORLD.with_borrow_mut(|world| {
            if world.started == HANDLERS {
                return false;
            }
            let comes = world.script.get(world.made.len()).copied().unwrap_or(false);
            world.made.push(comes);
            if comes {
                world.started += 1;
                world.waiting |= bit(world.started);
            }
            comes
        });
        if comes {
            deliver();
        }
    }
}

fn bit(signal: u8) -> u64 {
    1 << (signal - 1)
}

/// The kernel's side.
struct Kernel;

impl Signals for Kernel {
    /// All but those with handlers that are `Immediate` or `Open`, which use what is left.
    const HELD: u64 = !(7 << 50);

    fn block(&self, blocked: u64) -> u64 {
        let before = WORLD.with_borrow_mut(|world| std::mem::replace(&mut world.blocked, blocked));
        deliver();
        before
    }
}

/// The bit of a signal in the mask: of those that are never held, outside of `HELD`.
fn masked(world: &World, signal: u8) -> u64 {
    match world.how[usize::from(signal) - 1] {
        How::Held => bit(signal),
        _ => 1 << (49 + signal),
    }
}

/// Runs the handlers of what waits and is not blocked. As the kernel does, it begins the next before the first has
/// done anything.
fn deliver() {
    loop {
        let next = WORLD.with_borrow_mut(|world| {
            let signal = (1..=HANDLERS)
                .find(|signal| world.waiting & bit(*signal) != 0 && world.blocked & masked(world, *signal) == 0)?;
            world.waiting &= !bit(signal);
            let interrupted = world.blocked;
            let how = world.how[usize::from(signal) - 1];
            if how != How::Open {
                world.blocked |= masked(world, signal);
            }
            Some((signal, how, interrupted))
        });
        let Some((signal, how, mut interrupted)) = next else { return };
        deliver();
        let resend = || {
            WORLD.with_borrow_mut(|world| world.waiting |= bit(signal));
            true
        };
        let busy = how == How::Held && THREAD.with(Deferral::busy);
        match if busy { THREAD.with(|thread| thread.hold(interrupted, &Kernel, resend)) } else { None } {
            Some(then) => interrupted = then,
            None => handle(signal),
        }
        WORLD.with_borrow_mut(|world| world.blocked = interrupted);
    }
}

fn handle(signal: u8) {
    let stores = WORLD.with_borrow_mut(|world| {
        let ended = world.ended.clone();
        world.after.push((signal, ended));
        world.stores
    });
    (1..=stores).for_each(|number| store((signal, number)));
    WORLD.with_borrow_mut(|world| world.ended.push(signal));
}

/// Makes a store for real: never inside of another.
fn perform(op: Op) {
    WORLD.with_borrow_mut(|world| {
        assert!(!world.performing, "a capture inside of a capture: it would wait for its own lock");
        world.performing = true;
    });
    Nested::step();
    WORLD.with_borrow_mut(|world| {
        world.done.push(op);
        world.performing = false;
    });
    Nested::step();
}

fn store(op: Op) {
    THREAD.with(|thread| {
        let act = || {
            perform(op);
            true
        };
        let quick = WORLD.with_borrow(|world| world.quick);
        if !(quick && thread.run_quick(act, perform, &Kernel)) && thread.run(act, perform, &Kernel).is_none() {
            assert!(thread.defer(op));
        }
    });
}

/// One way through; returns the choices that it made.
fn run(script: Vec<bool>, how: [How; 3], stores: u8, quick: bool) -> Vec<bool> {
    WORLD.set(World { script, quick, how: how.to_vec(), stores, blocked: OTHER, ..World::default() });
    store((0, 1));
    store((0, 2));
    let world = WORLD.take();
    assert!(!THREAD.with(|thread| thread.busy() || thread.holds()));
    let made: Vec<usize> = world.made.iter().enumerate().filter(|(_, comes)| **comes).map(|(at, _)| at).collect();
    assert_eq!(world.blocked, OTHER, "what is blocked has changed: {how:?} at {made:?}");
    assert_eq!(world.waiting, 0, "a signal waits for ever: {how:?} at {made:?}");
    assert_eq!(world.ended.len(), usize::from(world.started), "a signal was lost, or came twice: {how:?} at {made:?}");
    let at = |op: Op| world.done.iter().position(|done| *done == op).unwrap_or_else(|| panic!("{op:?} was lost"));
    let expected = 2 + usize::from(stores * world.started);
    assert_eq!(world.done.len(), expected, "something happened twice: {:?}", world.done);
    assert!(at((0, 1)) < at((0, 2)));
    for (handler, before) in &world.after {
        if stores == 2 {
            assert!(at((*handler, 1)) < at((*handler, 2)), "stores of {handler} in the wrong order: {:?}", world.done);
        }
        for ended in before {
            assert!(at((*ended, stores)) < at((*handler, 1)), "{ended} ended before {handler}: {:?}", world.done);
        }
    }
    world.made
}

/// All ways through, of both kinds of capture; returns how many.
fn explore(how: [How; 3], stores: u8) -> u64 {
    [false, true].map(|quick| explore_one(how, stores, quick)).iter().sum()
}

fn explore_one(how: [How; 3], stores: u8, quick: bool) -> u64 {
    let (mut script, mut ways) = (Vec::new(), 0u64);
    loop {
        let mut made = run(script, how, stores, quick);
        ways += 1;
        // The next one: as an odometer, whose wheels are the choices that were made.
        while made.pop_if(|comes| *comes).is_some() {}
        match made.last_mut() {
            Some(comes) => *comes = true,
            None => break,
        }
        script = made;
    }
    ways
}

#[test]
fn handlers_at_every_step_of_every_capture() {
    let ways = explore([How::Open; 3], 2);
    println!("{ways} ways");
    assert!(ways > 10_000);
}

#[test]
fn held_signals_at_every_step_of_every_capture() {
    use How::{Held, Immediate, Open};
    let all = [
        [Held, Held, Held],
        [Held, Held, Immediate],
        [Held, Immediate, Held],
        [Immediate, Held, Held],
        [Held, Immediate, Immediate],
        [Immediate, Held, Open],
        [Held, Open, Held],
        [Open, Held, Immediate],
    ];
    let ways: u64 = all.iter().map(|how| explore(*how, 1)).sum();
    println!("{ways} ways");
    assert!(ways > 10_000);
}

/// No signals.
struct Nobody;

impl Signals for Nobody {
    const HELD: u64 = u64::MAX;

    fn block(&self, _blocked: u64) -> u64 {
        0
    }
}

#[test]
fn a_full_queue_says_so() {
    let thread: Deferral<u8, 2> = Deferral::new([const { Cell::new(0) }; 2]);
    let done = RefCell::new(Vec::new());
    let perform = |item| done.borrow_mut().push(item);
    for _ in 0..3 {
        done.borrow_mut().clear();
        let result = thread.run(
            || {
                assert!(thread.run(|| (), perform, &Nobody).is_none());
                [1, 2, 3].map(|item| thread.defer(item))
            },
            perform,
            &Nobody,
        );
        assert_eq!((result, &done.borrow()[..]), (Some([true, true, false]), &[1, 2][..]));
    }
}

/// A mask, and one signal: the first, which waits.
#[derive(Default)]
struct One<F: Fn()> {
    blocked: Cell<u64>,
    waits: Cell<bool>,
    handler: F,
}

impl<F: Fn()> Signals for One<F> {
    const HELD: u64 = 0xff;

    fn block(&self, blocked: u64) -> u64 {
        let before = self.blocked.replace(blocked);
        if blocked & 1 == 0 && self.waits.replace(false) {
            (self.handler)();
        }
        before
    }
}

impl<F: Fn()> One<F> {
    /// Comes, and is held.
    fn come<const N: usize>(&self, thread: &Deferral<u8, N>) {
        let before = self.blocked.get();
        self.blocked.set(before | 1);
        let then = thread.hold(before, self, || {
            self.waits.set(true);
            true
        });
        self.blocked.set(then.expect("there is room"));
    }
}

#[test]
fn an_unwinding_capture_leaves_the_thread_free_and_loses_nothing() {
    let thread: Deferral<u8, 2> = Deferral::new([const { Cell::new(0) }; 2]);
    let done = RefCell::new(Vec::new());
    let perform = |item| done.borrow_mut().push(item);
    let signal = One { blocked: Cell::new(0x100), waits: Cell::new(false), handler: || perform(9) };
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        thread.run(
            || {
                assert!(thread.defer(7));
                signal.come(&thread);
                std::panic::resume_unwind(Box::new("the session has ended"));
            },
            perform,
            &signal,
        )
    }));
    assert!(unwound.is_err() && !thread.busy());
    // Signals do not wait for the next capture; there may be none.
    assert_eq!((signal.blocked.get(), signal.waits.get(), &done.borrow()[..]), (0x100, false, &[9][..]));
    assert!(thread.run(|| done.borrow_mut().push(8), perform, &signal).is_some());
    assert_eq!(done.borrow()[..], [9, 7, 8]);
}

#[test]
fn a_paused_capture_lets_handlers_store() {
    let thread: Deferral<u8, 2> = Deferral::new([const { Cell::new(0) }; 2]);
    let done = RefCell::new(Vec::new());
    let perform = |item| done.borrow_mut().push(item);
    let handler = || assert!(thread.run(|| done.borrow_mut().push(1), perform, &Nobody).is_some());
    let signal = One { blocked: Cell::new(0), waits: Cell::new(false), handler };
    let result = thread.run(
        || {
            signal.come(&thread);
            assert!(thread.holds() && done.borrow().is_empty());
            thread.pause(&signal);
            assert!(thread.busy() && !thread.holds());
            done.borrow_mut().push(2);
        },
        perform,
        &signal,
    );
    assert!(result.is_some() && signal.blocked.get() == 0);
    assert_eq!(done.borrow()[..], [1, 2]);
}

#[test]
fn a_signal_that_cannot_be_sent_again_is_handled_now() {
    let thread: Deferral<u8, 2> = Deferral::new([const { Cell::new(0) }; 2]);
    let signal = One { blocked: Cell::new(3), waits: Cell::new(false), handler: || () };
    thread.run(|| assert_eq!(thread.hold(2, &signal, || false), None), |_| (), &signal);
    assert_eq!((signal.blocked.get(), thread.holds()), (3, false));
}
