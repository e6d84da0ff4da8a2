//! `dsm run` with small shell programs: what is passed on, how it ends, and that nothing is left behind.

mod common;

use common::{Place, eventually, start};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

const SHELL: &[&str] = &["--", "sh", "-c"];

fn shell(place: &Place, flags: &[&str], script: &str) -> common::Said {
    place.dsm(&[&["run"], flags, SHELL, &[script]].concat())
}

#[test]
fn every_process_knows_its_rank_and_its_host() {
    let place = Place::new();
    let script = "echo rank $DSM_RANK of $DSM_SIZE on ${DSM_RUNTIME_DIR##*/} at ${DSM_DAEMON%:*}";
    let said = shell(&place, &["-n", "5", "--hosts", "2"], script);
    let expected: Vec<String> = [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)]
        .map(|(rank, host)| format!("[{rank}] rank {rank} of 5 on h{host} at 127.0.0.1"))
        .to_vec();
    assert_eq!(said.lines(), expected);
    place.assert_empty();
}

#[test]
fn lines_are_whole_and_go_where_they_belong() {
    let place = Place::new();
    let script = "for i in 1 2 3; do printf one-; sleep 0.02; echo $DSM_RANK-$i; done; echo no >&2; printf end";
    let said = shell(&place, &["-n", "3"], script);
    let mut out: Vec<&str> = said.out.lines().collect();
    out.sort_unstable();
    let expected: Vec<String> = (0..3)
        .flat_map(|rank| {
            ["end", "one-R-1", "one-R-2", "one-R-3"]
                .map(|text| format!("[{rank}] {text}").replace('R', &rank.to_string()))
        })
        .collect();
    assert_eq!(out, expected);
    let mut err: Vec<&str> = said.err.lines().collect();
    err.sort_unstable();
    assert_eq!((err, said.code), (vec!["[0] no", "[1] no", "[2] no"], Some(0)));
    let plain = shell(&place, &["--no-prefix"], "echo a; printf b");
    assert_eq!((plain.out.as_str(), plain.code), ("a\nb", Some(0)));
}

#[test]
fn flags_of_the_program_are_its_own_with_and_without_dashes() {
    let place = Place::new();
    assert_eq!(place.dsm(&["run", "-n", "1", "echo", "-n", "--hosts"]).out, "[0] --hosts\n");
    let script = ["sh", "-c", "echo $0 $1", "--help", "-V"];
    assert_eq!(place.dsm(&[&["run", "--"], &script[..]].concat()).out, "[0] --help -V\n");
    assert_eq!(place.dsm(&[&["run"], &script[..]].concat()).out, "[0] --help -V\n");
}

