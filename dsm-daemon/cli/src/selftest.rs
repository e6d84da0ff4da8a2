//! `dsm selftest`: the long runs of what the test suite does in short.

use crate::failure::{Failure, Result};

/// Arguments of `dsm selftest`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Compare captured stores with the processor's own: random instructions of every form that writes memory
    Stores {
        /// How many instructions
        #[arg(long, default_value_t = 300_000)]
        cases: u64,
        /// What the random numbers start from; a difference names it
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Runs the comparison, prints its table, and fails when anything differs.
pub fn run(args: &Args) -> Result<()> {
    let What::Stores { cases, seed } = args.what;
    let report = dsm_capture::selftest::run(dsm_capture::selftest::Options::new(seed, cases)).map_err(Failure::system("the comparison cannot run"))?;
    print!("{report}");
    match report.failures.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} differences, the first of them above; seed {seed} repeats them"))),
    }
}
