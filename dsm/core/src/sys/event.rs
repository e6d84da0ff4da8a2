//! Doorbells: an `eventfd` that a process rings to wake its arbiter.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A new doorbell, non-blocking.
///
/// # Errors
/// What the kernel says when it has no more descriptors.
pub fn doorbell() -> io::Result<OwnedFd> {
    use rustix::event::{EventfdFlags, eventfd};
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Rings: safe in a signal handler. A full counter means that it rings already.
pub fn ring(bell: BorrowedFd<'_>) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: writes eight bytes that we own to a descriptor that is borrowed, hence open.
    unsafe {
        libc::write(bell.as_raw_fd(), one.as_ptr().cast(), one.len());
    }
}

/// Silences the bell.
pub fn silence(bell: BorrowedFd<'_>) {
    let mut count = [0u8; 8];
    // SAFETY: reads at most eight bytes into a buffer that we own.
    unsafe {
        libc::read(bell.as_raw_fd(), count.as_mut_ptr().cast(), count.len());
    }
}
