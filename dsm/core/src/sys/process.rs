//! Who is at the other end, and is it still alive: `pidfd`s, never bare process numbers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Credentials of a connected Unix-socket peer, as the kernel recorded them when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process number. Only for messages to people: numbers are reused.
    pub pid: i32,
    /// User of the peer.
    pub uid: u32,
}

/// Who is connected to this Unix socket.
///
/// # Errors
/// What the kernel says, for instance when it is not a Unix socket.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok(Peer { pid: credentials.pid(), uid: credentials.uid() })
}

/// A descriptor that names the peer's process for as long as it is held, whatever happens to its number.
///
/// Uses `SO_PEERPIDFD` (Linux 6.5), else `pidfd_open(2)` on the recorded number, which is safe only because the
/// caller asks while the peer still has to wait for our answer.
///
/// # Errors
/// What the kernel says; `ESRCH` when the peer is already gone.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut fd: libc::c_int = -1;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `fd`, both of which are ours.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PEERPIDFD, (&raw mut fd).cast(), &raw mut len)
    };
    if result == 0 && fd >= 0 {
        // SAFETY: a descriptor that the kernel has just made for us.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let pid =
        rustix::process::Pid::from_raw(peer(socket)?.pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Has the process behind this descriptor ended?
pub fn ended(pidfd: &impl AsFd) -> bool {
    readable(pidfd.as_fd())
}

/// Has the thread of this process with this number ended? Not when another has got its number since.
pub fn thread_ended(process: u32, thread: u32) -> bool {
    #[cfg(not(loom))]
    {
        // SAFETY: signal 0 is not sent; the kernel only looks whether it could be.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, 0) };
        sent != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
    }
    #[cfg(loom)]
    {
        let _ = (process, thread);
        false
    }
}

/// Does the process with this number have this file mapped? Yes, if that cannot be said. No, if there is no such
/// process, or it is ending, or has become another program (`exec`).
///
/// The caller has a descriptor of the process: as long as it has not [`ended`], the number is not another's.
pub fn maps(pid: u32, file: &impl AsFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(file) else { return true };
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let wanted = format!(" {major:02x}:{minor:02x} {} ", stat.st_ino);
    let over = |error: &io::Error| error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH);
    let threads = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        // Of another namespace, it has no number here.
        Err(error) => return pid == 0 || !over(&error),
    };
    for thread in threads.flatten() {
        match std::fs::read(thread.path().join("maps")) {
            // The thread has ended; others may go on.
            Ok(text) if text.is_empty() => {}
            Ok(text) => return String::from_utf8_lossy(&text).lines().any(|line| line.contains(&wanted)),
            Err(error) if over(&error) => {}
            Err(_) => return true,
        }
    }
    false
}

/// Has the other end of this socket closed? Looks without reading.
pub fn hung_up(socket: BorrowedFd<'_>) -> bool {
    if cfg!(miri) {
        // Which has no `poll`, and runs tests that nobody hangs up on.
        return false;
    }
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one entry, ours; no waiting.
    let ready = unsafe { libc::poll(&raw mut entry, 1, 0) };
    ready > 0 && entry.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, ours; no waiting.
    let ready = unsafe { libc::poll(&raw mut entry, 1, 0) };
    ready > 0 && entry.revents != 0
}
