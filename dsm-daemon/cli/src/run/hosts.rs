//! Virtual hosts: arbiters, each with a runtime directory of its own.

use super::child::{bind_to_us, kill_group};
use super::lines::Lines;
use super::signals::Signals;
use crate::directory::Directory;
use crate::failure::{Failure, Result};
use dsm_daemon::config;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// How long an arbiter may take to start.
const STARTING: Duration = Duration::from_secs(20);
/// How long an arbiter may take to end in good order.
const ENDING: Duration = Duration::from_secs(3);

/// One virtual host.
#[derive(Debug)]
pub struct Host {
    child: Child,
    /// Readable once the arbiter has ended.
    pub alive: OwnedFd,
    /// Its runtime directory.
    pub dir: PathBuf,
    /// What it says, until it has closed it.
    pub says: Option<(ChildStderr, Lines)>,
}

/// The virtual hosts of a run. They end, and their directories go, when this is dropped.
#[derive(Debug)]
pub struct Hosts {
    /// One after the other.
    pub hosts: Vec<Host>,
    /// Address of the daemon that they all use.
    pub daemon: String,
    /// Where they are.
    pub directory: Directory,
}

impl Hosts {
    /// Starts `count` of them. Without `daemon` the first one has daemon and server in it.
    pub fn start(count: usize, daemon: Option<&str>, signals: &Signals) -> Result<Self> {
        let directory = Directory::make()?;
        let mut this = Self { hosts: Vec::new(), daemon: daemon.unwrap_or_default().to_owned(), directory };
        for number in 0..count {
            let daemon = Some(this.daemon.as_str()).filter(|daemon| !daemon.is_empty());
            let dir = this.directory.host(number);
            let (host, address) = Host::start(number, dir, daemon, signals)?;
            this.hosts.push(host);
            this.daemon = address;
        }
        Ok(this)
    }
}

impl Host {
    fn start(number: usize, dir: PathBuf, daemon: Option<&str>, signals: &Signals) -> Result<(Self, String)> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("dsm").args(["arbiter", "--keep", "--runtime-dir"]).arg(&dir);
        command.env_remove(config::DAEMON).env_remove(dsm_daemon::spawn::ROLE);
        if let Some(daemon) = daemon {
            command.args(["--daemon", daemon]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        bind_to_us(&mut command);
        let mut child = command.spawn().map_err(Failure::system(format!("cannot start virtual host {number}")))?;
        let (out, says) = (child.stdout.take(), child.stderr.take().map(|says| (says, Lines::default())));
        let alive = super::child::pidfd(&child);
        let word = out.map_or_else(|| Ok(String::new()), |out| first_line(out, signals));
        let address =
            word.as_ref().ok().and_then(|word| word.strip_prefix("ready ")).map(|word| word.trim().to_owned());
        match (alive, address, word) {
            (Ok(alive), Some(address), _) => Ok((Self { child, alive, dir, says }, address)),
            (alive, _, word) => {
                kill_group(&child, Signal::SIGKILL);
                let status = child.wait();
                word?;
                alive?;
                let mut text = String::new();
                if let Some((mut says, _)) = says {
                    let _ = says.read_to_string(&mut text);
                }
                let why = text.lines().last().unwrap_or("its arbiter ended without a word");
                let why = why.trim_start_matches("dsm arbiter: ");
                let code = status.ok().and_then(|status| status.code()).filter(|code| *code != 0).unwrap_or(1);
                Err(Failure { code, text: format!("virtual host {number} did not start: {why}") })
            }
        }
    }
}

/// The first line of what an arbiter says, or nothing when it ends without.
fn first_line(mut out: impl Read + AsFd, signals: &Signals) -> Result<String> {
    let deadline = Instant::now() + STARTING;
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = format!("an arbiter was not ready after {STARTING:?}");
            return Err(Failure { code: Failure::UNAVAILABLE, text });
        }
        let mut entries = [
            PollFd::from_borrowed_fd(out.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.descriptor(), PollFlags::IN),
        ];
        let _ = poll(&mut entries, Timespec::try_from(left).ok().as_ref());
        let (said, signalled) = (!entries[0].revents().is_empty(), !entries[1].revents().is_empty());
        if signalled && let Some(signal) = signals.take() {
            return Err(super::ended_by(signal));
        }
        if said {
            let mut byte = [0];
            match out.read(&mut byte) {
                Ok(1) => line.extend(byte),
                _ => break,
            }
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // What an arbiter has to say about being ended is of no interest, and stays in the pipe.
        self.hosts.iter().for_each(|host| kill_group(&host.child, Signal::SIGTERM));
        let deadline = Instant::now() + ENDING;
        for host in &mut self.hosts {
            let left = deadline.saturating_duration_since(Instant::now());
            super::child::wait_readable(&host.alive, left);
            kill_group(&host.child, Signal::SIGKILL);
            let _ = host.child.wait();
        }
    }
}
