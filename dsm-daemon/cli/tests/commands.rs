//! The other commands: what they say, and their exit status.

mod common;

use common::{PATIENCE, Place, eventually, start};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

/// A daemon or arbiter, killed when the test ends.
struct Role {
    child: Child,
    address: String,
}

impl Role {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("ready ").unwrap_or_else(|| panic!("{line:?}")).trim().to_owned();
        Self { child, address }
    }

    fn ended(mut self) -> Option<i32> {
        eventually("it ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn bad_usage_is_status_2_and_one_line() {
    let place = Place::new();
    place.dsm(&["frobnicate"]).failed(2, "unrecognized subcommand 'frobnicate'");
    place.dsm(&["run"]).failed(2, "<PROGRAM>... (see `dsm run --help`)");
    place.dsm(&["run", "--hsots", "2", "true"]).failed(2, "'--hsots'");
    place.dsm(&["run", "-n", "0", "true"]).failed(2, "0 is not in 1..=1024");
    place.dsm(&["run", "-n", "2", "--hosts", "3", "true"]).failed(2, "at least one process for each");
    place.dsm(&["run", "--timeout=-1", "true"]).failed(2, "--timeout");
    place.dsm(&["run", "--daemon", "nonsense", "true"]).failed(2, "\"nonsense\" is not an address");
    place.dsm(&["daemon", "--listen", "nonsense"]).failed(2, "\"nonsense\" is not an address");
    place.dsm(&["server", "--session", "x"]).failed(2, "DSM_DAEMON");
    place.dsm(&["server", "--session", "", "--daemon", "127.0.0.1:1"]).failed(2, "name");
    place.dsm(&["down", "x", "--all"]).failed(2, "--all");
    place.dsm(&["down", "--daemon", "127.0.0.1:1"]).failed(2, "--all");
    place.dsm(&["demo", "--processes", "1", "--hosts", "2"]).failed(2, "at least one process for each");
    let nothing = place.dsm(&[]);
    assert!(nothing.code == Some(2) && nothing.err.contains("Usage: dsm <COMMAND>"), "{nothing:?}");
}

#[test]
fn help_and_version_go_to_stdout() {
    let place = Place::new();
    let version = place.dsm(&["--version"]);
    assert_eq!(version.lines(), [format!("dsm {}", env!("CARGO_PKG_VERSION"))]);
    let help = place.dsm(&["--help"]);
    for name in ["run", "demo", "ls", "down", "doctor", "bench", "daemon", "server", "arbiter"] {
        assert!(help.out.lines().any(|line| line.trim_start().starts_with(name)), "{name}: {help:?}");
        let own = place.dsm(&[name, "--help"]);
        let first = own.out.lines().next().unwrap_or_default();
        assert!(own.code == Some(0) && first.len() > 20 && own.err.is_empty(), "{own:?}");
    }
    assert!(!help.out.contains("demo-worker"));
}

#[test]
fn doctor_finds_that_this_machine_will_do() {
    let place = Place::new();
    let said = place.dsm(&["doctor", "--json"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let checks: Vec<serde_json::Value> = serde_json::from_str(&said.out).unwrap();
    let state = |name: &str| checks.iter().find(|check| check["check"] == name).map(|check| check["state"].clone());
    for needed in ["memory files", "futex", "pidfd_open", "trap", "address space", "runtime directory"] {
        assert_eq!(state(needed), Some("ok".into()), "{needed}");
    }
    assert!(checks.iter().all(|check| check["meaning"].as_str().is_some_and(|text| text.ends_with(['.', ')']))));
    let text = place.dsm(&["doctor"]);
    assert!(text.out.contains("userfaultfd") && text.out.contains("not built yet"));
    assert!(!text.out.contains('\x1b'), "colours where there is no terminal");
}

#[test]
fn doctor_fails_where_dsm_cannot_work_and_says_why() {
    let place = Place::new();
    std::fs::create_dir(place.runtime()).unwrap();
    std::fs::set_permissions(place.runtime(), PermissionsExt::from_mode(0o755)).unwrap();
    let said = place.dsm(&["doctor"]);
    said.failed(1, "dsm cannot work here before this is put right: runtime directory");
    assert!(said.out.contains("MISSING  runtime directory"), "{said:?}");
    std::fs::remove_dir(place.runtime()).unwrap();
    // 64 GiB of addresses.
    let limited = format!("ulimit -v 67108864; exec {} doctor", env!("CARGO_BIN_EXE_dsm"));
    let said = start(Command::new("sh").args(["-c", &limited]).env("DSM_RUNTIME_DIR", place.runtime())).wait();
    said.failed(1, "address space");
    assert!(said.out.contains("ulimit -v unlimited"), "{said:?}");
}

#[test]
fn where_nothing_runs_lists_are_empty() {
    let place = Place::new();
    let said = place.dsm(&["ls", "--json"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "[]\n"));
    assert!(said.err.contains("nothing runs here"), "{said:?}");
    let said = place.dsm(&["ls"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    let said = place.dsm(&["down"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""));
    assert!(said.err.contains("there is nothing to end"), "{said:?}");
    place.dsm(&["down", "game"]).failed(1, "there is no session \"game\"");
    assert!(!place.runtime().exists(), "looking makes nothing");
}

#[test]
fn who_is_not_there_is_unavailable() {
    let place = Place::new();
    // Nobody can listen on port 1 of this address but root, and nobody does.
    for args in [&["ls", "--daemon", "127.0.0.1:1"][..], &["down", "game", "--daemon", "127.0.0.1:1"]] {
        place.dsm(args).failed(69, "127.0.0.1:1");
    }
    let said = start(place.command(&["ls"]).env("DSM_DAEMON", "127.0.0.1:1")).wait();
    said.failed(69, "127.0.0.1:1");
}

#[test]
fn a_port_that_is_taken_is_unavailable() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    place.dsm(&["daemon", "--listen", &address]).failed(69, "is in use by another program");
}

#[test]
fn other_hosts_need_a_key_that_is_kept_secret() {
    let place = Place::new();
    place.dsm(&["daemon", "--listen", "0.0.0.0:0"]).failed(2, "needs a key, since others can reach it");
    let key = place.path().join("key");
    std::fs::write(&key, [1; 32]).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    let path = key.to_str().unwrap();
    for args in [&["daemon", "--key-file", path][..], &["ls", "--daemon", "127.0.0.1:1", "--key-file", path]] {
        place.dsm(args).failed(77, "others can read the key file");
    }
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let daemon = Role::start(&mut place.command(&["daemon", "--listen", "0.0.0.0:0", "--key-file", path]));
    let port = daemon.address.rsplit_once(':').unwrap().1;
    let there = format!("127.0.0.1:{port}");
    place.dsm(&["ls", "--daemon", &there]).failed(77, "wants a key");
    let said = place.dsm(&["ls", "--json", "--daemon", &there, "--key-file", path]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "[]\n"), "{said:?}");
}

#[test]
fn a_session_of_its_own_server_is_listed_and_a_daemon_ends_when_told() {
    let place = Place::new();
    let daemon = Role::start(&mut place.command(&["daemon", "--listen", "127.0.0.1:0"]));
    let flag = ["--daemon", daemon.address.as_str()];
    let server = Role::start(&mut place.command(&["server", "--session", "game", flag[0], flag[1]]));
    let said = place.dsm(&["ls", "--json", flag[0], flag[1]]);
    let list: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&list[0]["session"], &list[0]["server"]), (&"game".into(), &server.address.as_str().into()));
    assert!(list[0]["hosts"].is_null() && list[0]["arbiters"].as_array().is_some_and(Vec::is_empty));
    let said = place.dsm(&["ls", flag[0], flag[1]]);
    assert!(said.out.contains("session game") && said.out.contains("not joined on this host"), "{said:?}");
    let said = place.dsm(&["down", "--all", flag[0], flag[1]]);
    assert_eq!(said.lines(), [""; 0]);
    assert_eq!(daemon.ended(), Some(0));
    assert_eq!(server.ended(), Some(0), "a server lasts as long as its registration");
}

#[test]
fn an_arbiter_is_listed_and_ends_when_told() {
    let place = Place::new();
    let arbiter = Role::start(&mut place.command(&["arbiter"]));
    let second = place.dsm(&["arbiter"]);
    second.failed(69, "an arbiter is already running");
    let said = place.dsm(&["ls"]);
    assert!(said.out.contains("no session; its daemon is 127.0.0.1:"), "{said:?}");
    assert_eq!(place.dsm(&["doctor"]).code, Some(0));
    assert_eq!(place.dsm(&["down"]).lines(), [""; 0]);
    assert_eq!(arbiter.ended(), Some(0));
    assert!(!place.runtime().exists(), "it removes its directory");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = place.command(&["doctor"]);
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let start = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() && start.elapsed() < PATIENCE {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (None, &b""[..]), "ended by SIGPIPE, in silence");
}

#[test]
fn a_daemon_that_is_gone_is_said_and_does_not_hide_the_others() {
    let place = Place::new();
    let daemon = Role::start(&mut place.command(&["daemon", "--listen", "127.0.0.1:0"]));
    let arbiter = Role::start(&mut place.command(&["arbiter", "--daemon", &daemon.address]));
    assert_eq!(arbiter.address, daemon.address, "it found the daemon there and did not start its own");
    drop(daemon);
    let said = place.dsm(&["ls"]);
    assert_eq!(said.code, Some(69), "{said:?}");
    assert!(said.out.contains("no session; its daemon is") && said.err.contains(&arbiter.address), "{said:?}");
    assert_eq!(place.dsm(&["down"]).lines(), [""; 0]);
    assert_eq!(arbiter.ended(), Some(0));
}

#[test]
fn captured_stores_agree_with_the_processors() {
    let place = Place::new();
    let said = place.dsm(&["selftest", "stores", "--cases", "3000", "--seed", "7"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("seed 7: ") && said.out.contains("forms that write memory"), "{}", said.out);
}
