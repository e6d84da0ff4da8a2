//! `dsm run` with a program that shares memory: this test executable itself.

mod common;

use common::{Place, eventually, start};
use dsm::prelude::*;
use std::time::Duration;

/// Says what this executable shall do instead of testing.
const PART: &str = "DSM_TEST_PART";

/// What `dsm run` starts: `THIS_EXECUTABLE --exact program --nocapture`. Without the variable there is nothing to do.
#[test]
fn program() {
    let Ok(part) = std::env::var(PART) else { return };
    let session = Session::join("test").unwrap();
    let (rank, size) = (session.rank(), session.size());
    let values = session.array::<u64>("values", size).unwrap();
    let barrier = session.barrier("all", size).unwrap();
    values.set(rank, 10 + rank as u64);
    session.semaphore("turns", 1).unwrap();
    barrier.wait_timeout(Duration::from_secs(50)).unwrap();
    println!("\nhost {} has {:?}", session.host(), values.to_vec());
    match part.as_str() {
        "sum" => drop(barrier.wait_timeout(Duration::from_secs(50)).unwrap()),
        // Ends when the session does, or the test.
        _ => eventually("the session ends", || session.ended().is_some()),
    }
}

fn run(place: &Place, part: &str) -> common::Running {
    let this = std::env::current_exe().unwrap();
    let this = this.to_str().unwrap();
    let args = ["run", "-n", "4", "--hosts", "2", "--", this, "--exact", "program", "--nocapture"];
    start(place.command(&args).env(PART, part))
}

fn list(place: &Place) -> serde_json::Value {
    serde_json::from_str(&place.dsm(&["ls", "--json"]).out).unwrap()
}

#[test]
fn stores_reach_the_other_virtual_host() {
    let place = Place::new();
    let said = run(&place, "sum").wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut hosts: Vec<&str> = said.out.lines().filter(|line| line.contains("has")).collect();
    hosts.sort_unstable();
    let expected =
        [(0, 1), (1, 1), (2, 2), (3, 2)].map(|(rank, host)| format!("[{rank}] host {host} has [10, 11, 12, 13]"));
    // Which of the two virtual hosts comes first is not said.
    let swapped =
        [(0, 2), (1, 2), (2, 1), (3, 1)].map(|(rank, host)| format!("[{rank}] host {host} has [10, 11, 12, 13]"));
    assert!(hosts == expected || hosts == swapped, "{said:?}");
    place.assert_empty();
}

#[test]
fn ls_shows_what_is_in_a_session_that_runs() {
    let place = Place::new();
    let running = run(&place, "wait");
    eventually("all four are in", || {
        let list = list(&place);
        let arbiters = list[0]["arbiters"].as_array().cloned().unwrap_or_default();
        let processes = arbiters.iter().map(|arbiter| arbiter["processes"].as_array().unwrap().len());
        processes.sum::<usize>() == 4 && list[0]["barriers"][0]["arrived"] == 0 && list[0]["segments"][0].is_object()
    });
    let found = &list(&place)[0];
    assert_eq!(found["session"], "test");
    assert_eq!(found["hosts"], serde_json::json!([1, 2]));
    assert_eq!(found["segments"][0]["name"], "values");
    assert_eq!(found["segments"][0]["type"], "[u64]");
    assert_eq!(found["semaphores"], serde_json::json!([{"name": "turns", "value": 1, "waiting": 0}]));
    assert_eq!(found["barriers"][0]["parties"], 4);
    let text = place.dsm(&["ls", "test"]).out;
    for words in
        ["session test", "segment    values", "[u64]", "semaphore  turns", "barrier    all", "2 processes here"]
    {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    place.dsm(&["ls", "nobody"]).failed(1, "there is no session \"nobody\"");
    let daemon = found["daemon"].as_str().unwrap();
    let said = place.dsm(&["down", "test", "--daemon", daemon]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = running.wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    place.assert_empty();
}

#[test]
fn an_arbiter_that_dies_ends_the_run_and_is_named() {
    let place = Place::new();
    let running = run(&place, "wait");
    let mut arbiters = Vec::new();
    eventually("two arbiters have joined", || {
        arbiters = list(&place)[0]["arbiters"].as_array().cloned().unwrap_or_default();
        arbiters.len() == 2
    });
    let second = arbiters.iter().find(|arbiter| arbiter["dir"].as_str().unwrap().ends_with("h1")).unwrap();
    let pid = second["pid"].as_i64().unwrap() as i32;
    // SAFETY: an arbiter that this test's run has started, and has not yet waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    let said = running.wait();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("the arbiter of virtual host 1 has ended"), "{said:?}");
    place.assert_empty();
}