#[test]
fn rank_0_reads_stdin_and_the_others_have_none() {
    let place = Place::new();
    let mut command = place.command(&["run", "-n", "2", "cat"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let running = start(command.stdin(Stdio::from(reader)));
    drop(command);
    writer.write_all(b"hello\n").unwrap();
    drop(writer);
    assert_eq!(running.wait().lines(), ["[0] hello"]);
}

#[test]
fn one_that_fails_ends_the_others_and_gives_its_status() {
    let place = Place::new();
    let said = shell(&place, &["-n", "3", "--hosts", "3"], "test $DSM_RANK = 1 && exit 7; exec sleep 1000");
    said.failed(7, "rank 1 of 3 failed with exit status 7; the others were ended");
    place.assert_empty();
    let said = shell(&place, &["-n", "2"], "test $DSM_RANK = 1 && kill -SEGV $$; exec sleep 1000");
    said.failed(128 + libc::SIGSEGV, "rank 1 of 2 was killed by SIGSEGV (signal 11)");
    place.assert_empty();
}

#[test]
fn who_does_not_listen_to_sigterm_is_killed() {
    let place = Place::new();
    let script = "test $DSM_RANK = 1 && { sleep 0.3; exit 3; }; trap '' TERM; while :; do sleep 0.1; done";
    shell(&place, &["-n", "2"], script).failed(3, "rank 1 of 2");
    place.assert_empty();
}

#[test]
fn a_timeout_ends_everything() {
    let place = Place::new();
    let said = shell(&place, &["-n", "2", "--timeout", "0.3"], "sleep 1000; sleep 1000");
    said.failed(1, "not done after 0.3 s (--timeout): all 2 processes were ended");
    place.assert_empty();
}

fn default_action(signal: i32) -> std::io::Result<()> {
    let signal = nix::sys::signal::Signal::try_from(signal)?;
    // SAFETY: the default action runs no code of ours.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) }?;
    Ok(())
}

#[test]
fn a_signal_ends_everything() {
    for (signal, name) in [(libc::SIGINT, "SIGINT"), (libc::SIGTERM, "SIGTERM"), (libc::SIGHUP, "SIGHUP")] {
        let place = Place::new();
        let mark = place.path().join("started");
        let script = format!("touch {}; sleep 1000 & wait", mark.display());
        let mut command = place.command(&["run", "-n", "2", "--", "sh", "-c", &script]);
        // What is ignored when a program starts stays ignored: the tests may run under `nohup`.
        // SAFETY: between fork and exec, a system call and nothing else.
        unsafe { command.pre_exec(move || default_action(signal)) };
        let running = start(&mut command);
        eventually("it has started", || mark.exists());
        running.kill(signal);
        running.wait().failed(128 + signal, &format!("ended by {name} (signal {signal})"));
        place.assert_empty();
    }
}

#[test]
fn what_a_process_leaves_in_the_background_ends_with_it() {
    let place = Place::new();
    let said = shell(&place, &[], "sleep 1000 & echo left");
    assert_eq!(said.lines(), ["[0] left"]);
    place.assert_empty();
}

#[test]
fn a_killed_run_leaves_no_process_and_the_next_one_cleans_up() {
    let place = Place::new();
    let mark = place.path().join("started");
    let script = format!("touch {}; exec sleep 1000", mark.display());
    let running = start(&mut place.command(&["run", "-n", "2", "--hosts", "2", "--", "sh", "-c", &script]));
    eventually("it has started", || mark.exists());
    assert_eq!(place.runs().len(), 1);
    running.kill(libc::SIGKILL);
    assert_eq!(running.wait().signal, Some(libc::SIGKILL));
    eventually("no process is left", || place.processes().is_empty());
    assert_eq!(place.runs().len(), 1, "who was killed could not remove it");
    let still_there = "ls -d ${DSM_RUNTIME_DIR%/run-*}/run-* | wc -l";
    assert_eq!(shell(&place, &[], still_there).lines(), ["[0] 1"]);
    assert_eq!(place.runs(), [""; 0]);
}

#[test]
fn a_program_that_does_not_exist_is_said_before_anything_starts() {
    let place = Place::new();
    place.dsm(&["run", "-n", "2", "--", "no-such-program"]).failed(2, "there is no program no-such-program in PATH");
    place.dsm(&["run", "./no-such-file"]).failed(2, "there is no program ./no-such-file: No such file");
    place.dsm(&["run", "/etc/passwd"]).failed(77, "/etc/passwd is not an executable file");
    assert!(!place.runtime().exists());
}

#[test]
fn nobody_who_reads_ends_it_like_sigpipe() {
    let place = Place::new();
    let mut command = place.command(&["run", "-n", "2", "yes"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    drop(command);
    eventually("it ends", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(128 + libc::SIGPIPE));
    place.assert_empty();
}

#[test]
fn a_key_is_passed_on_and_a_bad_one_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let key = place.path().join("key");
    std::fs::write(&key, [7; 32]).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let flags = ["-n", "2", "--hosts", "2", "--key-file", key.to_str().unwrap()];
    let said = shell(&place, &flags, "echo ${DSM_KEY_FILE##*/}");
    assert_eq!(said.lines(), ["[0] key", "[1] key"]);
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    shell(&place, &flags, "true").failed(77, "chmod 600 it");
    place.assert_empty();
}
