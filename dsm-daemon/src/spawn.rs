//! Starting an arbiter on demand: this very executable, in another role, so that versions always match.

use crate::role::{self, Role};
use crate::{Error, Result, config, runtime};
use std::ffi::{CStr, OsStr};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set in the environment of a process that shall be an arbiter instead of what its `main` says.
pub const ROLE: &str = "DSM_EMBEDDED_ROLE";
/// Names a file to which an arbiter started on demand appends what it has to say.
pub const LOG: &str = "DSM_LOG";

/// Name of such a process.
const NAME: &CStr = c"dsm-arbiter";

/// Starts an arbiter in `dir`, and returns once it accepts connections. The caller holds the start lock, and has seen
/// that none is alive.
///
/// # Errors
/// What the arbiter said.
pub fn arbiter(dir: &Path, daemon: Option<&str>) -> Result<()> {
    let cannot = |what: &str| Error::system(format!("cannot start an arbiter: {what}"));
    let mut command = Command::new("/proc/self/exe");
    // What `ps` is to say.
    command.arg0(OsStr::from_bytes(NAME.to_bytes())).env(ROLE, "arbiter").env(config::RUNTIME_DIR, dir);
    if let Some(daemon) = daemon {
        command.env(config::DAEMON, daemon);
    }
    let log = std::env::var_os(LOG).filter(|path| !path.is_empty()).map(PathBuf::from);
    let opened = log.map(|path| {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        file.map_err(Error::system(format!("{LOG}={}", path.display())))
    });
    let log = opened.transpose()?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.map_or_else(Stdio::null, Stdio::from));
    let mut child = command.spawn().map_err(cannot("this executable cannot be run again"))?;
    let mut line = String::new();
    let out = child.stdout.take().map(BufReader::new);
    let read = out.map_or(Ok(0), |mut out| out.read_line(&mut line));
    // What we started has gone into the background; its parent ends at once.
    child.wait().map_err(cannot("it is lost"))?;
    read.map_err(cannot("it does not answer"))?;
    match line.trim_end().split_once(' ') {
        Some(("ready", _)) => Ok(()),
        Some(("failed", why)) => Err(Error::Unavailable(why.to_owned())),
        _ => Err(Error::Unavailable(
            "the arbiter that was to be started in the background ended without a word; DSM_LOG=FILE records what it \
             says, and `dsm arbiter` runs one in the foreground"
                .into(),
        )),
    }
}

/// If this process was started by [`arbiter`]: goes into the background, is the arbiter, and ends. Else returns at
/// once. To be called before `main`.
pub fn become_arbiter_if_asked() {
    // SAFETY: takes a number. A set-uid program does not change its role because a variable says so.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    // SAFETY: the name is a C string; the result is only compared with null.
    let asked = unsafe { libc::getenv(c"DSM_EMBEDDED_ROLE".as_ptr()) };
    if secure || asked.is_null() {
        return;
    }
    // SAFETY: before `main` there is one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(ROLE) };
    // What the program has open and lets its children have is not ours to hold: a lock, the end of a pipe. We have
    // opened nothing yet.
    // SAFETY: as above, nobody in this process uses a descriptor but the first three.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    // SAFETY: takes a C string, which is copied.
    unsafe { libc::prctl(libc::PR_SET_NAME, NAME.as_ptr()) };
    let _ = nix::unistd::setsid();
    // SAFETY: before `main` there is one thread, hence no lock that another one could hold.
    match unsafe { nix::unistd::fork() } {
        Ok(nix::unistd::ForkResult::Child) => {}
        // SAFETY: ends this process without running what a `main` would have registered.
        _ => unsafe { libc::_exit(0) },
    }
    let _ = std::env::set_current_dir("/");
    let daemon = std::env::var(config::DAEMON).ok().filter(|text| !text.is_empty());
    let dir = std::env::var_os(config::RUNTIME_DIR).map_or_else(runtime::default_dir, PathBuf::from);
    let code = match role::run(&Role::Arbiter { dir, daemon, linger: true, replaceable: true, keep: false }) {
        Ok(()) => 0,
        Err(error) => {
            println!("failed {}", error.to_string().replace('\n', " "));
            error.exit_code()
        }
    };
    // SAFETY: as above; a `main` that never ran has nothing to clean up.
    unsafe { libc::_exit(code) }
}
