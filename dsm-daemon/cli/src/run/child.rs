//! Processes that do not outlive us.

use crate::failure::{Failure, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Makes what `command` starts the leader of a process group of its own, and has the kernel kill it when we die,
/// however that happens. To be started from the main thread: what counts is the death of the thread that started it.
pub fn bind_to_us(command: &mut Command) {
    let us = nix::unistd::getpid();
    command.process_group(0);
    let bind = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // We may have died before that was said.
        if nix::unistd::getppid() == us { Ok(()) } else { Err(std::io::ErrorKind::Interrupted.into()) }
    };
    // SAFETY: runs between `fork` and `exec`, and makes two system calls that allocate nothing and take no lock.
    unsafe { command.pre_exec(bind) };
}

/// A descriptor that becomes readable when the child has ended.
pub fn pidfd(child: &Child) -> Result<OwnedFd> {
    pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty())
        .map_err(Failure::errno("cannot watch a process"))
}

/// Sends a signal to the process group of a child. Only before the child is waited for: until then its number, and
/// that of its group, cannot be anybody else's.
pub fn kill_group(child: &Child, signal: Signal) {
    let Ok(pid) = i32::try_from(child.id()) else { return };
    let _ = killpg(Pid::from_raw(pid), signal);
}

/// Waits until the descriptor is readable, or the time is over.
pub fn wait_readable(fd: &OwnedFd, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut entries = [PollFd::new(fd, PollFlags::IN)];
        let interrupted = poll(&mut entries, Timespec::try_from(left).ok().as_ref()).is_err();
        if !interrupted || left.is_zero() {
            return;
        }
    }
}
