//! What a thread does with a signal handler that interrupted one of its own captures.
//!
//! The interrupted capture may hold the replica lock, so the handler can neither wait for it nor go ahead. Where we can
//! keep the handler away, its signal is sent again, and waits in the kernel until the capture is done
//! ([`Deferral::hold`]). Of other handlers, the stores are queued here, and carried out by the thread when the
//! interrupted capture is done. Everything belongs to one thread; "concurrent" are only its own signal handlers, each
//! of which runs to its end before what it interrupted goes on.
//!
//! Invariants (checked by `tests/deferral.rs`, with handlers nested at every step of each other):
//! - no capture begins inside of another one of the same thread;
//! - everything queued is carried out once, in the order in which it was queued, and before anything that a handler
//!   which came later does itself;
//! - when the outermost capture returns, nothing is queued;
//! - every signal that was held reaches its handler once, and when the capture that it interrupted is done (or
//!   unwinds), what is blocked is what was blocked before.

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

/// What the kernel does for the signals of the calling thread.
pub trait Signals {
    /// Those that can be held, as a set: signal `n` is bit `n - 1`.
    const HELD: u64;
    /// Blocks these and no others; returns what was blocked.
    fn block(&self, blocked: u64) -> u64;
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
    /// Something was queued, or a signal held, since this was last cleared. Not cleared while `held` is set.
    pending: Cell<bool>,
    /// Signals were held. Cleared by the capture that they interrupted.
    held: Cell<bool>,
    /// What was blocked when that capture was interrupted.
    blocked: Cell<u64>,
    /// The present capture is not that one.
    outer: Cell<bool>,
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
            held: Cell::new(false),
            blocked: Cell::new(0),
            outer: Cell::new(false),
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
    /// left meanwhile (each by `perform`); then lets in the signals that were held. `None`, and nothing done, inside
    /// another capture.
    #[inline(always)]
    pub fn run<R>(&self, act: impl FnOnce() -> R, perform: impl Fn(T), signals: &impl Signals) -> Option<R> {
        S::step();
        if self.busy.get() {
            return None;
        }
        S::step();
        // Held already: for a capture that this handler has interrupted at its very end, and which lets them in itself,
        // since only with it what was blocked there comes back.
        let outer = self.pending.get() && self.held.get();
        S::step();
        let inside = Inside::new(self, signals, outer);
        if self.pending.get() {
            self.outer.set(outer);
            self.drain(&perform);
        }
        S::step();
        let result = act();
        inside.leave();
        S::step();
        if self.pending.get() {
            self.settle(&perform, signals, outer);
        }
        Some(result)
    }

    /// As [`Deferral::run`], for a capture that neither waits nor unwinds, and only where nothing has been left over: what
    /// nearly every one is. False, and nothing done, where something has, inside another capture, or when `act` itself
    /// says that it has done nothing; what handlers leave meanwhile is carried out before it returns all the same.
    #[inline(always)]
    pub fn run_quick(&self, act: impl FnOnce() -> bool, perform: impl Fn(T), signals: &impl Signals) -> bool {
        S::step();
        // Nothing pending: so nothing held for a capture further out, either.
        if self.busy.get() | self.pending.get() {
            return false;
        }
        S::step();
        let inside = Inside::new(self, signals, false);
        S::step();
        let done = act();
        inside.leave();
        S::step();
        if self.pending.get() {
            self.settle(&perform, signals, false);
        }
        done
    }

    /// Leaves a store to be carried out by the capture that was interrupted. False when there is no room.
    pub fn defer(&self, item: T) -> bool {
        S::step();
        let more = |put: u32| ((put.wrapping_sub(self.taken.get()) as usize) < N).then(|| put.wrapping_add(1));
        // In one step: a handler that comes now has a place of its own. Nobody takes anything before we are done,
        // since the interrupted capture does not go on.
        let put = loop {
            let put = self.put.load(Relaxed);
            let Some(next) = more(put) else { return false };
            if self.put.compare_exchange_weak(put, next, Relaxed, Relaxed).is_ok() {
                break put;
            }
        };
        S::step();
        self.queue[put as usize % N].set(item);
        S::step();
        self.pending.set(true);
        true
    }

