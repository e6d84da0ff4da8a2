//! `dsm demo`: two virtual hosts at work on one image, live.

mod view;
mod worker;

use crate::failure::{Failure, Result};
use crate::ls::count;
use crate::run::hosts::Hosts;
use crate::run::signals::Signals;
use crate::run::supervise::{self, Program, Source, Watch};
use dsm_core::wire::control::SessionStatus;
use dsm_daemon::local::Local;
use dsm_examples::image::{self, Image};
use std::path::PathBuf;
use std::time::Duration;
use view::View;
pub use worker::{Args as WorkerArgs, worker};

/// The session.
const SESSION: &str = "demo";
/// How long it may take, on the slowest of machines.
const TIMEOUT: Duration = Duration::from_secs(180);
/// How often the view changes.
const INTERVAL: Duration = Duration::from_millis(150);

/// Arguments of `dsm demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of processes
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    processes: u64,
    /// Number of virtual hosts
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=16))]
    hosts: u64,
    /// Width and height of the image
    #[arg(long, value_name = "PIXELS", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(64..=8192))]
    side: u64,
    /// How often the image is worked on
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
}

/// What rank 0 says, a line each, and what the parent makes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum News {
    /// Now they store through both doors.
    Doors,
    /// Now latency is measured.
    Latency,
    /// Median nanoseconds from store to visible: direct door, trap door.
    Measured(f64, f64),
    /// Round, of how many, pixels done.
    Round(u64, u64, u64),
}

impl News {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |text: &str| text.parse().ok();
        match words[..] {
            ["doors"] => Some(Self::Doors),
            ["latency"] => Some(Self::Latency),
            ["measured", direct, trapped] => Some(Self::Measured(direct.parse().ok()?, trapped.parse().ok()?)),
            ["round", round, of, done] => Some(Self::Round(number(round)?, number(of)?, number(done)?)),
            _ => None,
        }
    }
}

impl std::fmt::Display for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Doors => f.write_str("doors"),
            Self::Latency => f.write_str("latency"),
            Self::Measured(direct, trapped) => write!(f, "measured {direct} {trapped}"),
            Self::Round(round, of, done) => write!(f, "round {round} {of} {done}"),
        }
    }
}

/// Looks on: hears what the processes say, and asks the arbiters what they do.
struct Demo {
    view: View,
    /// A connection to each arbiter, once there is one.
    asked: Vec<Option<Local>>,
    statuses: Vec<SessionStatus>,
    latency: Option<(f64, f64)>,
}

/// Runs `dsm demo`.
pub fn run(args: &Args) -> Result<()> {
    let (size, count_of_hosts, side) = (args.processes as usize, args.hosts as usize, args.side as usize);
    if count_of_hosts > size {
        let text = format!("{count_of_hosts} virtual hosts for {size} processes: at least one process for each");
        return Err(Failure::usage(text));
    }
    let signals = Signals::catch()?;
    let mut hosts = Hosts::start(count_of_hosts, None, &signals)?;
    let (input, output) = (hosts.directory.path().join("image.png"), hosts.directory.path().join("result.png"));
    let pixels = image::synthetic(side, side);
    let failed = |error: Box<dyn std::error::Error>| Failure::new(error.to_string());
    let image = Image { width: side, height: side, pixels };
    image::write(&input, &image).map_err(failed)?;
    let mut words = vec!["dsm".into(), "demo-worker".into()];
    words.extend(["--rounds".into(), args.rounds.to_string().into()]);
    words.extend([input.into_os_string(), output.clone().into_os_string()]);
    let program =
        Program { path: PathBuf::from("/proc/self/exe"), args: words, size, stdin: false, timeout: Some(TIMEOUT) };
    let view = View::new(size, count_of_hosts, (side * side) as u64, &hosts.daemon);
    let mut demo = Demo {
        view,
        asked: (0..count_of_hosts).map(|_| None).collect(),
        statuses: vec![SessionStatus::default(); count_of_hosts],
        latency: None,
    };
    let ran = supervise::run(&program, &mut hosts, &signals, &mut demo);
    demo.tick(&hosts);
    demo.view.finish(&demo.statuses);
    ran?;
    let result = image::read(&output).map_err(failed)?;
    drop(hosts);
    demo.conclude()?;
    verify(&image, &result)
}

