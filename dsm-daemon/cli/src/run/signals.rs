//! Ctrl-C and its like, as something that `poll` can wait for.

use crate::failure::{Failure, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

static LAST: AtomicI32 = AtomicI32::new(0);
static BELL: AtomicI32 = AtomicI32::new(-1);

/// Signals that end a run are caught from now on, for as long as this process lives.
#[derive(Debug)]
pub struct Signals {
    bell: &'static OwnedFd,
}

extern "C" fn on_signal(signal: libc::c_int) {
    LAST.store(signal, Ordering::Relaxed);
    let one = 1u64;
    // SAFETY: eight bytes of ours, to a descriptor that is never closed. It can neither wait nor, as the counter never
    // fills up, fail: `errno` stays what it was.
    unsafe { libc::write(BELL.load(Ordering::Relaxed), (&raw const one).cast(), 8) };
}

impl Signals {
    /// Catches SIGINT, SIGTERM and SIGHUP, except for those that we were started to ignore (`nohup`).
    pub fn catch() -> Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell: &'static OwnedFd = Box::leak(Box::new(bell.map_err(Failure::errno("no descriptor for signals"))?));
        BELL.store(bell.as_raw_fd(), Ordering::Relaxed);
        let ours = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let cannot = |errno: nix::Error| Failure::system("cannot handle signals")(errno.into());
            // SAFETY: the handler stores to an atomic and writes to a descriptor: both are allowed there.
            let before = unsafe { sigaction(signal, &ours) }.map_err(cannot)?;
            if matches!(before.handler(), SigHandler::SigIgn) {
                // SAFETY: what it was before.
                unsafe { sigaction(signal, &before) }.map_err(cannot)?;
            }
        }
        Ok(Self { bell })
    }

    /// Becomes readable when a signal has come.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The last signal that has come since the last call.
    pub fn take(&self) -> Option<i32> {
        let _ = rustix::io::read(self.bell, &mut [0; 8]);
        Some(LAST.swap(0, Ordering::Relaxed)).filter(|signal| *signal != 0)
    }
}
