//! Daemon, server and arbiter as processes: started on demand, and killed while a session is in use.

mod common;

use common::{Cluster, PATIENCE, Process, Watch, at_the_trap_door, eventually, join_by_environment, role};
use dsm::prelude::*;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A daemon or a server as a process of its own, ready. The process of this test program that is it runs nothing else.
fn trio(cluster: &Cluster, role: &str) -> Process {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([role, "--exact", "--nocapture", "--test-threads=1"]).stdin(Stdio::null()).stdout(Stdio::piped());
    command.env("DSM_TEST_ROLE", role).env("DSM_DAEMON", cluster.daemon()).stderr(Stdio::null());
    let mut child: Child = command.spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let process = Process(child);
    let ready = out.lines().map(|line| line.unwrap()).find(|line| line.contains("ready "));
    assert!(ready.is_some(), "{role} ended without a word");
    process
}

/// Nobody reads any more what the test harness would say.
fn end_with(result: dsm_daemon::Result<()>) {
    std::process::exit(i32::from(result.is_err()));
}

#[test]
fn a_daemon() {
    if role("a_daemon") {
        let listen = std::env::var("DSM_DAEMON").unwrap();
        end_with(dsm_daemon::role::run(&dsm_daemon::role::Role::Daemon { listen }));
    }
}

#[test]
fn a_server() {
    if role("a_server") {
        let (daemon, listen) = (std::env::var("DSM_DAEMON").unwrap(), "127.0.0.1:0".to_owned());
        let session = "apart".to_owned();
        end_with(dsm_daemon::role::run(&dsm_daemon::role::Role::Server { session, listen, daemon }));
    }
}

/// Two hosts in a session, with every kind of wait open when `end` is called: all end with an error.
fn waits_end(cluster: &Cluster, session: &str, end: impl FnOnce()) {
    let (a, b) = (cluster.join(0, session), cluster.join(1, session));
    let (here, there) = (a.array::<u64>("w", 64).unwrap(), b.array::<u64>("w", 64).unwrap());
    here.set(0, 1);
    eventually("they share", || there.get(0) == 1);
    let (never, also) = (a.semaphore("never", 0).unwrap(), b.semaphore("never", 0).unwrap());
    let (half, held) = (b.barrier("half", 2).unwrap(), a.semaphore("held", 1).unwrap());
    let guard = held.lock().unwrap();
    let ended = |error: dsm::Error| assert!(matches!(error, dsm::Error::SessionEnded { .. }), "{error}");
    let watch = [0, 1].map(|host| Watch::new(cluster, host, session));
    std::thread::scope(|scope| {
        let waits = [
            scope.spawn(|| never.wait().unwrap_err()),
            scope.spawn(|| also.wait_timeout(PATIENCE * 2).unwrap_err()),
            scope.spawn(|| half.wait().unwrap_err()),
            scope.spawn(|| there.atomic(1).wait_until(|word| word == 7).unwrap_err()),
        ];
        let waiting = || watch.iter().flat_map(|watch| watch.waits()).filter(|process| *process != 0).count();
        eventually("three of them wait for the server", || waiting() == 3);
        end();
        waits.into_iter().for_each(|wait| ended(wait.join().unwrap()));
    });
    drop(guard);
    for session in [&a, &b] {
        eventually("both know that it is over", || session.ended().is_some());
        ended(session.open::<u64>("new").unwrap_err());
    }
    if !at_the_trap_door() {
        // The atomics' and the stores' way of saying so.
        for store in [&(|| here.set(2, 1)) as &dyn Fn(), &|| assert_eq!(there.atomic(3).fetch_add(1, SeqCst), 0)] {
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(store)).unwrap_err();
            let text = failed.downcast::<String>().unwrap();
            assert!(text.contains("cannot be shared any more"), "{text}");
        }
    }
    drop((watch, a, b));
}

