//! Random instructions, by the processor and by the engine. `DSM_CASES` and `DSM_SEED` choose how many and which.

mod common;

use common::allocator::Watching;
use dsm_capture::selftest::{Coverage, Options, capturing, run};

/// No form allocates while it is carried out.
#[global_allocator]
static ALLOCATOR: Watching = Watching(capturing);

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

#[test]
fn the_engine_does_what_the_processor_does() {
    let cases = setting("DSM_CASES", 300_000);
    if cases <= 1_000_000 {
        common::watch();
    }
    let options = Options { first: setting("DSM_FIRST", 0), ..Options::new(setting("DSM_SEED", 1), cases) };
    let report = run(options).expect("memory and handlers");
    println!("{report}");
    assert!(report.failures.is_empty(), "differences:\n{}", report.failures.join("\n"));
    let covered = report.count(|coverage| matches!(coverage, Coverage::Covered(_)));
    assert!(covered > 300, "only {covered} forms were covered");
    // Every form that this processor has is covered, or refused with the reason that the documentation gives.
    let missed = report.count(|coverage| matches!(coverage, Coverage::Missed));
    assert!(missed == 0 || cases < 300_000, "{missed} forms were never carried out:\n{report}");
    let absent = report.count(|coverage| matches!(coverage, Coverage::NotDrawn));
    assert!(absent == 0 || cases < 300_000, "{absent} forms were not drawn:\n{report}");
    assert!(report.vain < report.compared / 50, "{} cases were in vain", report.vain);
    assert!(report.trapped > report.compared * 8 / 10, "only {} of {} trapped", report.trapped, report.compared);
    assert!(report.genuine < report.compared / 10, "{} of {} were handed on", report.genuine, report.compared);
    assert!(report.undecided < report.compared / 10_000 + 2, "{} were undecided", report.undecided);
    assert!(report.woken < report.compared / 1_000 + 2, "{} were woken by a signal", report.woken);
    assert!(report.faulted > report.compared / 1000, "only {} were ended by a signal", report.faulted);
}
