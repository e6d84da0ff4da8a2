//! What is said of a run.

use super::check::{Class, Finding};
use super::tests::TESTS;
use super::variant::Job;
use crate::failure::{Failure, Result};
use std::collections::BTreeMap;
use std::io::Write;

/// All variants of a test together.
#[derive(Debug, Default)]
struct Total {
    runs: u64,
    variants: usize,
    /// Allowed outcomes that were seen, and that there are.
    seen: usize,
    allowed: usize,
    /// Relaxed ones of them.
    relaxed_seen: usize,
    relaxed: usize,
    /// Runs that came to one.
    relaxed_runs: u64,
    forbidden: u64,
    disagreements: u64,
}

/// Below this many runs, that a relaxed outcome was not seen says little.
const ENOUGH: u64 = 5_000;

/// Collects what was found.
#[derive(Debug)]
pub struct Report {
    json: bool,
    verbose: bool,
    totals: BTreeMap<&'static str, Total>,
    /// Variants that never came to the relaxed outcomes that stores with nothing between them lead to.
    nothing: Vec<String>,
}

#[derive(serde::Serialize)]
struct Line<'a> {
    test: &'a str,
    variant: String,
    hosts: String,
    runs: u64,
    seed: u64,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl Report {
    /// Nothing yet.
    pub fn new(json: bool, verbose: bool) -> Self {
        Self { json, verbose, totals: BTreeMap::new(), nothing: Vec::new() }
    }

    /// One test in one variant is done.
    pub fn add(&mut self, job: &Job, seed: u64, finding: &Finding) -> Result<()> {
        let of = |class: Class| finding.seen.iter().filter(move |seen| seen.class == class);
        let (sequential, relaxed) = (of(Class::Sequential).count(), of(Class::Relaxed).count());
        let total = self.totals.entry(job.test.name).or_default();
        total.runs += job.runs;
        total.variants += 1;
        total.seen += sequential + relaxed;
        total.allowed += sequential + relaxed + finding.unseen.len() + finding.unseen_relaxed.len();
        total.relaxed_seen += relaxed;
        total.relaxed += finding.relaxed_allowed;
        total.relaxed_runs += of(Class::Relaxed).map(|seen| seen.count).sum::<u64>();
        total.forbidden += finding.forbidden;
        total.disagreements += finding.disagreements;
        if finding.relaxed_allowed > 0 && relaxed == 0 && job.apart() && job.relaxes() && job.runs >= ENOUGH {
            self.nothing.push(job.name());
        }
        let (test, runs) = (job.test.name, job.runs);
        if self.json {
            let line = Line { test, variant: job.variant(), hosts: job.placement(), runs, seed, finding };
            return print(&serde_json::to_string(&line).map_err(|error| Failure::new(error.to_string()))?);
        }
        if self.verbose {
            print(&format!("{:<28} {runs:>9}  {}", job.name(), outcomes(finding)))?;
        }
        let mut violations = finding.violations.iter();
        violations.try_for_each(|violation| print(&format!("{}: {violation}, seed {seed}", job.name())))
    }

    /// The table, and how it ends.
    pub fn finish(self) -> Result<()> {
        if !self.json {
            self.table()?;
        }
        let bad = self.totals.iter().filter(|(_, total)| total.forbidden + total.disagreements > 0);
        let bad: Vec<&str> = bad.map(|(name, _)| *name).collect();
        if !bad.is_empty() {
            return Err(Failure::new(format!("the memory model was violated: {}", bad.join(", "))));
        }
        if !self.nothing.is_empty() {
            let names = self.nothing.join(", ");
            let text = format!("no relaxed outcome was seen, so that the absence of others proves nothing: {names}");
            return Err(Failure::new(text));
        }
        Ok(())
    }

    fn table(&self) -> Result<()> {
        print(&format!(
            "{:<12} {:>9} {:>8} {:>14} {:>14} {:>12} {:>9} {:>9}",
            "test", "runs", "variants", "allowed seen", "relaxed seen", "relaxed runs", "forbidden", "differing"
        ))?;
        for (name, total) in TESTS.iter().filter_map(|test| self.totals.get_key_value(test.name)) {
            let relaxed = match total.relaxed {
                0 => "-".into(),
                relaxed => format!("{} of {relaxed}", total.relaxed_seen),
            };
            print(&format!(
                "{name:<12} {:>9} {:>8} {:>14} {relaxed:>14} {:>12} {:>9} {:>9}",
                total.runs,
                total.variants,
                format!("{} of {}", total.seen, total.allowed),
                total.relaxed_runs,
                total.forbidden,
                total.disagreements,
            ))?;
        }
        Ok(())
    }
}

fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(Failure::system("cannot write the report"))
}

/// What was seen how often, `~` where it is relaxed and `!` where it is forbidden, and what of the allowed was not.
fn outcomes(finding: &Finding) -> String {
    let mark = |class: Class| match class {
        Class::Sequential => "",
        Class::Relaxed => "~",
        Class::Forbidden => "!",
    };
    let seen = finding.seen.iter().map(|seen| format!("{}{}:{}", mark(seen.class), seen.outcome, seen.count));
    let mut text = seen.collect::<Vec<_>>().join("  ");
    let relaxed = finding.unseen_relaxed.iter().map(|outcome| format!("~{outcome}"));
    let never: Vec<String> = finding.unseen.iter().cloned().chain(relaxed).collect();
    if !never.is_empty() {
        text += &format!("; never {}", never.join(" "));
    }
    text
}
