//! `dsm bench`: what things cost here, each beside the floor that the machine sets, measured in the same run.

mod floor;
mod local;
mod pair;

use crate::directory::Directory;
use crate::failure::{Failure, Result};
use dsm::prelude::*;
use std::process::{Child, Command, Stdio};

/// Arguments of `dsm bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object a line: name, value, unit, floor, ratio
    #[arg(long)]
    pub json: bool,
    /// Run only what contains this text
    pub filter: Option<String>,
    /// Multiplies the number of repetitions
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
}

/// One figure.
#[derive(Clone, Debug, serde::Serialize)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// What the bare machine does, in the same unit.
    floor: f64,
    /// `value / floor`.
    ratio: f64,
    /// What the floor is.
    #[serde(skip)]
    beside: &'static str,
}

impl Figure {
    fn new(name: &'static str, unit: &'static str, value: f64, floor: f64, beside: &'static str) -> Self {
        Self { name, value, unit, floor, ratio: value / floor, beside }
    }
}

/// Names the file through which the second host's process finds the session.
const WORKER: &str = "DSM_BENCH_WORKER";

/// Runs the benchmark, or, in the process that it starts for the second host, its other half.
pub fn run(args: &Args) -> Result<()> {
    if std::env::var_os(WORKER).is_some() {
        return worker(args);
    }
    let dir = Directory::make()?;
    let wanted = |name: &str| args.filter.as_deref().is_none_or(|filter| name.contains(filter));
    let show = |figure: Figure| {
        if wanted(figure.name) {
            print(&figure, args.json);
        }
    };
    if !args.json {
        println!("{:<20} {:>14} {:>14} {:>8}   beside", "what", "measured", "floor", "ratio");
    }
    let here = Session::builder("bench").runtime_dir(dir.host(0)).join()?;
    if local::wanted(&wanted) {
        local::run(&here, args.scale, &wanted, show)?;
    }
    if !PAIR.iter().any(|name| wanted(name)) {
        return Ok(());
    }
    let mut worker = Command::new("/proc/self/exe");
    worker.arg("bench").args(["--scale", &args.scale.to_string()]).args(&args.filter);
    worker.env(WORKER, "1").env("DSM_RUNTIME_DIR", dir.host(1)).env("DSM_DAEMON", here.daemon());
    let worker = worker.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let _worker = Reaped(worker.map_err(Failure::system("cannot start the other half"))?);
    Ok(pair::run(&here, 0, args.scale, &wanted, show)?)
}

const PAIR: [&str; 10] = [
    "visible.2hosts",
    "updates.2hosts",
    "hole.64k",
    "hole.64k.memcpy",
    "hole.1m",
    "hole.1m.memcpy",
    "atomic.2hosts",
    "atomic.2hosts.relayed",
    "sem.handoff.2hosts",
    "barrier.2hosts",
];

fn worker(args: &Args) -> Result<()> {
    let session = Session::builder("bench").join()?;
    let wanted = |name: &str| args.filter.as_deref().is_none_or(|filter| name.contains(filter));
    Ok(pair::run(&session, 1, args.scale, &wanted, |_| ())?)
}

fn print(figure: &Figure, json: bool) {
    if json {
        match serde_json::to_string(figure) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("dsm bench: {error}"),
        }
        return;
    }
    let show = |value: f64| match figure.unit {
        "bytes/s" => format!("{:.2} GB/s", value / 1e9),
        "1/s" => format!("{:.1} M/s", value / 1e6),
        _ if value >= 10_000.0 => format!("{:.1} us", value / 1000.0),
        unit => format!("{value:.1} {unit}"),
    };
    let Figure { name, value, floor, ratio, beside, .. } = figure;
    println!("{name:<20} {:>14} {:>14} {ratio:>8.2}   {beside}", show(*value), show(*floor));
}

/// The median of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A child that does not outlive us.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        for _ in 0..200 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
