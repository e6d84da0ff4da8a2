//! The memory model across virtual hosts: nothing that it forbids is seen, and what it relaxes is.

mod common;

use common::{Place, Said, start};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What must be there.
const TESTS: [&str; 14] =
    ["SB", "MP", "LB", "S", "R", "2+2W", "WRC", "IRIW", "ISA2", "RWC", "CoRR", "CoWW", "CoRW", "CoWR"];
/// Those whose relaxed outcomes are certain to come.
const RELAXED: [&str; 4] = ["SB", "R", "RWC", "IRIW"];
/// The longest that a run may take, with other load on the machine.
const PATIENCE: Duration = Duration::from_secs(400);

/// What outcomes are seen depends on who runs when: one run at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(place: &Place, trap: bool, arguments: &[&str], tests: &[&str]) -> Said {
    let mut command = place.command(&["litmus", "--json"]);
    command.args(arguments).args(tests);
    if trap {
        command.env("DSM_CAPTURE", "trap");
    }
    start(&mut command).wait_for(PATIENCE)
}

/// What came of a test.
#[derive(Default)]
struct Found {
    /// Runs on several hosts.
    runs: u64,
    /// Runs that came to a relaxed outcome, by variant.
    relaxed: BTreeMap<String, u64>,
}

impl Found {
    fn relaxed(&self) -> u64 {
        self.relaxed.values().sum()
    }
}

/// Are threads of a test on several hosts?
fn spread(hosts: &str) -> bool {
    // Those of one host alone are all on the first.
    hosts.bytes().any(|byte| byte.is_ascii_digit() && byte != b'0')
}

/// Runs the tests, `runs` times each. Each runs also with threads in two processes of a host, beside another host and without one.
fn litmus(place: &Place, trap: bool, runs: u64, tests: &[&str]) -> BTreeMap<String, Found> {
    let said = run(place, trap, &["--runs", &runs.to_string()], tests);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    let mut found = BTreeMap::<String, Found>::new();
    let mut placements = BTreeMap::<String, String>::new();
    for line in said.out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((line["forbidden"].as_u64(), line["disagreements"].as_u64()), (Some(0), Some(0)), "{line}");
        let found = found.entry(line["test"].as_str().unwrap().to_owned()).or_default();
        *placements.entry(line["test"].to_string()).or_default() += &format!("{} ", line["hosts"].as_str().unwrap());
        let seen = line["seen"].as_array().unwrap();
        let count = |seen: &serde_json::Value| seen["count"].as_u64().unwrap();
        assert_eq!(seen.iter().map(count).sum::<u64>(), line["runs"].as_u64().unwrap(), "{line}");
        found.runs += if spread(line["hosts"].as_str().unwrap()) { line["runs"].as_u64().unwrap() } else { 0 };
        let relaxed = found.relaxed.entry(line["variant"].as_str().unwrap().to_owned()).or_default();
        *relaxed += seen.iter().filter(|seen| seen["class"] == "relaxed").map(count).sum::<u64>();
    }
    for (test, placements) in placements {
        let two_processes = |hosts: &str| hosts.contains("0b");
        let (alone, beside) = placements
            .split(' ')
            .filter(|hosts| two_processes(hosts))
            .fold((0, 0), |(a, b), hosts| if hosts.starts_with("alone:") { (a + 1, b) } else { (a, b + 1) });
        assert!(alone > 0 && beside > 0, "{test} ran on {placements}");
    }
    found
}

#[test]
fn what_the_model_forbids_is_not_seen_and_what_it_relaxes_is() {
    let (_alone, place) = (alone(), Place::new());
    let found = litmus(&place, false, 100_000, &TESTS);
    for test in TESTS {
        let found = &found[test];
        assert!(found.runs >= 100_000, "{test} ran {} times", found.runs);
        assert_eq!(found.relaxed() > 0, RELAXED.contains(&test), "{test}: {:?}", found.relaxed);
    }
    // However stores are made that nothing follows.
    for (test, variant) in RELAXED.iter().flat_map(|test| ["plain", "accessor", "hole"].map(|variant| (*test, variant)))
    {
        assert!(found[test].relaxed[variant] > 0, "{test}/{variant} never came to a relaxed outcome");
    }
    place.assert_empty();
}

#[test]
fn halves_of_words_and_counters_keep_to_the_model_too() {
    let (_alone, place) = (alone(), Place::new());
    let found =
        litmus(&place, false, 5_000, &["SB+rfi", "ADD", "CAS", "ADD+W", "SB+halves", "MP+halves", "CoWW+halves"]);
    assert_eq!(found.len(), 7);
    place.assert_empty();
}

#[test]
fn with_everything_through_the_trap_door() {
    let (_alone, place) = (alone(), Place::new());
    let found = litmus(&place, true, 2_000, &TESTS);
    for test in TESTS {
        let found = &found[test];
        assert!(found.runs >= 2_000, "{test} ran {} times", found.runs);
        assert!(found.relaxed() > 0 || !["SB", "R"].contains(&test), "{test} never came to a relaxed outcome");
    }
    place.assert_empty();
}

/// The suite finds a violation where there is one: here the fences that its tests rely on are not executed.
#[test]
fn a_missing_fence_is_found() {
    let (_alone, place) = (alone(), Place::new());
    let said = run(
        &place,
        false,
        &["--skip-fences", "--runs", "5000"],
        &["SB/plain+fence/0,1", "R/accessor+fence/0,1", "IRIW/accessor+fence/0,1,0b,1b"],
    );
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("violated: IRIW, R, SB"), "{said:?}");
    // Readers beside the writers, in processes of their own, have the writer's of their host first.
    for (test, outcome) in [("SB", "0,0"), ("R", "0,2"), ("IRIW", "1,0,1,0")] {
        let lines = said.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let line = lines.into_iter().find(|line| line["test"] == test).unwrap();
        let forbidden = &line["seen"][0];
        assert_eq!((forbidden["class"].as_str(), forbidden["outcome"].as_str()), (Some("forbidden"), Some(outcome)));
        let text = line["violations"][0].as_str().unwrap();
        for part in ["forbidden", outcome, "registers", "round", "instance"] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        assert_eq!(line["seed"].as_u64(), Some(1));
    }
    place.assert_empty();
}

#[test]
fn what_is_not_there_is_refused() {
    let (_alone, place) = (alone(), Place::new());
    place.dsm(&["litmus", "SB/nothing"]).failed(2, "SB/nothing");
    place.assert_empty();
}
