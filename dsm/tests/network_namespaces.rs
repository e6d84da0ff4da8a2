//! Two real network stacks: namespaces of our own, joined by a veth pair, with the session key that leaving loopback
//! asks for. Skipped, with the reason on stderr, where root or `ip netns` is missing.

mod common;

use common::{PATIENCE, Process, role, skipped};
use dsm::prelude::*;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Two namespaces with addresses 10.77.N.1 and 10.77.N.2, removed at the end.
struct Namespaces {
    names: [String; 2],
    net: u8,
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Namespaces {
    fn new() -> Result<Self, String> {
        if !nix::unistd::getuid().is_root() {
            return Err("only root can make network namespaces".into());
        }
        let pid = std::process::id();
        let this = Self { names: [0, 1].map(|n| format!("dsm-{pid}-{n}")), net: (pid % 250) as u8 };
        let [one, two] = &this.names;
        ip(&format!("netns add {one}"))?;
        ip(&format!("netns add {two}"))?;
        ip(&format!("link add v0 netns {one} type veth peer name v1 netns {two}"))?;
        for (name, device, last) in [(one, "v0", 1), (two, "v1", 2)] {
            ip(&format!("-n {name} addr add 10.77.{}.{last}/24 dev {device}", this.net))?;
            ip(&format!("-n {name} link set {device} up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(this)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

#[test]
fn two_hosts_on_networks_of_their_own() {
    let namespaces = match Namespaces::new() {
        Ok(namespaces) => namespaces,
        Err(why) => {
            skipped(why.trim());
            return;
        }
    };
    let dir = tempfile::Builder::new().prefix("dsm-netns-").tempdir().unwrap();
    let key = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        let file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), bytes).unwrap();
        path
    };
    let (right, wrong) = (key("key", &[42; 32]), key("wrong", &[43; 32]));
    let daemon = format!("10.77.{}.1:7419", namespaces.net);
    let start = |host: usize, role: &str, key: Option<&Path>| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespaces.names[host]]).arg(std::env::current_exe().unwrap());
        command.args([role, "--exact", "--nocapture"]).env("DSM_TEST_ROLE", role).env("DSM_LINGER_MS", "50");
        command.env("DSM_DAEMON", &daemon).env("DSM_RUNTIME_DIR", dir.path().join(format!("{host}{role}")));
        key.map(|key| command.env("DSM_KEY_FILE", key));
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    };
    // Outside of loopback and without a key: refused before anything listens.
    start(0, "netns_daemon_refuses", None).succeeds();
    let _daemon = start(0, "netns_daemon", Some(&right));
    let (one, two) = (start(0, "netns_zero", Some(&right)), start(1, "netns_one", Some(&right)));
    start(1, "netns_stranger", Some(&wrong)).succeeds();
    start(1, "netns_stranger", None).succeeds();
    one.succeeds();
    two.succeeds();
}

#[test]
fn netns_daemon_refuses() {
    if !role("netns_daemon_refuses") {
        return;
    }
    let listen = std::env::var("DSM_DAEMON").unwrap();
    let error = dsm_daemon::role::run(&dsm_daemon::role::Role::Daemon { listen }).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("DSM_KEY_FILE"), "{error}");
}

#[test]
fn netns_daemon() {
    if role("netns_daemon") {
        let listen = std::env::var("DSM_DAEMON").unwrap();
        dsm_daemon::role::run(&dsm_daemon::role::Role::Daemon { listen }).unwrap();
    }
}

#[test]
fn netns_stranger() {
    if !role("netns_stranger") {
        return;
    }
    let start = Instant::now();
    loop {
        match Session::join("netns") {
            Err(Error::Permission(text)) => {
                assert!(text.contains("key"), "{text}");
                return;
            }
            // The daemon may not listen yet.
            Err(Error::Unavailable(_)) if start.elapsed() < PATIENCE => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn netns_zero() {
    if role("netns_zero") {
        work(0);
    }
}

#[test]
fn netns_one() {
    if role("netns_one") {
        work(1);
    }
}

/// Both hosts: plain stores, atomics, semaphores, barriers, holes.
fn work(rank: usize) {
    let start = Instant::now();
    let session = loop {
        match Session::join("netns") {
            Ok(session) => break session,
            Err(Error::Unavailable(_)) if start.elapsed() < PATIENCE => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let words = session.array::<u64>("w", 4096).unwrap();
    let barrier = session.barrier("b", 2).unwrap();
    let meet = || assert!(barrier.wait_timeout(PATIENCE).is_ok());
    meet();
    for round in 1..=200u64 {
        // SAFETY: within the array; traps.
        unsafe { words.as_ptr().wrapping_add(rank).write_volatile(round) };
        words.set(2 + rank, round);
        words.atomic(4).fetch_add(1, SeqCst);
        meet();
        assert_eq!(words.range(0..4).to_vec(), [round; 4]);
        assert_eq!(words.get(4), 2 * round);
        meet();
    }
    let mut hole = words.range(1000 + rank * 1000..2000 + rank * 1000).hole().unwrap();
    hole.iter_mut().enumerate().for_each(|(at, word)| *word = at as u64 + 7);
    hole.fill().unwrap();
    meet();
    assert!((0..1000).all(|at| words.get(1000 + at) == at as u64 + 7 && words.get(2000 + at) == at as u64 + 7));
    let lock = session.semaphore("s", 1).unwrap();
    for _ in 0..100 {
        let _g = lock.lock_timeout(PATIENCE).unwrap();
        words.set(5, words.get(5) + 1);
    }
    meet();
    assert_eq!(words.get(5), 200);
    meet();
}
