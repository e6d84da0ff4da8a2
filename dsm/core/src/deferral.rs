//! What a thread does with the stores of a signal handler that interrupted one of its own captures.
//!
//! The interrupted capture may hold the replica lock, so the handler can neither wait for it nor go ahead: its store is
//! queued here, and carried out by the thread when the interrupted capture is done. Everything belongs to one thread;
//! "concurrent" are only its own signal handlers, each of which runs to its end before what it interrupted goes on.
//!
//! Invariants (checked by `tests/deferral.rs`, with handlers nested at every step of each other):
//! - no capture begins inside of another one of the same thread;
//! - everything queued is carried out once, in the order in which it was queued, and before anything that a handler
//!   which came later does itself;
//! - when the outermost capture returns, nothing is queued.

use crate::sync::compiler_fence;
use std::cell::Cell;
// Not those that loom replaces: one thread alone comes here.
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Called between any two steps at which a signal handler could come. Real threads need nothing there.
pub trait Steps {
    /// Between two steps.
    #[inline(always)]
    fn step() {}
}

/// Real threads.
#[derive(Clone, Copy, Debug)]
pub struct Real;

impl Steps for Real {}

/// The state of one thread; room for `N` stores.
#[derive(Debug)]
pub struct Deferral<T: Copy, const N: usize, S: Steps = Real> {
    /// Inside a capture, perhaps with the replica lock.
    busy: Cell<bool>,
    /// Carrying out what was queued.
    draining: Cell<bool>,
    /// Something was queued, or has to be done afterwards, since this was last cleared.
    pending: Cell<bool>,
    /// How many were taken from the queue, and put there, since the thread began.
    taken: Cell<u32>,
    put: AtomicU32,
    queue: [Cell<T>; N],
    _steps: std::marker::PhantomData<S>,
}

impl<T: Copy, const N: usize, S: Steps> Deferral<T, N, S> {
    /// A thread outside of any capture. What the cells hold does not matter.
    pub const fn new(queue: [Cell<T>; N]) -> Self {
        Self {
            busy: Cell::new(false),
            draining: Cell::new(false),
            pending: Cell::new(false),
            taken: Cell::new(0),
            put: AtomicU32::new(0),
            queue,
            _steps: std::marker::PhantomData,
        }
    }

    /// Is the thread inside a capture?
    #[inline(always)]
    pub fn busy(&self) -> bool {
        self.busy.get()
    }

    /// Carries out `act`, a capture of this thread; before it what handlers have left over, and behind it what they
    /// left meanwhile (each by `perform`), and then `settled`. `None`, and nothing done, inside another capture.
    #[inline(always)]
    pub fn run<R>(&self, act: impl FnOnce() -> R, perform: impl Fn(T), settled: impl Fn()) -> Option<R> {
        S::step();
        if self.busy.get() {
            return None;
        }
        S::step();
        let inside = Inside::new(self);
        if self.pending.get() {
            self.drain(&perform);
        }
        S::step();
        let result = act();
        drop(inside);
        S::step();
        if self.pending.get() {
            self.settle(&perform, &settled);
        }
        Some(result)
    }

    /// As [`Deferral::run`], for a capture that neither waits nor unwinds, and only where nothing has been left over: what
    /// nearly every one is. False, and nothing done, where something has, inside another capture, or when `act` itself
    /// says that it has done nothing; what handlers leave meanwhile is carried out before it returns all the same.
    #[inline(always)]
    pub fn run_quick(&self, act: impl FnOnce() -> bool, perform: impl Fn(T), settled: impl Fn()) -> bool {
        S::step();
        if self.busy.get() | self.pending.get() {
            return false;
        }
        S::step();
        let inside = Inside::new(self);
        S::step();
        let done = act();
        drop(inside);
        S::step();
        if self.pending.get() {
            self.settle(&perform, &settled);
        }
        done
    }

    /// Leaves a store to be carried out by the capture that was interrupted. False when there is no room.
    pub fn defer(&self, item: T) -> bool {
        S::step();
        let more = |put: u32| ((put.wrapping_sub(self.taken.get()) as usize) < N).then(|| put.wrapping_add(1));
        // In one step: a handler that comes now has a place of its own. Nobody takes anything before we are done,
        // since the interrupted capture does not go on.
        let Ok(put) = self.put.fetch_update(Relaxed, Relaxed, more) else { return false };
        S::step();
        self.queue[put as usize % N].set(item);
        S::step();
        self.pending.set(true);
        true
    }

    /// Has the end of the interrupted capture call `settled`. Meaningful inside a capture.
    pub fn call_settled(&self) {
        self.pending.set(true);
    }

    /// Lets handlers in for a moment: `wait` runs as outside of the capture, which holds no lock just now. Not while
    /// something queued has its turn, or waits for it: what handlers do now would overtake it.
    pub fn pause(&self, wait: impl FnOnce()) {
        if self.draining.get() || self.taken.get() != self.put.load(Relaxed) {
            return;
        }
        self.busy.set(false);
        compiler_fence();
        wait();
        compiler_fence();
        self.busy.set(true);
    }

    fn drain(&self, perform: &impl Fn(T)) {
        loop {
            // Cleared first: whoever queues from here on sets it again.
            self.pending.set(false);
            S::step();
            while self.taken.get() != self.put.load(Relaxed) {
                S::step();
                let at = self.taken.get();
                let item = self.queue[at as usize % N].get();
                S::step();
                self.taken.set(at.wrapping_add(1));
                S::step();
                self.draining.set(true);
                perform(item);
                self.draining.set(false);
            }
            S::step();
            if !self.pending.get() {
                return;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn settle(&self, perform: &impl Fn(T), settled: &impl Fn()) {
        while self.pending.get() {
            S::step();
            let inside = Inside::new(self);
            self.drain(perform);
            drop(inside);
            settled();
            S::step();
        }
    }
}

/// Marks the thread as inside a capture, also while unwinding.
struct Inside<'a, T: Copy, const N: usize, S: Steps>(&'a Deferral<T, N, S>);

impl<'a, T: Copy, const N: usize, S: Steps> Inside<'a, T, N, S> {
    #[inline(always)]
    fn new(of: &'a Deferral<T, N, S>) -> Self {
        of.busy.set(true);
        compiler_fence();
        S::step();
        Self(of)
    }
}

impl<T: Copy, const N: usize, S: Steps> Drop for Inside<'_, T, N, S> {
    #[inline(always)]
    fn drop(&mut self) {
        S::step();
        compiler_fence();
        self.0.busy.set(false);
    }
}
