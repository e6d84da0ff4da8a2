//! Signal handlers that store, at every step of a thread that stores, and of each other.
//!
//! A signal is a call that the thread did not ask for: whatever it interrupts goes on only when it is over. So all
//! interleavings of a thread with its handlers are the ways to nest calls at its steps, and they are tried one after
//! the other, exhaustively, for a small program: a thread that stores twice and up to three handlers with two stores
//! each.
#![cfg(not(loom))]

use dsm_core::deferral::{Deferral, Steps};
use std::cell::{Cell, RefCell};

/// Which store: (handler or 0 for the thread itself, number).
type Op = (u8, u8);

const HANDLERS: u8 = 3;
const STORES: u8 = 2;

#[derive(Default)]
struct World {
    /// Prefix of choices to repeat, then whatever comes first.
    script: Vec<bool>,
    made: Vec<bool>,
    started: u8,
    performing: bool,
    /// What happened: a handler begins, ends; a store is made.
    done: Vec<Op>,
    /// For each handler: which had ended when it began.
    after: Vec<Vec<u8>>,
    ended: Vec<u8>,
    settled: u32,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
    static THREAD: Deferral<Op, 8, Nested> = const { Deferral::new([const { Cell::new((0, 0)) }; 8]) };
}

/// Steps at which a handler may come.
struct Nested;

impl Steps for Nested {
    fn step() {
        let handler = WORLD.with_borrow_mut(|world| {
            if world.started == HANDLERS {
                return None;
            }
            let comes = world.script.get(world.made.len()).copied().unwrap_or(false);
            world.made.push(comes);
            comes.then(|| {
                world.started += 1;
                let ended = world.ended.clone();
                world.after.push(ended);
                world.started
            })
        });
        if let Some(handler) = handler {
            (1..=STORES).for_each(|number| store((handler, number)));
            WORLD.with_borrow_mut(|world| world.ended.push(handler));
        }
    }
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
    let settled = || WORLD.with_borrow_mut(|world| world.settled += 1);
    THREAD.with(|thread| {
        if thread.run(|| perform(op), perform, settled).is_none() {
            assert!(thread.defer(op));
        }
    });
}

/// One way through; returns the choices that it made.
fn run(script: Vec<bool>) -> Vec<bool> {
    WORLD.set(World { script, ..World::default() });
    store((0, 1));
    store((0, 2));
    let world = WORLD.take();
    assert!(!THREAD.with(Deferral::busy));
    let at = |op: Op| world.done.iter().position(|done| *done == op).unwrap_or_else(|| panic!("{op:?} was lost"));
    let expected = usize::from(STORES * (world.started + 1));
    assert_eq!(world.done.len(), expected, "something happened twice: {:?}", world.done);
    for context in 0..=world.started {
        assert!(at((context, 1)) < at((context, 2)), "stores of {context} in the wrong order: {:?}", world.done);
    }
    for (handler, before) in (1..).zip(&world.after) {
        for ended in before {
            assert!(at((*ended, STORES)) < at((handler, 1)), "{ended} ended before {handler}: {:?}", world.done);
        }
    }
    world.made
}

#[test]
fn handlers_at_every_step_of_every_capture() {
    let (mut script, mut ways) = (Vec::new(), 0u64);
    loop {
        let mut made = run(script);
        ways += 1;
        // The next one: as an odometer, whose wheels are the choices that were made.
        while made.pop_if(|comes| *comes).is_some() {}
        match made.last_mut() {
            Some(comes) => *comes = true,
            None => break,
        }
        script = made;
    }
    println!("{ways} ways");
    assert!(ways > 10_000);
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
                assert!(thread.run(|| (), perform, || ()).is_none());
                [1, 2, 3].map(|item| thread.defer(item))
            },
            perform,
            || (),
        );
        assert_eq!((result, &done.borrow()[..]), (Some([true, true, false]), &[1, 2][..]));
    }
}

#[test]
fn an_unwinding_capture_leaves_the_thread_free_and_loses_nothing() {
    let thread: Deferral<u8, 2> = Deferral::new([const { Cell::new(0) }; 2]);
    let done = RefCell::new(Vec::new());
    let perform = |item| done.borrow_mut().push(item);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        thread.run(
            || {
                assert!(thread.defer(7));
                std::panic::resume_unwind(Box::new("the session has ended"));
            },
            perform,
            || (),
        )
    }));
    assert!(unwound.is_err() && !thread.busy());
    assert!(thread.run(|| done.borrow_mut().push(8), perform, || ()).is_some());
    assert_eq!(done.borrow()[..], [7, 8]);
}

#[test]
fn a_paused_capture_lets_handlers_store() {
    let thread: Deferral<u8, 2> = Deferral::new([const { Cell::new(0) }; 2]);
    let done = RefCell::new(Vec::new());
    let perform = |item| done.borrow_mut().push(item);
    let result = thread.run(
        || {
            thread.pause(|| assert!(thread.run(|| done.borrow_mut().push(1), perform, || ()).is_some()));
            assert!(thread.busy());
            done.borrow_mut().push(2);
        },
        perform,
        || (),
    );
    assert!(result.is_some());
    assert_eq!(done.borrow()[..], [1, 2]);
}
