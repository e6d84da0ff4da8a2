//! What the kernel offers: tried, not looked up, wherever that is possible.

use super::{Check, State, read};
use dsm_core::sync::AtomicU32;
use dsm_core::sys::{futex, map, membarrier, process};
use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(super) fn checks() -> Vec<Check> {
    vec![version(), memory_files(), futexes(), pidfds(), peers(), barriers(), traps(), page_faults(), filters()]
}

fn version() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let known = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = format!("Linux {release}");
    match known {
        (0, _) => Check::new("kernel", State::Warning, found, "Its version is unknown; what counts is what follows."),
        known if known < (5, 3) => {
            let text = "dsm needs 5.3 or later, for descriptors that name processes; 5.9 or later is better.";
            Check::new("kernel", State::Missing, found, text)
        }
        known if known < (5, 9) => {
            let text = "It works; 5.9 or later lets trapped stores be carried out faster.";
            Check::new("kernel", State::Warning, found, text)
        }
        _ => Check::new("kernel", State::Ok, found, "Recent enough."),
    }
}

fn memory_files() -> Check {
    let tried = map::memory_file("dsm-doctor", 4096)
        .and_then(|file| map::check_memory_file(&file, 4096))
        .map(|()| "memfd_create and sealing work".to_owned());
    let good = "Segments are memory files that cannot shrink under those who have mapped them.";
    let bad = "Segments are memory files (memfd_create) that are sealed: use a kernel, or a seccomp profile, that allows \
               it.";
    Check::needed("memory files", tried, good, bad)
}

fn futexes() -> Check {
    let word = AtomicU32::new(0);
    let start = Instant::now();
    futex::wait(&word, 0, Duration::from_millis(20));
    let slept = start.elapsed() >= Duration::from_millis(10);
    futex::wake(&word, 1);
    let tried = if slept { Ok("waiting works".to_owned()) } else { Err(Error::other("waiting returns at once")) };
    let good = "Processes sleep on words of shared memory and wake each other.";
    Check::needed("futex", tried, good, "Nothing can sleep without it: use a seccomp profile that allows futex.")
}

fn pidfds() -> Check {
    let us = rustix::process::getpid();
    let tried = rustix::process::pidfd_open(us, rustix::process::PidfdFlags::empty());
    let tried = tried.map_err(Error::from).and_then(|fd| {
        if process::ended(&fd) { Err(Error::other("it says that this process has ended")) } else { Ok(()) }
    });
    let good = "Arbiters see at once when a process dies, and never mistake another for it.";
    let bad =
        "Arbiters watch their processes by it: use Linux 5.3 or later, and a seccomp profile that allows pidfd_open.";
    Check::needed("pidfd_open", tried.map(|()| "works".to_owned()), good, bad)
}

