//! Starts the ranks of a program, on hosts that are directories of one machine, and sees them end.

use std::fs::{DirEntry, File};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// However slow the machine is: later than this, something hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

/// One program at a time: they share two processors, and the port that a run has chosen is not chosen again meanwhile.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How the ranks are started.
pub(crate) struct Run<'a> {
    /// The program.
    pub(crate) binary: &'a str,
    /// Its arguments.
    pub(crate) arguments: &'a [&'a str],
    /// How many processes; 0 is one that is started as by hand, without any variable of ours.
    pub(crate) ranks: usize,
    /// `DSM_CAPTURE`.
    pub(crate) capture: Option<&'a str>,
}

/// What came of one rank.
pub(crate) struct Rank {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Kills what is left when a test fails.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Alone, as four ranks on two hosts, and as four that store through the trap door.
pub(crate) fn each_way(binary: &str, arguments: &[&str], mut check: impl FnMut(usize, Vec<Rank>)) {
    for capture in [None, Some("trap")] {
        for ranks in [0, 4] {
            let run = Run { binary, arguments, ranks, capture };
            check(ranks.max(1), run.run());
        }
    }
}

impl Run<'_> {
    /// Runs all ranks, rank 0 on the first host, rank 1 on the second, and so on in turns. Returns when they have
    /// ended, and their arbiters too.
    ///
    /// # Panics
    /// When something hangs, or stays.
    pub(crate) fn run(&self) -> Vec<Rank> {
        let _turn: MutexGuard<'_, ()> = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        // What arbiters have to say, for when a test fails.
        let log = dir.path().join("log");
        // Whichever arbiter gets the port has the daemon in it; the other connects.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let mut homes = Vec::new();
        let mut children = Children(Vec::new());
        for rank in 0..self.ranks.max(1) {
            let mut command = Command::new(self.binary);
            command.args(self.arguments);
            for (name, _) in std::env::vars_os() {
                if name.to_string_lossy().starts_with("DSM_") {
                    command.env_remove(name);
                }
            }
            let home = if self.ranks == 0 {
                command.env("XDG_RUNTIME_DIR", dir.path());
                dir.path().join("dsm")
            } else {
                let home = dir.path().join(["a", "b"][rank % 2]);
                command.env("DSM_RUNTIME_DIR", &home).env("DSM_DAEMON", port.to_string());
                command.env("DSM_RANK", rank.to_string()).env("DSM_SIZE", self.ranks.to_string());
                home
            };
            homes.push(home);
            command.env("DSM_LINGER_MS", "50").env("DSM_LOG", &log);
            if let Some(capture) = self.capture {
                command.env("DSM_CAPTURE", capture);
            }
            // Files, so that nobody waits for a reader.
            command.stdout(File::create(path(dir.path(), rank, "out")).unwrap());
            command.stderr(File::create(path(dir.path(), rank, "err")).unwrap());
            children.0.push(command.spawn().unwrap());
        }

        let start = Instant::now();
        let said = |rank: usize, name: &str| std::fs::read_to_string(path(dir.path(), rank, name)).unwrap();
        let hung = |what: String| {
            let said: Vec<_> = (0..homes.len()).map(|rank| (rank, said(rank, "out"), said(rank, "err"))).collect();
            panic!("{what}; said so far: {said:?}; arbiters: {:?}", std::fs::read_to_string(&log));
        };
        let mut ranks = Vec::new();
        for (rank, child) in children.0.iter_mut().enumerate() {
            let status = loop {
                match child.try_wait().unwrap() {
                    Some(status) => break status,
                    None if start.elapsed() > WATCHDOG => hung(format!("rank {rank} hangs")),
                    None => std::thread::sleep(Duration::from_millis(2)),
                }
            };
            ranks.push(Rank { status, stdout: said(rank, "out"), stderr: said(rank, "err") });
        }
        let ended = Instant::now();
        while let Some(what) = left(dir.path(), &homes) {
            if ended.elapsed() > WATCHDOG {
                hung(format!("{what} is still there"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        ranks
    }
}

impl Rank {
    /// What it printed, given that it went well.
    pub(crate) fn lines(&self) -> Vec<&str> {
        assert!(self.status.success() && self.stderr.is_empty(), "{}: {}{}", self.status, self.stdout, self.stderr);
        self.stdout.lines().collect()
    }
}

/// A runtime directory that exists, or a process that was started with one.
fn left(dir: &Path, homes: &[PathBuf]) -> Option<String> {
    if let Some(home) = homes.iter().find(|home| home.exists()) {
        return Some(home.display().to_string());
    }
    let dir = dir.as_os_str().as_bytes();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ours = |process: &DirEntry| {
        // Those of others, and what has just ended, cannot be read.
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        environment.windows(dir.len()).any(|part| part == dir)
    };
    processes.into_iter().find(ours).map(|process| process.path().display().to_string())
}

fn path(dir: &Path, rank: usize, name: &str) -> PathBuf {
    dir.join(format!("{name}.{rank}"))
}
