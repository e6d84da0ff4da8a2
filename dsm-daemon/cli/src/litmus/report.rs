//! What is said of a run.

use super::check::{Class, Finding};
use super::tests::TESTS;
use super::variant::Job;
use crate::failure::{Failure, Result};
use std::collections::BTreeMap;

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
    /// Was the relaxed outcome to be seen that stores without anything between them lead to?
    owed: bool,
}

/// Below this many runs, that a relaxed outcome was not seen says little.
const ENOUGH: u64 = 10_000;

/// Collects what was found.
#[derive(Debug)]
pub struct Report {
    json: bool,
    totals: BTreeMap<&'static str, Total>,
}

#[derive(serde::Serialize)]
struct Line<'a> {
    test: &'a str,
    variant: String,
    hosts: String,
    runs: u64,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl Report {
    /// Nothing yet.
    pub fn new(json: bool) -> Self {
        Self { json, totals: BTreeMap::new() }
    }

    /// One test in one variant is done.
    pub fn add(&mut self, job: &Job, finding: &Finding) -> Result<()> {
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
        total.owed |= finding.relaxed_allowed > 0 && job.apart() && job.plain();
        if self.json {
            let line =
                Line { test: job.test.name, variant: job.variant(), hosts: job.placement(), runs: job.runs, finding };
            println!("{}", serde_json::to_string(&line).map_err(|error| Failure::new(error.to_string()))?);
        } else {
            for violation in &finding.violations {
                println!("{}: {violation}", job.name());
            }
        }
        Ok(())
    }

    /// The table, and how it ends.
    pub fn finish(self) -> Result<()> {
        if !self.json {
            println!(
                "{:<12} {:>9} {:>8} {:>14} {:>14} {:>12} {:>9} {:>9}",
                "test", "runs", "variants", "allowed seen", "relaxed seen", "relaxed runs", "forbidden", "differing"
            );
            for (name, total) in TESTS.iter().filter_map(|test| self.totals.get_key_value(test.name)) {
                println!(
                    "{name:<12} {:>9} {:>8} {:>14} {:>14} {:>12} {:>9} {:>9}",
                    total.runs,
                    total.variants,
                    format!("{} of {}", total.seen, total.allowed),
                    if total.relaxed == 0 {
                        "-".into()
                    } else {
                        format!("{} of {}", total.relaxed_seen, total.relaxed)
                    },
                    total.relaxed_runs,
                    total.forbidden,
                    total.disagreements,
                );
            }
        }
        let names = |bad: &dyn Fn(&Total) -> bool| {
            self.totals.iter().filter(|(_, total)| bad(total)).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        };
        let broken = names(&|total| total.forbidden + total.disagreements > 0);
        if !broken.is_empty() {
            return Err(Failure::new(format!("the memory model was violated: {broken}")));
        }
        let proves_nothing = names(&|total| total.owed && total.runs >= ENOUGH && total.relaxed_runs == 0);
        if !proves_nothing.is_empty() {
            let text = format!("no relaxed outcome was seen, so that nothing is proven: {proves_nothing}");
            return Err(Failure::new(text));
        }
        Ok(())
    }
}
