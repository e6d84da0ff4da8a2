//! Running the command under a watchdog, with a runtime directory of its own.
#![allow(dead_code, unreachable_pub)] // not every test file uses everything; `pub` means for the test file

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A place of its own for a test.
pub struct Place {
    dir: tempfile::TempDir,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A command that runs, killed when the test does not wait for it.
pub struct Running {
    child: Child,
    threads: Vec<std::thread::JoinHandle<String>>,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The runtime directory.
    pub fn runtime(&self) -> PathBuf {
        self.dir.path().join("r")
    }

    /// `dsm` with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsm"));
        command.args(args).env("DSM_RUNTIME_DIR", self.runtime()).stdin(Stdio::null());
        for name in ["DSM_DAEMON", "DSM_KEY_FILE", "DSM_RANK", "DSM_SIZE", "NO_COLOR"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs `dsm` to its end.
    pub fn dsm(&self, args: &[&str]) -> Said {
        start(&mut self.command(args)).wait()
    }

    /// Processes that belong to this place.
    pub fn processes(&self) -> Vec<String> {
        let mark = self.path().as_os_str().as_encoded_bytes();
        let mine = |path: PathBuf| {
            let bytes = std::fs::read(path).unwrap_or_default();
            bytes.windows(mark.len()).any(|window| window == mark)
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let all = all.filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit()));
        let mine = all.filter(|path| mine(path.join("environ")) || mine(path.join("cmdline")));
        // A process that is dead and not waited for has neither.
        mine.map(|path| std::fs::read_to_string(path.join("cmdline")).unwrap_or_default().replace('\0', " ")).collect()
    }

    /// Directories of runs.
    pub fn runs(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.runtime()) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Nothing that was started here is left.
    #[track_caller]
    pub fn assert_empty(&self) {
        eventually("no process is left", || self.processes().is_empty());
        assert_eq!(self.runs(), [""; 0], "directories are left");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // An arbiter that a failed test has left; it is not asked nicely, as it may not answer.
        let _ = self.command(&["down"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

pub fn start(command: &mut Command) -> Running {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fn read(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        })
    }
    let threads = vec![read(child.stdout.take().unwrap()), read(child.stderr.take().unwrap())];
    Running { child, threads }
}

impl Running {
    pub fn kill(&self, signal: i32) {
        // SAFETY: a child that has not been waited for keeps its number.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    #[track_caller]
    pub fn wait(self) -> Said {
        self.wait_for(PATIENCE)
    }

    /// As [`Running::wait`], for what may take longer.
    #[track_caller]
    pub fn wait_for(mut self, patience: Duration) -> Said {
        let status = self.end(patience);
        let mut said = self.threads.drain(..).map(|thread| thread.join().unwrap());
        let (out, err) = (said.next().unwrap(), said.next().unwrap());
        Said { code: status.code(), signal: status.signal(), out, err }
    }

    #[track_caller]
    fn end(&mut self, patience: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > patience {
                let _ = self.child.kill();
                panic!("not done after {patience:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Said {
    /// Ended with this status, and said one line on stderr that contains `text`.
    #[track_caller]
    pub fn failed(&self, code: i32, text: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        assert!(self.err.contains(text), "{self:?}");
    }

    /// Ended well. Returns what it said on stdout, sorted.
    #[track_caller]
    pub fn lines(&self) -> Vec<&str> {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        let mut lines: Vec<&str> = self.out.lines().collect();
        lines.sort_unstable();
        lines
    }
}

#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
