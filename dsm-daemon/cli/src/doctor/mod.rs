//! `dsm doctor`: what this machine can do for dsm, in plain words.

mod environment;
mod kernel;
mod machine;

use crate::failure::{Failure, Result};
use serde::Serialize;
use std::io::Write;

/// Arguments of `dsm doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An array of checks, for scripts
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// It works, with a drawback.
    Warning,
    /// Without it dsm does not work.
    Missing,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
struct Check {
    /// What was looked at.
    check: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What it means, and what to do where there is something to do.
    meaning: String,
}

impl Check {
    fn new(check: &'static str, state: State, found: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { check, state, found: found.into(), meaning: meaning.into() }
    }

    /// Something that must be there.
    fn needed(check: &'static str, tried: std::io::Result<String>, good: &str, bad: &str) -> Self {
        match tried {
            Ok(found) => Self::new(check, State::Ok, found, good),
            Err(error) => Self::new(check, State::Missing, error.to_string(), bad),
        }
    }

    /// Something that it is better to have.
    fn useful(check: &'static str, tried: std::io::Result<String>, good: &str, bad: &str) -> Self {
        let mut this = Self::needed(check, tried, good, bad);
        if this.state == State::Missing {
            this.state = State::Warning;
        }
        this
    }
}

/// Runs `dsm doctor`.
pub fn run(args: &Args) -> Result<()> {
    let mut checks = machine::checks();
    checks.extend(kernel::checks());
    checks.extend(environment::checks());
    let missing: Vec<&str> =
        checks.iter().filter(|check| check.state == State::Missing).map(|check| check.check).collect();
    let text = if args.json {
        let json = serde_json::to_string_pretty(&checks).map_err(|error| Failure::new(error.to_string()))?;
        format!("{json}\n")
    } else {
        describe(&checks, crate::run::colours(&std::io::stdout()))
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::system("cannot write the findings"))?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("dsm cannot work here before this is put right: {}", missing.join(", "))))
}

fn describe(checks: &[Check], colour: bool) -> String {
    let mut text = String::new();
    for Check { check, state, found, meaning } in checks {
        let (word, number) = match state {
            State::Ok => ("ok     ", 32),
            State::Warning => ("warning", 33),
            State::Missing => ("MISSING", 31),
        };
        let word = if colour { format!("\x1b[{number}m{word}\x1b[0m") } else { word.to_owned() };
        text.push_str(&format!("{word}  {check}: {found}\n         {meaning}\n"));
    }
    let of = |state| checks.iter().filter(|check| check.state == state).count();
    let (warnings, missing) = (of(State::Warning), of(State::Missing));
    text.push_str(&match (missing, warnings) {
        (0, 0) => "\nEverything is as it should be.\n".to_owned(),
        (0, count) => format!("\ndsm works here; see the {count} marked \"warning\" for what could be better.\n"),
        (count, _) => format!("\ndsm cannot work here: see the {count} marked \"MISSING\".\n"),
    });
    text
}

/// The content of a small file of the system, without blanks around it.
fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_cannot_be_overlooked() {
        let bad = || Err(std::io::Error::from_raw_os_error(libc::ENOSYS));
        let checks = [
            Check::needed("a", Ok("there".into()), "fine", "bad"),
            Check::useful("b", bad(), "fine", "slower"),
            Check::needed("c", bad(), "fine", "bad: do this"),
        ];
        assert_eq!(checks.iter().map(|c| c.state).collect::<Vec<_>>(), [State::Ok, State::Warning, State::Missing]);
        let text = describe(&checks, false);
        assert!(text.contains("MISSING  c: ") && text.contains("bad: do this") && text.contains("cannot work here"));
        assert!(!text.contains('\x1b'));
        assert!(describe(&checks[..2], false).contains("dsm works here; see the 1"));
    }
}
