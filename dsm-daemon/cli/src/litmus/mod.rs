//! `dsm litmus`: the memory model, held to its word by running small programs across virtual hosts.

mod check;
mod model;
mod program;
mod report;
mod run;
mod side;
mod tests;
mod variant;

use crate::failure::{Failure, Result};
use report::Report;

/// Arguments of `dsm litmus`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these: `TEST`, `TEST/VARIANT` or `TEST/VARIANT/HOSTS`, as `MP`, `SB/plain+fence`, `IRIW/hole/0,1,2,3`
    pub tests: Vec<String>,
    /// How often each test is run, over all its variants
    #[arg(long, default_value_t = 100_000)]
    pub runs: u64,
    /// What the random delays and layouts start from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// One JSON object for each test in each variant and placement of its threads
    #[arg(long)]
    pub json: bool,
}

/// Runs the tests and reports; fails when anything was seen that the model forbids, or nothing that it relaxes.
pub fn run(args: &Args) -> Result<()> {
    let jobs = variant::plan(&args.tests, args.runs)
        .map_err(|name| Failure::usage(format!("there is no test, variant or placement {name:?}")))?;
    if let Some(worker) = run::Worker::from_environment()? {
        return worker.run(&jobs, args.seed);
    }
    let mut report = Report::new(args.json);
    for hosts in 2..=side::THREADS {
        let jobs: Vec<_> = jobs.iter().filter(|job| job.cluster() == hosts).collect();
        if !jobs.is_empty() {
            run::cluster(hosts, &jobs, args, &mut report)?;
        }
    }
    report.finish()
}