/// The proof of the pudding.
fn verify(image: &Image, result: &Image) -> Result<()> {
    let expected = image::stretch_sequentially(&image.pixels);
    let differ = result.pixels.iter().zip(&expected).filter(|(found, wanted)| found != wanted).count();
    if differ > 0 || result.pixels.len() != expected.len() {
        let text = format!("{differ} of {} pixels differ from the sequential result: that is a bug", expected.len());
        return Err(Failure::new(text));
    }
    print(&format!("verified: {} pixels equal to the sequential result", count(expected.len() as u64)))
}

fn print(line: &str) -> Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").map_err(Failure::system("cannot write the result"))
}

impl Demo {
    /// What is left on the screen, and in a file.
    fn conclude(&self) -> Result<()> {
        let sum = |of: fn(&SessionStatus) -> u64| count(self.statuses.iter().map(of).sum());
        let (direct, trapped) = (sum(|status| status.direct), sum(|status| status.trapped));
        let bulk = sum(|status| status.bulk);
        print(&format!("captured: {direct} direct stores, {trapped} trapped stores, {bulk} bulk records"))?;
        let Some((direct, trapped)) = self.latency else { return Ok(()) };
        let whom = if self.statuses.len() > 1 { "the other host" } else { "another process of the same host" };
        let (direct, trapped) = (direct / 1000.0, trapped / 1000.0);
        print(&format!("store to visible on {whom}: {direct:.1} us direct, {trapped:.1} us trapped (median)"))
    }
}

impl Watch for Demo {
    fn text(&mut self, from: Source, lines: &[u8]) -> std::io::Result<()> {
        for line in String::from_utf8_lossy(lines).lines() {
            let news = if from == Source::Out(0) { News::parse(line) } else { None };
            if let Some(News::Measured(direct, trapped)) = news {
                self.latency = Some((direct, trapped));
            }
            match (news, from) {
                (Some(news), _) => self.view.news(news, &self.statuses),
                (None, Source::Out(rank) | Source::Err(rank)) => self.view.say(&format!("[{rank}] {line}")),
                (None, Source::Host(host)) => self.view.say(&format!("[host {host}] {line}")),
            }
        }
        Ok(())
    }

    fn interval(&self) -> Option<Duration> {
        Some(INTERVAL)
    }

    fn tick(&mut self, hosts: &Hosts) {
        for ((host, asked), status) in hosts.hosts.iter().zip(&mut self.asked).zip(&mut self.statuses) {
            let Some(mut local) = asked.take().or_else(|| Local::connect(&host.dir).ok().flatten()) else { continue };
            // An arbiter that does not answer is asked anew next time; whether it lives is watched elsewhere.
            let Ok(found) = local.status() else { continue };
            *asked = Some(local);
            if let Some(found) = found.sessions.into_iter().find(|session| session.name == SESSION) {
                *status = found;
            }
        }
        self.view.show(&self.statuses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_survive_the_way() {
        for news in [News::Doors, News::Latency, News::Measured(5123.5, 8000.0), News::Round(3, 8, 4_194_304)] {
            assert_eq!(News::parse(&news.to_string()), Some(news));
        }
        assert_eq!(News::parse("round 3"), None);
    }

    #[test]
    fn a_wrong_pixel_is_found() {
        let image = Image { width: 64, height: 64, pixels: image::synthetic(64, 64) };
        let mut result = image.clone();
        result.pixels = image::stretch_sequentially(&image.pixels);
        verify(&image, &result).unwrap();
        result.pixels[77] ^= 1;
        let failure = verify(&image, &result).unwrap_err();
        assert!(failure.code == 1 && failure.text.starts_with("1 of 4096 pixels differ"), "{failure:?}");
        result.pixels.clear();
        verify(&image, &result).unwrap_err();
    }
}
