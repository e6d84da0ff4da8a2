//! The three named binaries: they start, say where they are, find each other, and end in good order.

use dsm_core::wire::control::{Find, Found};
use dsm_daemon::client::Client;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Running(Child);

impl Running {
    /// Starts a binary and returns it with the address that it says it is ready at.
    fn start(binary: &str, arguments: &[&str]) -> (Self, String) {
        let mut child = command(binary, arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("{binary} said {line:?}"));
        (Self(child), address.to_owned())
    }

    /// Asks it to end, and sees that it does.
    fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.ended();
    }

    fn ended(&mut self) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(binary: &str, arguments: &[&str]) -> Command {
    let path = match binary {
        "dsm-daemon" => env!("CARGO_BIN_EXE_dsm-daemon"),
        "dsm-server" => env!("CARGO_BIN_EXE_dsm-server"),
        _ => env!("CARGO_BIN_EXE_dsm-arbiter"),
    };
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null());
    for variable in ["DSM_DAEMON", "DSM_KEY_FILE", "DSM_RUNTIME_DIR"] {
        command.env_remove(variable);
    }
    command
}

fn output(binary: &str, arguments: &[&str]) -> Output {
    command(binary, arguments).output().unwrap()
}

#[test]
fn the_trio_finds_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().join("host").display().to_string();
    let (daemon, address) = Running::start("dsm-daemon", &["--listen", "127.0.0.1:0"]);
    let (server, there) = Running::start("dsm-server", &["--session", "game", "--daemon", &address]);
    let (arbiter, its_daemon) = Running::start("dsm-arbiter", &["--runtime-dir", &runtime, "--daemon", &address]);
    assert_eq!(its_daemon, address);
    let mut client = Client::daemon(&address, None).unwrap();
    let game = Find::Session { name: "game".into(), existing: true };
    assert_eq!(client.find(&game).unwrap(), Found::Server(there.clone()));
    assert_eq!(client.find(&Find::List).unwrap(), Found::Sessions(vec![("game".into(), there.clone())]));
    // Joins as an arbiter would.
    let (_connection, host) = dsm_daemon::client::join(&address, "game", true, None).unwrap();
    assert_eq!(host, 1);
    let (_connection, host) = dsm_daemon::client::join(&address, "game", true, None).unwrap();
    assert_eq!(host, 2);
    // A second server for the same session, a second arbiter in the same place: refused.
    let second = output("dsm-server", &["--session", "game", "--daemon", &address]);
    assert_eq!(second.status.code(), Some(1));
    let second = output("dsm-arbiter", &["--runtime-dir", &runtime, "--daemon", &address]);
    assert_eq!(second.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&second.stderr).contains("already running"));
    arbiter.end();
    assert!(!dir.path().join("host").exists(), "the arbiter leaves nothing behind");
    server.end();
    let start = Instant::now();
    while client.find(&game).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20), "the daemon keeps a server that is gone");
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon.end();
}

#[test]
fn a_server_ends_with_its_daemon() {
    let (daemon, address) = Running::start("dsm-daemon", &["--listen=127.0.0.1:0"]);
    let (mut server, _) = Running::start("dsm-server", &["--session", "game", "--daemon", &address]);
    daemon.end();
    server.ended();
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: [(&str, &[&str], i32, &str); 7] = [
        ("dsm-daemon", &["--listen", &taken], 69, "in use by another program"),
        ("dsm-daemon", &["--listen", "0.0.0.0:0"], 2, "needs a key"),
        ("dsm-daemon", &["--listen", "nowhere"], 2, "is not an address"),
        ("dsm-daemon", &["--key-file", "/does/not/exist"], 1, "cannot read the key file"),
        ("dsm-server", &["--session", "a b", "--daemon", &taken], 2, "use letters"),
        ("dsm-server", &["--session", "game", "--daemon", "127.0.0.1:1"], 69, "nothing of dsm answers"),
        ("dsm-arbiter", &["--runtime-dir", "/proc/nothing"], 1, "cannot make the runtime directory"),
    ];
    for (binary, arguments, code, text) in cases {
        let output = output(binary, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{binary} {arguments:?}: {stderr}");
        assert!(stderr.contains(text) && stderr.trim_end().lines().count() == 1, "{binary} {arguments:?}: {stderr}");
    }
    assert_eq!(output("dsm-arbiter", &["--unknown"]).status.code(), Some(2));
    assert_eq!(output("dsm-server", &[]).status.code(), Some(2));
    for binary in ["dsm-daemon", "dsm-server", "dsm-arbiter"] {
        assert!(String::from_utf8_lossy(&output(binary, &["--help"]).stdout).starts_with("usage:"));
        assert!(String::from_utf8_lossy(&output(binary, &["--version"]).stdout).starts_with(binary));
    }
}