    /// In the handler of a signal that interrupted a capture: has it wait, with all others, until that is done. `resend`
    /// sends the signal to this thread once more, which is to find it blocked; it says whether that could be done.
    /// `blocked` is what was blocked when the signal came. Returns what is to be blocked when the handler returns, or
    /// `None` when the signal must be handled now.
    pub fn hold<K: Signals>(&self, blocked: u64, signals: &K, resend: impl FnOnce() -> bool) -> Option<u64> {
        S::step();
        // Nobody comes from here on until the handler has returned. Of several that came at once, each of which has
        // interrupted the one before, the last to come here has interrupted the capture itself.
        let before = signals.block(u64::MAX);
        if !resend() {
            signals.block(before);
            return None;
        }
        S::step();
        self.blocked.set(blocked);
        S::step();
        self.held.set(true);
        self.pending.set(true);
        S::step();
        Some(blocked | K::HELD)
    }

    /// Are signals held?
    #[inline(always)]
    pub fn holds(&self) -> bool {
        self.held.get()
    }

    /// Lets handlers in for a moment that were held, as outside of the capture, which holds no lock just now. Not while
    /// something queued has its turn, or waits for it: what handlers do now would overtake it.
    pub fn pause<K: Signals>(&self, signals: &K) {
        if self.draining.get() || self.queued() || self.outer.get() {
            return;
        }
        self.held.set(false);
        self.busy.set(false);
        compiler_fence();
        self.let_in(signals);
        compiler_fence();
        self.busy.set(true);
    }

    /// Has what was held be delivered: outside of any capture.
    #[cold]
    fn let_in<K: Signals>(&self, signals: &K) {
        let now = signals.block(u64::MAX);
        // Unless the last of them had interrupted a handler (one that is never held): with its end the mask is what it
        // was.
        signals.block(if now & K::HELD == K::HELD { self.blocked.get() } else { now });
    }

    fn queued(&self) -> bool {
        self.taken.get() != self.put.load(Relaxed)
    }

    fn drain(&self, perform: &impl Fn(T)) {
        loop {
            // Cleared first: whoever queues from here on sets it again.
            self.pending.set(false);
            S::step();
            while self.queued() {
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
            if self.held.get() {
                // That is for the end of whatever was interrupted.
                self.pending.set(true);
            } else if self.pending.get() {
                continue;
            }
            S::step();
            // Queued since: the end of the capture would find it, but what its caller does comes before that.
            if !self.queued() {
                return;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn settle(&self, perform: &impl Fn(T), signals: &impl Signals, outer: bool) {
        loop {
            let inside = Inside::new(self, signals, outer);
            self.outer.set(false);
            self.drain(perform);
            inside.leave();
            S::step();
            if !outer && self.held.get() {
                self.held.set(false);
                S::step();
                self.let_in(signals);
                S::step();
            }
            if !self.queued() {
                return;
            }
        }
    }
}

/// Marks the thread as inside a capture. When it is dropped, instead of left, the capture unwinds: what is queued waits
/// for the next one, as it might unwind in its turn; signals do not wait.
struct Inside<'a, T: Copy, const N: usize, S: Steps, K: Signals> {
    of: &'a Deferral<T, N, S>,
    signals: &'a K,
    outer: bool,
}

impl<'a, T: Copy, const N: usize, S: Steps, K: Signals> Inside<'a, T, N, S, K> {
    #[inline(always)]
    fn new(of: &'a Deferral<T, N, S>, signals: &'a K, outer: bool) -> Self {
        of.busy.set(true);
        compiler_fence();
        S::step();
        Self { of, signals, outer }
    }

    #[inline(always)]
    fn leave(self) {
        S::step();
        compiler_fence();
        self.of.busy.set(false);
        std::mem::forget(self);
    }
}

impl<T: Copy, const N: usize, S: Steps, K: Signals> Drop for Inside<'_, T, N, S, K> {
    #[cold]
    fn drop(&mut self) {
        compiler_fence();
        self.of.busy.set(false);
        self.of.draining.set(false);
        self.of.outer.set(false);
        if !self.outer && self.of.held.get() {
            self.of.held.set(false);
            self.of.let_in(self.signals);
        }
    }
}
