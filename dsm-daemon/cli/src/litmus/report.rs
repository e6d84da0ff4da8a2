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
    /// On several hosts, and on one.
    runs: u64,
    beside: u64,
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

/// A test in one of its variants, in all placements of its threads for which the model allows relaxed outcomes.
#[derive(Debug, Default)]
struct Relaxed {
    jobs: Vec<String>,
    runs: u64,
    /// Runs that came to one.
    seen: u64,
}

/// Below this many runs, that a relaxed outcome was not seen says little.
const ENOUGH: u64 = 2_000;

/// Collects what was found.
#[derive(Debug)]
pub struct Report {
    json: bool,
    verbose: bool,
    totals: BTreeMap<&'static str, Total>,
    /// By test and variant.
    relaxed: BTreeMap<(&'static str, String), Relaxed>,
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
        Self { json, verbose, totals: BTreeMap::new(), relaxed: BTreeMap::new() }
    }

    /// One test in one variant is done.
    pub fn add(&mut self, job: &Job, seed: u64, finding: &Finding) -> Result<()> {
        let of = |class: Class| finding.seen.iter().filter(move |seen| seen.class == class);
        let (sequential, relaxed) = (of(Class::Sequential).count(), of(Class::Relaxed).count());
        let total = self.totals.entry(job.test.name).or_default();
        *if job.spread() { &mut total.runs } else { &mut total.beside } += job.runs;
        total.variants += 1;
        total.seen += sequential + relaxed;
        total.allowed += sequential + relaxed + finding.unseen.len() + finding.unseen_relaxed.len();
        total.relaxed_seen += relaxed;
        total.relaxed += finding.relaxed_allowed;
        let relaxed_runs = of(Class::Relaxed).map(|seen| seen.count).sum::<u64>();
        total.relaxed_runs += relaxed_runs;
        total.forbidden += finding.forbidden;
        total.disagreements += finding.disagreements;
        if finding.relaxed_allowed > 0 {
            let relaxed = self.relaxed.entry((job.test.name, job.variant())).or_default();
            relaxed.jobs.push(job.name());
            relaxed.runs += job.runs;
            relaxed.seen += relaxed_runs;
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

    fn nothing(&self) -> impl Iterator<Item = (&(&'static str, String), &Relaxed)> {
        self.relaxed.iter().filter(|(_, relaxed)| relaxed.seen == 0 && relaxed.runs >= ENOUGH)
    }

    /// The tests with variant and placement that might have come to relaxed outcomes and in no placement have, and how
    /// often they ran.
    pub fn unshown(&self) -> (Vec<String>, u64) {
        let jobs = self.nothing().flat_map(|(_, relaxed)| relaxed.jobs.iter().cloned());
        let jobs: std::collections::BTreeSet<String> = jobs.collect();
        (jobs.into_iter().collect(), self.nothing().map(|(_, relaxed)| relaxed.runs).sum())
    }

    /// The table, and how it ends.
    pub fn finish(self) -> Result<()> {
        if !self.json {
            self.table()?;
        }
        self.verdict()
    }

    fn verdict(&self) -> Result<()> {
        let bad = self.totals.iter().filter(|(_, total)| total.forbidden + total.disagreements > 0);
        let bad: Vec<&str> = bad.map(|(name, _)| *name).collect();
        if !bad.is_empty() {
            return Err(Failure::new(format!("the memory model was violated: {}", bad.join(", "))));
        }
        let names: Vec<String> = self.nothing().map(|((test, variant), _)| format!("{test}/{variant}")).collect();
        if !names.is_empty() {
            let names = names.join(", ");
            let text = format!("no relaxed outcome was seen, so that the absence of others proves nothing: {names}");
            return Err(Failure::new(text));
        }
        Ok(())
    }

    fn table(&self) -> Result<()> {
        print(&format!(
            "{:<12} {:>9} {:>9} {:>8} {:>14} {:>14} {:>12} {:>9} {:>9}",
            "test",
            "runs",
            "one host",
            "variants",
            "allowed seen",
            "relaxed seen",
            "relaxed runs",
            "forbidden",
            "differing"
        ))?;
        for (name, total) in TESTS.iter().filter_map(|test| self.totals.get_key_value(test.name)) {
            let relaxed = match total.relaxed {
                0 => "-".into(),
                relaxed => format!("{} of {relaxed}", total.relaxed_seen),
            };
            print(&format!(
                "{name:<12} {:>9} {:>9} {:>8} {:>14} {relaxed:>14} {:>12} {:>9} {:>9}",
                total.runs,
                total.beside,
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

#[cfg(test)]
mod tests {
    use super::super::check::Seen;
    use super::super::variant::plan;
    use super::*;

    /// Adds what came of `runs` of a test, `relaxed` of them relaxed where `allowed` outcomes may be.
    fn add(report: &mut Report, name: &str, allowed: usize, runs: u64, relaxed: u64) {
        let mut job = plan(&[name.to_owned()], 1).unwrap().remove(0);
        assert_eq!(job.name(), name);
        job.runs = runs;
        let seen = |class, count| Seen { outcome: "0,0".into(), class, count };
        let mut seen = vec![seen(Class::Relaxed, relaxed), seen(Class::Sequential, runs - relaxed)];
        seen.retain(|seen| seen.count > 0);
        let (unseen, unseen_relaxed, violations) = Default::default();
        let finding = Finding {
            seen,
            unseen,
            unseen_relaxed,
            relaxed_allowed: allowed,
            forbidden: 0,
            disagreements: 0,
            violations,
        };
        report.add(&job, 1, &finding).unwrap();
    }

    #[test]
    fn what_the_model_relaxes_has_to_be_seen_where_it_may_be() {
        let mut report = Report::new(false, false);
        // Placements that do not allow any say nothing, and few runs say nothing.
        add(&mut report, "IRIW/hole/0,1,2,3", 0, 9 * ENOUGH, 0);
        add(&mut report, "IRIW/hole/0,1,0,1", 1, ENOUGH / 2, 0);
        assert!(report.verdict().is_ok() && report.unshown().0.is_empty());
        add(&mut report, "IRIW/hole/0,1,0b,1b", 1, ENOUGH / 2, 0);
        add(&mut report, "IRIW/plain/0,1,0,1", 1, ENOUGH, 1);
        let text = format!("{:?}", report.verdict().unwrap_err());
        assert!(text.contains("IRIW/hole") && !text.contains("IRIW/plain"), "{text}");
        assert_eq!(report.unshown(), (vec!["IRIW/hole/0,1,0,1".into(), "IRIW/hole/0,1,0b,1b".into()], ENOUGH));
        // Looked at again, with success.
        add(&mut report, "IRIW/hole/0,1,0b,1b", 1, ENOUGH, 1);
        assert!(report.verdict().is_ok() && report.unshown().0.is_empty());
    }
}
