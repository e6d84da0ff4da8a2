//! Two or more virtual hosts on this machine: arbiters with runtime directories of their own, one daemon.
#![allow(dead_code, missing_docs, unreachable_pub)]

use dsm::{Builder, Session};
use dsm_core::control::Control;
use dsm_core::limits::{LINE_INDEX, PAGE_INDEX, RING_WORDS, SLOTS};
use dsm_core::log::SharedArea;
use dsm_core::record::{Kind, header};
use dsm_core::slot::Slot;
use dsm_core::sync::Ordering::{Relaxed, Release};
use dsm_core::sys::{map, passing};
use dsm_core::wire::control::{Ask, Told, frame, parse};
use dsm_core::wire::{FrameKind, Hello, Reader, Role};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
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
        Process(self.command(host, role, variables).spawn().unwrap())
    }

    /// What [`Cluster::spawn`] runs.
    pub fn command(&self, host: usize, role: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([role, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env("DSM_RUNTIME_DIR", self.dir(host)).env("DSM_DAEMON", &self.daemon);
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Process number of the arbiter of `host`.
    pub fn arbiter_pid(&self, host: usize) -> i32 {
        let socket = UnixStream::connect(self.dir(host).join("arbiter.sock")).unwrap();
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
        // What was started for it has the directory in its environment.
        let dir = self.dir.path().as_os_str().as_encoded_bytes();
        let ours = |environment: Vec<u8>| environment.windows(dir.len()).any(|part| part == dir);
        eventually("no process of it is left", || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            !processes.filter_map(|process| std::fs::read(process.path().join("environ")).ok()).any(ours)
        });
    }
}

/// The log of a host, looked at from outside, by a process that speaks to the arbiter as any may.
pub struct Watch {
    area: map::Range,
    pub socket: UnixStream,
    /// Its number on the host.
    pub process: u32,
}

impl Watch {
    pub fn new(cluster: &Cluster, host: usize, session: &str) -> Self {
        Self::at(&cluster.dir(host), session)
    }

    /// The host whose runtime directory this is.
    pub fn at(dir: &Path, session: &str) -> Self {
        Self::joined(Self::ask(dir, session))
    }

    /// Asks to join.
    pub fn ask(dir: &Path, session: &str) -> UnixStream {
        let mut socket = UnixStream::connect(dir.join("arbiter.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(bytemuck::bytes_of(&Hello::new(Role::Process, [0; 32], false))).unwrap();
        let ask = Ask::Join { session: session.into(), daemon: None, existing: true };
        socket.write_all(&frame(&ask, 1, 0, 0).unwrap()).unwrap();
        socket
    }

    /// Waits for the answer.
    pub fn joined(socket: UnixStream) -> Self {
        let (mut reader, mut files, mut greeted) = (Reader::new(), Vec::new(), false);
        let process = loop {
            greeted = greeted || reader.take(size_of::<Hello>()).is_some();
            if greeted && let Some(frame) = reader.next().unwrap() {
                assert_eq!(frame.kind, FrameKind::Control);
                match parse(frame.payload).unwrap() {
                    Told::Joined { process, .. } => break u32::from(process),
                    told => panic!("{told:?}"),
                }
            }
            let count = passing::receive(socket.as_fd(), reader.space(), &mut files).unwrap();
            assert!(count > 0, "the arbiter has hung up");
            reader.received(count);
        };
        Self { area: map::Range::of_file(&files[0], size_of::<SharedArea>()).unwrap(), socket, process }
    }

    pub fn area(&self) -> &SharedArea {
        // SAFETY: a mapping of that size that lives as long as `self`; all fields are atomics.
        unsafe { &*self.area.base().cast() }
    }

    /// Does a process (not the arbiter) hold the replica lock?
    pub fn held(&self) -> bool {
        self.area().log().lock().is_held()
    }

    /// Takes the replica lock, as this process or under any other number.
    pub fn lock_as(&self, number: u32) {
        eventually("the lock is free", || self.area().log().lock().try_acquire(number));
    }

    /// Gives it back.
    pub fn unlock(&self) {
        self.area().control.producer.lock.store(0, Release);
    }

    /// Address of a 64-bit word of the log's memory, also of one that the library keeps to itself: any process can write
    /// there.
    pub fn word(&self, number: usize) -> *mut u64 {
        assert!(number < size_of::<SharedArea>() / 8);
        self.area.base().cast::<u64>().wrapping_add(number)
    }

    /// Appends an operation that nobody waits for, as whoever holds the lock could; nothing where the ring is half full.
    pub fn append(&self) {
        const RING: usize = size_of::<Control>() / 8 + SLOTS * size_of::<Slot>() / 8 + 2 * LINE_INDEX + PAGE_INDEX;
        let control = &self.area().control;
        let tail = control.producer.tail.load(Relaxed);
        if tail - control.arbiter.acked.load(Relaxed) < RING_WORDS as u64 / 2 {
            for (at, word) in (tail..).zip([header(Kind::Fence, 0, 16, 0), 0, 0, 0]) {
                // SAFETY: a word of the ring; nobody else appends.
                unsafe { self.word(RING + at as usize % RING_WORDS).write_volatile(word) };
            }
            control.producer.tail.store(tail + 4, Release);
        }
    }

    /// Number of the process that has claimed a slot to wait in, for each slot; 0 for none.
    pub fn waits(&self) -> impl Iterator<Item = u32> {
        self.area().log().slots().iter().map(|slot| {
            // SAFETY: the first word of a slot is the one that says who has claimed it, and an atomic.
            let claim = unsafe { &*std::ptr::from_ref(slot).cast::<std::sync::atomic::AtomicU64>() };
            claim.load(Relaxed) as u32 & 0xffff
        })
    }

    /// Sends nonsense; returns when the arbiter has hung up.
    pub fn fall_out(&self) {
        let _ = (&self.socket).write_all(&[0xff; 64]);
        let mut rest = Vec::new();
        match (&self.socket).read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// Has a process go on when this is dropped, that the test has stopped.
pub struct GoesOn(pub i32);

impl GoesOn {
    /// Stops it.
    pub fn stop(pid: i32) -> Self {
        // SAFETY: sends a signal to an arbiter that this test has started.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
        Self(pid)
    }
}

impl Drop for GoesOn {
    fn drop(&mut self) {
        // SAFETY: as above; while it is stopped, it does not end, and its number is its own.
        unsafe { libc::kill(self.0, libc::SIGCONT) };
    }
}

/// The runtime directory of a process made by [`Cluster::spawn`].
pub fn own_dir() -> PathBuf {
    std::env::var_os("DSM_RUNTIME_DIR").unwrap().into()
}

/// Milliseconds of processor time that a process has used.
pub fn processor_time(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    // The kernel's unit is a hundredth of a second.
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum()
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

/// Says why a test, or a part of it, is not run here. Past the harness, which keeps to itself what tests print that pass.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").map_or_else(String::new, |name| format!("{name}: "));
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}{why}");
}

/// Does everything go through the trap door?
pub fn at_the_trap_door() -> bool {
    std::env::var_os("DSM_CAPTURE").is_some()
}

/// In trap mode, where nothing interrupts a store, says so.
pub fn skipped_at_the_trap_door() -> bool {
    let trap = at_the_trap_door();
    if trap {
        skipped("at the trap door no signal comes in the middle of a store");
    }
    trap
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
