//! What a thread is doing, for the signal handlers that interrupt it: see [`crate::signals`].

use crate::region::{Region, fatal};
use dsm_core::bias::Favour;
use dsm_core::deferral::{Deferral, Signals};
use dsm_core::limits::LINE;
use std::cell::Cell;

/// Stores that handlers may make during one interrupted capture, a line each.
const DEFERRED: usize = 64;

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
    /// What the thread knows of the replica lock of one session, that with this tag.
    favour: Favour,
    tag: Cell<u64>,
    /// How often the thread had to do with another since.
    misses: Cell<u32>,
}

/// How often that has to be before it is the other that it knows of: finding out costs a system call.
const MISSES: u32 = 64;

/// Those of this thread, as the kernel has them.
struct Kernel;

impl Signals for Kernel {
    const HELD: u64 = crate::signals::EVERYTHING;

    fn block(&self, blocked: u64) -> u64 {
        crate::signals::set_mask(blocked)
    }
}

thread_local! {
    static HANDS: Hands = const {
        Hands {
            stores: Deferral::new([const { Cell::new(NOTHING) }; DEFERRED]),
            trapped: Cell::new(false),
            favour: Favour::new(),
            // Nobody's.
            tag: Cell::new(u64::MAX),
            misses: Cell::new(0),
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
        self.stores.run(act, Deferred::perform, &Kernel)
    }

    /// As [`Hands::capture`], for an `act` that neither waits nor unwinds, where handlers left nothing. False when nothing
    /// was done.
    #[inline(always)]
    pub(crate) fn quickly(&self, act: impl FnOnce() -> bool) -> bool {
        self.stores.run_quick(act, Deferred::perform, &Kernel)
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

    /// Are there signals that wait for the end of a capture?
    pub(crate) fn holds(&self) -> bool {
        self.stores.holds()
    }

    /// Called while a capture waits, and holds no lock: lets them in.
    pub(crate) fn let_in(&self) {
        if self.holds() {
            self.stores.pause(&Kernel);
        }
    }

    /// In the handler of a signal that interrupted a capture: see [`Deferral::hold`].
    pub(crate) fn hold(&self, blocked: u64, resend: impl FnOnce() -> bool) -> Option<u64> {
        self.stores.hold(blocked, &Kernel, resend)
    }

    /// What the thread knows of the replica lock of the session with this tag, in the process that `process` gives; 0 is
    /// the tag of a session whose lock is not to be biased.
    #[inline(always)]
    pub(crate) fn favour(&self, tag: u64, process: impl FnOnce() -> u32) -> Option<&Favour> {
        if self.tag.get() == tag { Some(&self.favour) } else { self.turn_to(tag, process()) }
    }

    #[cold]
    #[inline(never)]
    fn turn_to(&self, tag: u64, process: u32) -> Option<&Favour> {
        if tag == 0 {
            return None;
        }
        self.misses.set(self.misses.get().wrapping_add(1));
        // A child that shares its parent's memory is another process, and must leave no number there.
        if self.misses.get() < MISSES || std::process::id() != process {
            return None;
        }
        self.misses.set(0);
        // SAFETY: takes nothing, returns a number.
        self.favour.reset(unsafe { libc::gettid() } as u32, process);
        self.tag.set(tag);
        Some(&self.favour)
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
