//! What people meet who join for the first time.

mod common;

use common::{Cluster, eventually, join_by_environment, role};
use dsm::prelude::*;

#[test]
fn a_relative_runtime_directory_is_where_the_program_runs() {
    if role("a_relative_runtime_directory_is_where_the_program_runs") {
        let session = join_by_environment("relative");
        assert!(std::path::Path::new("here/arbiter.sock").exists());
        // Another process finds the same arbiter, and so does one that joins again.
        let again = join_by_environment("relative");
        session.open::<u64>("w").unwrap().set(7);
        assert_eq!(again.attach::<u64>("w").unwrap().get(), 7);
        return;
    }
    let (place, cluster) = (tempfile::tempdir().unwrap(), Cluster::new());
    let name = "a_relative_runtime_directory_is_where_the_program_runs";
    let mut command = cluster.command(0, name, &[("DSM_RUNTIME_DIR", "here")]);
    let output = command.current_dir(place.path()).env_remove("DSM_DAEMON").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("nothing is left behind", || place.path().read_dir().unwrap().next().is_none());
}

#[test]
fn a_runtime_directory_that_is_too_long_is_refused_with_advice() {
    let error = Session::builder("long").runtime_dir(format!("/tmp/{}", "x".repeat(120))).join().unwrap_err();
    assert!(error.to_string().contains("name a shorter DSM_RUNTIME_DIR"), "{error}");
}

#[test]
fn ranks_that_are_not_possible_are_refused() {
    let cluster = Cluster::new();
    for (rank, size) in [(7, 4), (4, 4), (0, 0)] {
        let error = cluster.builder(0, "ranks").rank(rank).size(size).join().unwrap_err();
        assert!(matches!(&error, dsm::Error::Mismatch(text) if text.contains("ranks begin at 0")), "{error}");
    }
    drop(cluster.builder(0, "ranks").rank(3).size(4).join().unwrap());
}

/// What `unwrap` and `dbg!` print fits on a screen.
#[test]
fn handles_and_guards_have_short_descriptions() {
    let cluster = Cluster::new();
    let session = cluster.join(0, "short");
    let words = session.array::<u64>("w", 64).unwrap();
    let (semaphore, barrier) = (session.semaphore("s", 1).unwrap(), session.barrier("b", 1).unwrap());
    let mutex = session.mutex::<u64>("m").unwrap();
    let (guard, locked, hole) = (semaphore.lock().unwrap(), mutex.lock().unwrap(), words.hole().unwrap());
    let all: [&dyn std::fmt::Debug; 8] = [
        &session,
        &words,
        &semaphore,
        &barrier,
        &guard,
        &locked,
        &hole,
        &session.semaphore("other", 1).unwrap().lock(),
    ];
    for description in all.map(|it| format!("{it:?}")) {
        assert!(description.len() < 1000, "{} bytes: {}", description.len(), &description[..200]);
    }
    drop((guard, locked, hole));
}