fn peers() -> Check {
    const SO_PEERPIDFD: libc::c_int = 77;
    let tried = UnixStream::pair().and_then(|(one, _two)| {
        let (mut fd, mut len): (libc::c_int, _) = (-1, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: the kernel writes at most `len` bytes to `fd`, both of which are ours.
        let result = unsafe {
            libc::getsockopt(one.as_raw_fd(), libc::SOL_SOCKET, SO_PEERPIDFD, (&raw mut fd).cast(), &raw mut len)
        };
        if result != 0 || fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: a descriptor that the kernel has just made for us.
        let peer = unsafe { OwnedFd::from_raw_fd(fd) };
        if process::ended(&peer.as_fd()) { Err(Error::other("it names another process")) } else { Ok("works".into()) }
    });
    let good = "An arbiter learns from the kernel who is at the other end of a connection.";
    let bad = "Not needed: an arbiter then goes by the process number, which is looked up while its owner waits; Linux 6.5 \
               has it.";
    Check::useful("SO_PEERPIDFD", tried, good, bad)
}

fn barriers() -> Check {
    let tried = if membarrier::available() && membarrier::register() {
        membarrier::everywhere();
        Ok("global expedited works".to_owned())
    } else {
        Err(Error::other("global expedited is not available"))
    };
    let good = "Who stores needs no fence to find out whether the arbiter sleeps.";
    let bad = "Not needed: every captured store then takes a fence of its own, some nanoseconds; Linux 4.16 has it.";
    Check::useful("membarrier", tried, good, bad)
}

fn traps() -> Check {
    let tried = trap().map(|nanoseconds| format!("{:.1} us from store to return", nanoseconds / 1000.0));
    let good = "This is what a plain store through a pointer costs at least; typed handles do not trap.";
    let bad = "A store to protected memory does not reach its handler: whatever intercepts SIGSEGV here must not.";
    Check::needed("trap", tried, good, bad)
}

/// Nanoseconds of a SIGSEGV whose handler steps over the store. In a child: whatever happens to it happens to it alone.
fn trap() -> Result<f64> {
    const ROUNDS: usize = 20_000;
    extern "C" fn step_over(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the kernel's context, valid while the handler runs.
        let registers = unsafe { &mut (*context).uc_mcontext.gregs };
        registers[libc::REG_RIP as usize] += 3; // the length of the store below
    }
    let page = map::Range::reserve(4096, None)?;
    page.protect(0, 4096, map::Access::Read)?;
    let (read, write) = rustix::pipe::pipe()?;
    // SAFETY: this program has one thread here, so that the child may do what it could have done itself.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => {
            drop(write);
            let mut bytes = [0; 8];
            let count = rustix::io::read(&read, &mut bytes)?;
            let status = nix::sys::wait::waitpid(child, None)?;
            if count == 8 { Ok(f64::from_ne_bytes(bytes)) } else { Err(Error::other(format!("it ended: {status:?}"))) }
        }
        nix::unistd::ForkResult::Child => {
            use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
            let handler = SigHandler::SigAction(step_over);
            let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::all());
            // SAFETY: the handler touches nothing but the registers that it was given.
            let set = unsafe { sigaction(Signal::SIGSEGV, &action) };
            // Whoever intercepts traps might hang us.
            nix::unistd::alarm::set(10);
            let start = Instant::now();
            if set.is_ok() {
                for _ in 0..ROUNDS {
                    // SAFETY: faults on our own page, and the handler steps over it: nothing is stored.
                    unsafe {
                        std::arch::asm!("mov [rax], rdx", in("rax") page.base(), in("rdx") 1u64, options(nostack));
                    }
                }
                let each = start.elapsed().as_nanos() as f64 / ROUNDS as f64;
                let _ = rustix::io::write(&write, &each.to_ne_bytes());
            }
            // SAFETY: ends the child without running what belongs to its parent.
            unsafe { libc::_exit(0) }
        }
    }
}

fn page_faults() -> Check {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: takes flags only.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    let call = if fd >= 0 {
        // SAFETY: a descriptor that the kernel has just made for us.
        drop(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) });
        Ok(())
    } else {
        Err(Error::last_os_error())
    };
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/userfaultfd");
    let unprivileged = read("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or_else(|| "unknown".into());
    let word = |result: &Result<()>| result.as_ref().map_or_else(ToString::to_string, |()| "works".to_owned());
    let device = device.map(drop);
    let found = format!(
        "system call: {}; /dev/userfaultfd: {}; vm.unprivileged_userfaultfd: {unprivileged}",
        word(&call),
        word(&device)
    );
    if call.is_ok() || device.is_ok() {
        let text = "Of no importance yet: only the `paged` protocol will need it, which is not built yet.";
        Check::new("userfaultfd", State::Ok, found, text)
    } else {
        let text = "Not needed now: only the `paged` protocol will, which is not built yet. \
                    `sysctl vm.unprivileged_userfaultfd=1`, or access to /dev/userfaultfd, would allow it.";
        Check::new("userfaultfd", State::Warning, found, text)
    }
}

fn filters() -> Check {
    let status = read("/proc/self/status").unwrap_or_default();
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map_or("unknown", str::trim);
    match mode {
        "0" => Check::new("seccomp", State::Ok, "no filter", "No system call is forbidden."),
        "2" => {
            let text = "Of no importance where all else is well: the system calls above were tried under it.";
            Check::new("seccomp", State::Ok, "a filter is active", text)
        }
        other => {
            let text = "Whether system calls are filtered could not be found out; those above were tried.";
            Check::new("seccomp", State::Ok, format!("mode {other}"), text)
        }
    }
}