#[test]
fn a_killed_server_of_its_own_ends_its_session_and_no_other() {
    let cluster = Cluster::new();
    let _daemon = trio(&cluster, "a_daemon");
    let server = trio(&cluster, "a_server");
    let other = [0, 1].map(|host| cluster.join(host, "other"));
    let words = other.each_ref().map(|session| session.open::<u64>("w").unwrap());
    waits_end(&cluster, "apart", || server.kill());
    words[0].set(5);
    eventually("another session goes on", || words[1].get() == 5);
    // The daemon has noticed, and who comes now finds a new session.
    let start = Instant::now();
    let again = loop {
        match cluster.builder(0, "apart").join() {
            Ok(session) => break session,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    again.open::<u64>("w").unwrap().set(1);
    drop((again, other));
}

#[test]
fn a_killed_daemon_of_its_own_ends_what_it_served() {
    let cluster = Cluster::new();
    let daemon = trio(&cluster, "a_daemon");
    waits_end(&cluster, "inside", || daemon.kill());
    // The next to come starts what is missing.
    let again = cluster.join(2, "inside");
    again.open::<u64>("w").unwrap().set(1);
    drop(again);
}

#[test]
fn a_killed_daemon_ends_servers_of_their_own_in_good_order() {
    let cluster = Cluster::new();
    let daemon = trio(&cluster, "a_daemon");
    let server = trio(&cluster, "a_server");
    waits_end(&cluster, "apart", || {
        daemon.kill();
        server.succeeds();
    });
}

/// The daemon was in the arbiter of another host, which is gone with it; our arbiter is about to end, too. Whoever comes now
/// does not have to wait for that.
#[test]
fn an_arbiter_that_outlives_its_daemon_makes_place_for_another() {
    let cluster = Cluster::new();
    let with_daemon = cluster.join(1, "first");
    drop((cluster.join(0, "first"), with_daemon));
    let [ours, theirs] = [0, 1].map(|host| cluster.arbiter_pid(host));
    // SAFETY: sends a signal to an arbiter that this test has started.
    assert_eq!(unsafe { libc::kill(theirs, libc::SIGKILL) }, 0);
    eventually("the daemon is gone", || std::net::TcpStream::connect(cluster.daemon()).is_err());
    let again = cluster.join(0, "second");
    again.open::<u64>("w").unwrap().set(1);
    assert_ne!(cluster.arbiter_pid(0), ours);
    // What the killed one has left.
    drop(cluster.join(1, "second"));
    drop(again);
}

/// An arbiter that is started on demand holds nothing of the program's that started it.
#[test]
fn an_arbiter_inherits_no_descriptors() {
    let cluster = Cluster::new();
    let (mut read, write) = std::io::pipe().unwrap();
    // SAFETY: a descriptor that is open here, and that children get.
    assert_eq!(unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&write), libc::F_SETFD, 0) }, 0);
    let a = cluster.join(0, "inherit");
    drop(write);
    let mut bytes = Vec::new();
    // Would not end while the arbiter had the other end.
    read.read_to_end(&mut bytes).unwrap();
    drop(a);
}

/// Joining, with all that is started for it, waits for answers and for nothing else: with a filter that ends whoever
/// calls `nanosleep`, in this process and what it starts, it succeeds.
#[test]
fn joining_sleeps_nowhere() {
    let cluster = Cluster::new();
    cluster.spawn(0, "joins_without_sleep", &[]).succeeds();
    // A second host, which finds a daemon; and a second process, which finds an arbiter.
    let a = cluster.join(0, "sleepless");
    cluster.spawn(1, "joins_without_sleep", &[]).succeeds();
    cluster.spawn(0, "joins_without_sleep", &[]).succeeds();
    drop(a);
}

#[test]
fn joins_without_sleep() {
    if !role("joins_without_sleep") {
        return;
    }
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let (equal, answer) = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_RET | libc::BPF_K);
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The number of the system call is the first word.
        step(load, 0, 0, 0),
        step(equal, 1, 0, libc::SYS_nanosleep as u32),
        step(equal, 0, 1, libc::SYS_clock_nanosleep as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: gives up what set-uid programs would give.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: a program that the kernel checks; holds for this thread and what it starts, so not for the watchdog.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let start = Instant::now();
    let session = join_by_environment("sleepless");
    session.open::<u64>("w").unwrap().set(1);
    eprintln!("joined, opened and stored after {:?}", start.elapsed());
    drop(session);
}
