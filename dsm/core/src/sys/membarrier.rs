//! `membarrier(2)`: full barriers on other processors, so that the frequent side of a pair pays nothing.

const QUERY: libc::c_long = 0;
const GLOBAL_EXPEDITED: libc::c_long = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_long = 1 << 2;

fn membarrier(command: libc::c_long) -> libc::c_long {
    // SAFETY: the call takes integers only and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

/// Does this kernel have the global expedited command?
pub fn available() -> bool {
    let commands = membarrier(QUERY);
    commands > 0 && commands & GLOBAL_EXPEDITED != 0
}

/// Registers this process as a receiver of [`everywhere`]'s barriers. False where the kernel refuses.
pub fn register() -> bool {
    membarrier(REGISTER_GLOBAL_EXPEDITED) == 0
}

/// Returns once every processor that runs a registered process has executed a full barrier. Ends the process when the
/// kernel, which had the call when this was [`register`]ed, refuses it now (a seccomp filter that came later): two would
/// hold one lock.
pub fn everywhere() {
    while membarrier(GLOBAL_EXPEDITED) != 0 {
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOMEM) {
            refused();
        }
    }
}

#[cold]
fn refused() -> ! {
    let text = b"dsm: membarrier(2) is refused, which was allowed when the session was joined\n";
    // SAFETY: writes bytes that are there to a descriptor that may be closed, which does no harm.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}
