//! What a thread is doing, for the signal handlers that interrupt it: see [`crate::signals`].

use crate::region::{Region, fatal};
use dsm_core::deferral::Deferral;
use dsm_core::limits::LINE;
use std::cell::Cell;
use std::mem::MaybeUninit;

/// Stores that handlers may make during one interrupted capture, a line each.
const DEFERRED: usize = 64;
/// Signals that one capture may hold back. Each blocks itself and, when it was held back, all others.
const HELD: usize = 8;

/// A store of a signal handler that interrupted a capture of its own thread.
#[derive(Clone, Copy)]
struct Deferred {
    region: *const Region,
    offset: u64,
    len: usize,
    bytes: [u8; LINE as usize],
}

const NOTHING: Deferred = Deferred { region: std::ptr::null(), offset: 0, len: 0, bytes: [0; LINE as usize] };

/// The state of one thread.
pub(crate) struct Hands {
    stores: Deferral<Deferred, DEFERRED>,
    /// Inside the trap door: there is nothing to unwind to.
    trapped: Cell<bool>,
    /// Signals that came during a capture, to be sent again when it is done, and what was blocked before.
    held: Cell<usize>,
    blocked: Cell<u64>,
    signals: [Cell<MaybeUninit<libc::siginfo_t>>; HELD],
}

thread_local! {
    static HANDS: Hands = const {
        Hands {
            stores: Deferral::new([const { Cell::new(NOTHING) }; DEFERRED]),
            trapped: Cell::new(false),
            held: Cell::new(0),
            blocked: Cell::new(0),
            signals: [const { Cell::new(MaybeUninit::uninit()) }; HELD],
        }
    };
}

/// This thread's.
#[inline(always)]
pub(crate) fn hands() -> &'static Hands {
    let hands = HANDS.with(std::ptr::from_ref);
    // SAFETY: without a destructor, the value lives as long as the thread, and `Hands` cannot be sent to another.
    unsafe { &*hands }
}

impl Hands {
    /// Carries out `act`, which uses the log, and before and after it what handlers left. `None`, and nothing done,
    /// when that would interrupt a capture of this very thread.
    #[inline(always)]
    pub(crate) fn capture<R>(&self, act: impl FnOnce() -> R) -> Option<R> {
        self.stores.run(act, Deferred::perform, || crate::signals::send_again(self))
    }

    /// As [`Hands::capture`], for an `act` that neither waits nor unwinds, where handlers left nothing. False when nothing
    /// was done.
    #[inline(always)]
    pub(crate) fn quickly(&self, act: impl FnOnce() -> bool) -> bool {
        self.stores.run_quick(act, Deferred::perform, || crate::signals::send_again(self))
    }

    /// Is the thread inside a capture?
    #[inline(always)]
    pub(crate) fn busy(&self) -> bool {
        self.stores.busy()
    }

    /// Leaves a store, within one line, to the capture that was interrupted.
    #[cold]
    pub(crate) fn defer(&self, region: &Region, offset: u64, bytes: &[u8]) {
        let mut deferred = Deferred { region, offset, len: bytes.len(), bytes: [0; LINE as usize] };
        deferred.bytes[..bytes.len()].copy_from_slice(bytes);
        if !self.stores.defer(deferred) {
            fatal(&[
                b"dsm: a signal handler interrupted a store of its own thread and made more stores than can be kept: ",
                b"call dsm::signals::adopt() after installing handlers",
            ]);
        }
        // So that it does not come to this again.
        crate::signals::adopt_from_handler();
    }

    /// Called while a capture waits, and holds no lock: lets the signals in that were held back.
    pub(crate) fn wait(&self) {
        if self.held.get() != 0 {
            self.stores.pause(|| crate::signals::send_again(self));
        }
    }

    /// Holds a signal back until the present capture is done. `blocked` is what was blocked when it came. False when
    /// there is no capture, or no room.
    pub(crate) fn hold(&self, info: &libc::siginfo_t, blocked: u64) -> bool {
        let at = self.held.get();
        // A signal that is not a real-time one waits once, as it does when it is blocked.
        let same = |place: &Cell<MaybeUninit<libc::siginfo_t>>| {
            // SAFETY: only the first `at` are looked at, which were initialised here.
            let held = unsafe { place.get().assume_init() };
            held.si_signo == info.si_signo && info.si_signo < 32
        };
        let known = self.signals[..at].iter().any(same);
        if !self.busy() || at == HELD && !known {
            return false;
        }
        if !known {
            self.signals[at].set(MaybeUninit::new(*info));
            self.held.set(at + 1);
        }
        // Of several that came at once, the last to be held back interrupted the capture itself.
        self.blocked.set(blocked);
        self.stores.call_settled();
        true
    }

    /// Hands out the signals that were held back, first come first, and what was blocked before.
    pub(crate) fn take_held(&self, mut signal: impl FnMut(&libc::siginfo_t)) -> Option<u64> {
        let count = self.held.replace(0);
        for place in &self.signals[..count] {
            // SAFETY: `hold` has initialised the first `count`.
            let info = unsafe { place.get().assume_init() };
            signal(&info);
        }
        (count > 0).then(|| self.blocked.get())
    }

    /// Is the thread inside the trap door?
    pub(crate) fn trapped(&self) -> bool {
        self.trapped.get()
    }

    /// Runs `action` as the trap door: a failure inside it ends the process instead of unwinding.
    pub(crate) fn in_trap<R>(&self, action: impl FnOnce() -> R) -> R {
        let before = self.trapped.replace(true);
        let result = action();
        self.trapped.set(before);
        result
    }
}

impl Deferred {
    fn perform(self) {
        // SAFETY: the region outlives the capture that was interrupted in it: its session is borrowed by a handle.
        let region = unsafe { &*self.region };
        region.store_deferred(self.offset, &self.bytes[..self.len]);
    }
}
