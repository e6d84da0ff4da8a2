//! Two or more virtual hosts on this machine: arbiters with runtime directories of their own, one daemon.
#![allow(dead_code, missing_docs, unreachable_pub)]

use dsm::{Builder, Session};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Nothing here may take longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Virtual hosts. When dropped, waits until every arbiter has ended by itself and left nothing behind.
pub struct Cluster {
    dir: tempfile::TempDir,
    daemon: String,
}

impl Cluster {
    pub fn new() -> Self {
        static ENVIRONMENT: Once = Once::new();
        ENVIRONMENT.call_once(|| {
            watchdog();
            // SAFETY: the first thing that a test of this program does; the test harness's other threads do the same
            // and wait here.
            unsafe { std::env::set_var("DSM_LINGER_MS", "50") };
        });
        let dir = tempfile::Builder::new().prefix("dsm-test-").tempdir().unwrap();
        // A port that is free: the first arbiter to come takes it.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let daemon = listener.local_addr().unwrap().to_string();
        Self { dir, daemon }
    }

    pub fn daemon(&self) -> &str {
        &self.daemon
    }

    pub fn dir(&self, host: usize) -> PathBuf {
        self.dir.path().join(format!("h{host}"))
    }

    pub fn builder(&self, host: usize, session: &str) -> Builder {
        Session::builder(session).runtime_dir(self.dir(host)).daemon(&self.daemon)
    }

    pub fn join(&self, host: usize, session: &str) -> Session {
        self.builder(host, session).join().unwrap_or_else(|error| panic!("cannot join: {error}"))
    }

    /// Runs the test function `role` of this test program in a process of its own on `host`; it must begin with
    /// [`role`].
    pub fn spawn(&self, host: usize, role: &str, variables: &[(&str, &str)]) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([role, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env("DSM_RUNTIME_DIR", self.dir(host)).env("DSM_DAEMON", &self.daemon);
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
        Process(command.spawn().unwrap())
    }

    /// Process number of the arbiter of `host`.
    pub fn arbiter_pid(&self, host: usize) -> i32 {
        let socket = std::os::unix::net::UnixStream::connect(self.dir(host).join("arbiter.sock")).unwrap();
        use std::os::fd::AsFd;
        dsm_core::sys::process::peer(socket.as_fd()).unwrap().pid
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        eventually("all arbiters have ended and left nothing behind", || {
            let left = std::fs::read_dir(self.dir.path()).map(|entries| entries.count());
            left.is_ok_and(|left| left == 0)
        });
    }
}

const ROLE: &str = "DSM_TEST_ROLE";

/// Is this process meant to be `name`? Test functions that are only the other half of a test return when not.
pub fn role(name: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|role| role == name) && {
        watchdog();
        true
    }
}

/// A session as the environment says, in a process made by [`Cluster::spawn`].
pub fn join_by_environment(session: &str) -> Session {
    Session::join(session).unwrap_or_else(|error| panic!("cannot join: {error}"))
}

/// A child that does not outlive its test.
pub struct Process(pub Child);

impl Process {
    pub fn succeeds(mut self) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(start.elapsed() < PATIENCE, "a process does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something holds, giving the processor away.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "it never came about that {what}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Ends this process when its tests hang.
fn watchdog() {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    if STARTED.fetch_add(1, Ordering::Relaxed) > 0 {
        return;
    }
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(240));
        eprintln!("the watchdog ends a test that hangs");
        std::process::abort();
    });
}

/// Open descriptors of a process.
pub fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).map_or(0, Iterator::count)
}
