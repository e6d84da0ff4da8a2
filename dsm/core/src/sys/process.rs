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

/// Has the other end of this socket closed? Looks without reading.
pub fn hung_up(socket: BorrowedFd<'_>) -> bool {
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
