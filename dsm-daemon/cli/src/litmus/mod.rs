//! `dsm litmus`: the memory model, held to its word by running small programs across virtual hosts.
//!
//! `program` is what a test consists of; `tests` and `variant` make them; `model` explores what each may come to; `run`
//! runs them, with what `settings` chooses; `check` compares; `report` says what came of it.

mod check;
mod model;
mod program;
mod random;
mod report;
mod run;
mod settings;
mod side;
mod tests;
mod variant;

use crate::failure::{Failure, Result};
use report::Report;

/// Arguments of `dsm litmus`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these: `TEST`, `TEST/VARIANT` or `TEST/VARIANT/HOSTS`, as `MP`, `SB/plain+fence`, `IRIW/hole/0,1,2,3`; `0b`
    /// is a second process of host 0, and `alone:0,0b` has no other host in the session
    pub tests: Vec<String>,
    /// How often each test is run with its threads on several hosts, over all its variants
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub runs: u64,
    /// What the random delays and layouts start from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// One JSON object for each test in each variant and placement of its threads
    #[arg(long)]
    pub json: bool,
    /// A line for each test in each variant, with all its outcomes: registers, then final values; `~` marks those that
    /// sequential consistency would not allow
    #[arg(long, short, conflicts_with = "json")]
    pub verbose: bool,
    /// Leave the fences out but expect what they promise: has to end with forbidden outcomes
    #[arg(long)]
    pub skip_fences: bool,
}

/// Runs the tests and reports; fails when anything was seen that the model forbids, or nothing that it relaxes.
pub fn run(args: &Args) -> Result<()> {
    let jobs = variant::plan(&args.tests, args.runs)
        .map_err(|name| Failure::usage(format!("there is no test, variant or placement {name:?}")))?;
    if let Some(worker) = run::Worker::from_environment()? {
        return worker.run(&jobs, args);
    }
    let (mut report, mut known) = (Report::new(args.json, args.verbose), check::Known::default());
    clusters(&jobs, args, &mut known, &mut report)?;
    // What may be seen need not be, on a machine that has something else to do: with luck another time.
    for again in 1..=AGAIN {
        let (tests, runs) = report.unshown();
        if tests.is_empty() {
            break;
        }
        let seed = args.seed.wrapping_add(again << 32);
        let args = Args { tests, runs: 2 * runs, seed, ..*args };
        let jobs = variant::plan(&args.tests, args.runs).map_err(Failure::new)?;
        clusters(&jobs, &args, &mut known, &mut report)?;
    }
    report.finish()
}

/// How often tests are run again that have shown no relaxed outcome.
const AGAIN: u64 = 3;

fn clusters(jobs: &[variant::Job], args: &Args, known: &mut check::Known, report: &mut Report) -> Result<()> {
    let mut clusters = jobs.chunk_by(|a, b| a.cluster() == b.cluster());
    clusters.try_for_each(|jobs| run::cluster(jobs, args, known, report))
}
