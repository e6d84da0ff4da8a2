//! `dsm selftest`: the long runs of what the test suite does in short.

mod session;

use crate::failure::{Failure, Result};
use dsm_capture::selftest::{Coverage, Options, Report};
use std::io::Write;

/// Arguments of `dsm selftest`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Compare captured stores with the processor's own: random instructions of every form that writes memory
    ///
    /// Each is run natively on private memory and then captured, and registers, flags and memory are compared: once by
    /// the engine alone, and once on a segment of a session, where what arrives on a second host is compared, too.
    Stores(Stores),
    /// The second host of such a comparison
    #[command(hide = true)]
    Mirror,
}

/// Arguments of `dsm selftest stores`.
#[derive(Debug, clap::Args)]
pub struct Stores {
    /// How many instructions on each kind of memory
    #[arg(long, default_value_t = 300_000)]
    cases: u64,
    /// What the random numbers start from; a difference names it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run only the case of this number, as a difference names it
    #[arg(long, conflicts_with = "cases")]
    case: Option<u64>,
    /// On which kind of memory
    #[arg(long, value_enum, default_value_t = On::Both)]
    on: On,
    /// Show every form with the number of its comparisons
    #[arg(long, conflicts_with = "json")]
    table: bool,
    /// One JSON object for each kind of memory
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum On {
    /// Memory of the test's own, and the engine alone
    Engine,
    /// A segment of a session, the library's handler, and a second host
    Session,
    /// One after the other
    Both,
}

/// Runs the comparison, prints what was covered, and fails when anything differs.
pub fn run(args: &Args) -> Result<()> {
    let What::Stores(args) = &args.what else { return session::mirror() };
    let options = args.case.map_or(Options::new(args.seed, args.cases), |case| Options::only(args.seed, case));
    let mut different = None;
    let mut show = |kind: &str, report: Report| {
        let mut out = std::io::stdout().lock();
        // Whoever reads no further has seen enough.
        let _ = match (args.json, args.table) {
            (true, _) => writeln!(out, "{}", json(kind, &report)),
            (_, true) => write!(out, "on {kind}: {report}{}", report.table()),
            _ => write!(out, "on {kind}: {report}"),
        };
        if !report.failures.is_empty() {
            different.get_or_insert((kind.to_owned(), report.failures.len()));
        }
    };
    if args.on != On::Session {
        let report = dsm_capture::selftest::run(options);
        show("engine", report.map_err(Failure::system("the comparison cannot run"))?);
    }
    if args.on != On::Engine {
        show("session", session::run(options)?);
    }
    match different {
        None => Ok(()),
        Some((kind, count)) => Err(Failure::new(format!(
            "{count} differences; `dsm selftest stores --on {kind} --seed {} --case N` repeats one",
            args.seed
        ))),
    }
}

fn json(kind: &str, report: &Report) -> serde_json::Value {
    let forms: Vec<_> = report
        .forms
        .iter()
        .map(|form| {
            let (fared, count, reason) = match form.coverage {
                Coverage::Covered(count) => ("covered", count, None),
                Coverage::Refused(reason) => ("refused", 0, Some(reason)),
                Coverage::NotHere => ("not here", 0, None),
                Coverage::OutOfReach => ("out of reach", 0, None),
                Coverage::NotDrawn => ("not drawn", 0, None),
                _ => ("missed", 0, None),
            };
            serde_json::json!({
                "form": form.syntax, "features": form.features, "fared": fared, "compared": count, "reason": reason,
            })
        })
        .collect();
    serde_json::json!({
        "on": kind, "seed": report.seed, "compared": report.compared, "faulted": report.faulted, "vain": report.vain,
        "undecided": report.undecided, "woken": report.woken,
        "settled": report.settled, "forms": forms, "differences": report.failures,
    })
}
