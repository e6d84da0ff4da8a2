//! Sleeping on a word of memory that several processes share.

use crate::sync::AtomicU32;
use std::time::Duration;

/// Sleeps while `word` holds `expected`, at the longest for `timeout`. Returns early for no reason at times.
///
/// Safe inside a signal handler: it makes one system call and allocates nothing.
#[cfg(not(loom))]
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    // SAFETY: the word outlives the call (it is borrowed), the timespec is ours; the kernel only reads both.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const timeout, 0, 0);
    }
}

/// Wakes up to `count` sleepers on `word`.
#[cfg(not(loom))]
pub fn wake(word: &AtomicU32, count: u32) {
    // SAFETY: the kernel uses the address as a key only.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count, 0, 0, 0);
    }
}

/// Under loom a sleep is a yield: spurious wake-ups are allowed.
#[cfg(loom)]
pub fn wait(_word: &AtomicU32, _expected: u32, _timeout: Duration) {
    loom::thread::yield_now();
}

/// Under loom nobody sleeps.
#[cfg(loom)]
pub fn wake(_word: &AtomicU32, _count: u32) {}

/// Gives the processor to whoever else is ready to run.
pub fn give_way() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    // SAFETY: takes nothing, touches nothing.
    unsafe {
        libc::sched_yield();
    }
}
