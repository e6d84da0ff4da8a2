//! The memory model across virtual hosts: nothing that it forbids is seen, and what it relaxes is.

mod common;

use common::Place;
use std::collections::BTreeMap;

/// What must be there.
const TESTS: [&str; 14] =
    ["SB", "MP", "LB", "S", "R", "2+2W", "WRC", "IRIW", "ISA2", "RWC", "CoRR", "CoWW", "CoRW", "CoWR"];
/// Those whose relaxed outcomes are certain to come.
const RELAXED: [&str; 4] = ["SB", "R", "RWC", "IRIW"];

/// Runs the tests, `runs` times each; returns how often each ran, and how often it came to a relaxed outcome.
fn litmus(place: &Place, runs: u64, tests: &[&str]) -> BTreeMap<String, (u64, u64)> {
    let runs = runs.to_string();
    let mut arguments = vec!["litmus", "--json", "--runs", &runs];
    arguments.extend(tests);
    let said = place.dsm(&arguments);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    let mut found = BTreeMap::<String, (u64, u64)>::new();
    for line in said.out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((line["forbidden"].as_u64(), line["disagreements"].as_u64()), (Some(0), Some(0)), "{line}");
        let (runs, relaxed) = found.entry(line["test"].as_str().unwrap().to_owned()).or_default();
        let seen = line["seen"].as_array().unwrap();
        let count = |seen: &serde_json::Value| seen["count"].as_u64().unwrap();
        assert_eq!(seen.iter().map(count).sum::<u64>(), line["runs"].as_u64().unwrap(), "{line}");
        *runs += line["runs"].as_u64().unwrap();
        *relaxed += seen.iter().filter(|seen| seen["class"] == "relaxed").map(count).sum::<u64>();
    }
    found
}

#[test]
fn what_the_model_forbids_is_not_seen_and_what_it_relaxes_is() {
    let place = Place::new();
    let found = litmus(&place, 100_000, &TESTS);
    for test in TESTS {
        let (runs, relaxed) = found[test];
        assert!(runs >= 100_000, "{test} ran {runs} times");
        assert!(relaxed > 0 || !RELAXED.contains(&test), "{test} never came to a relaxed outcome");
    }
    place.assert_empty();
}

#[test]
fn halves_of_words_and_counters_keep_to_the_model_too() {
    let place = Place::new();
    let found = litmus(&place, 5_000, &["SB+rfi", "ADD", "CAS", "ADD+W", "SB+halves", "MP+halves", "CoWW+halves"]);
    assert_eq!(found.len(), 7);
    place.assert_empty();
}

#[test]
fn what_is_not_there_is_refused() {
    let place = Place::new();
    let said = place.dsm(&["litmus", "SB/nothing"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("SB/nothing") && said.err.lines().count() == 1, "{}", said.err);
    place.assert_empty();
}
