//! Random instructions, by the processor and by the engine. `DSM_CASES` and `DSM_SEED` choose how many and which.

mod common;

use dsm_capture::selftest::{Coverage, run};

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

#[test]
fn the_engine_does_what_the_processor_does() {
    let cases = setting("DSM_CASES", 120_000);
    if cases <= 1_000_000 {
        common::watch();
    }
    let report = run(cases, setting("DSM_SEED", 1)).expect("memory and handlers");
    println!("{report}");
    assert!(report.failures.is_empty(), "differences:\n{}", report.failures.join("\n"));
    let covered = report.count(|coverage| matches!(coverage, Coverage::Covered(_)));
    assert!(covered > 300, "only {covered} forms were covered");
    assert!(report.trapped > report.compared * 9 / 10, "only {} of {} trapped", report.trapped, report.compared);
    assert!(report.genuine < report.compared / 20, "{} of {} were handed on", report.genuine, report.compared);
}
