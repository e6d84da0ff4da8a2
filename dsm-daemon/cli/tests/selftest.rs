//! Captured stores against the processor's own, on a session with two hosts.

mod common;

use common::Place;

/// One run, as the command's own report.
fn compare(place: &Place, cases: u64, seed: u64) -> serde_json::Value {
    let (cases, seed) = (cases.to_string(), seed.to_string());
    let said = place.dsm(&["selftest", "stores", "--on", "session", "--cases", &cases, "--seed", &seed, "--json"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn every_store_arrives_on_the_second_host_as_the_processor_makes_it() {
    // In parts, so that none takes long on a busy machine.
    const PARTS: u64 = 6;
    const CASES: u64 = 50_000;
    let place = Place::new();
    let mut covered = std::collections::BTreeSet::new();
    for seed in 1..=PARTS {
        let report = compare(&place, CASES, seed);
        let number = |name: &str| report[name].as_u64().unwrap();
        assert_eq!(report["differences"], serde_json::json!([]));
        assert!(number("compared") + number("vain") == CASES && number("vain") < CASES / 50, "{report}");
        assert!(number("settled") >= CASES / 64 && number("faulted") > CASES / 1000, "{report}");
        for form in report["forms"].as_array().unwrap().iter().filter(|form| form["fared"] == "covered") {
            covered.insert(form["form"].to_string());
        }
    }
    assert!(covered.len() > 250, "only {} forms were covered", covered.len());
    place.assert_empty();
}

#[test]
fn a_case_can_be_run_alone() {
    let place = Place::new();
    for on in ["engine", "session", "both"] {
        let said = place.dsm(&["selftest", "stores", "--on", on, "--seed", "5", "--case", "1234"]);
        let reports = said.out.matches("seed 5: 1 instructions compared").count();
        let wanted = if on == "both" { 2 } else { 1 };
        assert_eq!((said.code, reports), (Some(0), wanted), "{said:?}");
        // What one case leaves out is not missing.
        assert_eq!(said.out.matches("not drawn in this run, 0 missed").count(), wanted, "{said:?}");
    }
    let table = place.dsm(&["selftest", "stores", "--on", "engine", "--cases", "2000", "--table"]);
    let rows = table.out.lines().filter(|line| line.contains("  MOV r/m64, r64")).count();
    assert_eq!((table.code, rows), (Some(0), 1), "{}", table.out);
    place.dsm(&["selftest", "stores", "--case", "1", "--cases", "2"]).failed(2, "--cases");
}
