//! `dsm run`: a program as several processes over several virtual hosts.

mod child;
pub mod hosts;
mod lines;
pub mod signals;
pub mod supervise;

use crate::failure::{Failure, Result};
use crate::roles::{DaemonAddress, KeyFile};
use hosts::Hosts;
use signals::Signals;
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;
use supervise::{Program, Source, Watch};

/// Most processes of a run, and most virtual hosts.
const MOST: i64 = 1024;

/// Arguments of `dsm run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of processes [default: one for each virtual host]
    #[arg(short = 'n', long = "processes", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST as u64))]
    processes: Option<u64>,
    /// Number of virtual hosts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MOST as u64))]
    hosts: u64,
    #[command(flatten)]
    daemon: DaemonAddress,
    #[command(flatten)]
    key: KeyFile,
    /// Pass on what the processes say as it is, without "[RANK] " before every line
    #[arg(long)]
    no_prefix: bool,
    /// End everything, with an error, when it takes longer
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// The program, which is looked up in PATH, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let seconds = seconds.filter(|seconds| (Duration::from_millis(1)..Duration::from_secs(1 << 31)).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds, like 2.5".to_owned())
}

/// Runs `dsm run`.
pub fn run(args: &Args) -> Result<()> {
    args.key.publish();
    let (hosts, size) = (args.hosts as usize, args.processes.unwrap_or(args.hosts) as usize);
    if hosts > size {
        let text = format!("{hosts} virtual hosts for {size} processes: at least one process for each (-n {hosts})");
        return Err(Failure::usage(text));
    }
    let program = Program {
        path: find(&args.program[0])?,
        args: args.program.clone(),
        size,
        stdin: !std::io::stdin().is_terminal(),
        timeout: args.timeout,
    };
    let daemon = args.daemon.get();
    if let Some(daemon) = &daemon {
        reachable(daemon)?;
    }
    let signals = Signals::catch()?;
    allow_descriptors(size + hosts);
    let mut hosts = Hosts::start(hosts, daemon.as_deref(), &signals)?;
    let mut watch = Forward::new(!args.no_prefix, size);
    supervise::run(&program, &mut hosts, &signals, &mut watch)
}

/// How a run ends that a signal has ended.
pub fn ended_by(signal: i32) -> Failure {
    Failure { code: 128 + signal, text: format!("ended by {}", supervise::name(signal)) }
}

/// Asks a daemon elsewhere whether it is there before anything is started. One on loopback may still be to be started.
fn reachable(daemon: &str) -> Result<()> {
    let address = dsm_daemon::config::address(daemon)?;
    let key = dsm_daemon::config::key_from_env()?;
    if !address.ip().is_loopback() {
        dsm_daemon::client::Client::daemon(daemon, key.as_ref())?;
    }
    Ok(())
}

/// Each process takes three descriptors of ours.
fn allow_descriptors(children: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = 64 + 3 * children as u64;
    if limit.current.is_some_and(|current| current < wanted) {
        // If this is not allowed, starting a process says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}

/// The file that a program's name means: as a shell would find it.
fn find(name: &OsStr) -> Result<PathBuf> {
    let runs = |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let shown = name.display();
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match path.metadata() {
            Ok(_) if runs(&path) => Ok(path),
            Ok(_) => Err(Failure { code: Failure::PERMISSION, text: format!("{shown} is not an executable file") }),
            Err(error) => Err(Failure::usage(format!("there is no program {shown}: {error}"))),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(runs).ok_or_else(|| {
        let here = if PathBuf::from(name).is_file() { format!("; the one here is ./{shown}") } else { String::new() };
        Failure::usage(format!("there is no program {shown} in PATH{here}"))
    })
}

/// Passes on what the processes say.
struct Forward {
    prefix: bool,
    width: usize,
    colour: [bool; 2],
    line: Vec<u8>,
}

impl Forward {
    fn new(prefix: bool, size: usize) -> Self {
        let colour = [colours(&std::io::stdout()), colours(&std::io::stderr())];
        Self { prefix, width: (size - 1).to_string().len(), colour, line: Vec::new() }
    }
}

/// Are colours welcome there?
pub fn colours(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb")
}

impl Watch for Forward {
    fn text(&mut self, from: Source, lines: &[u8]) -> std::io::Result<()> {
        let (name, number, to_err) = match from {
            Source::Out(rank) => (format!("{rank:>width$}", width = self.width), rank, false),
            Source::Err(rank) => (format!("{rank:>width$}", width = self.width), rank, true),
            Source::Host(host) => (format!("host {host}"), host, true),
        };
        self.line.clear();
        let prefixed = self.prefix || matches!(from, Source::Host(_));
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if prefixed && self.colour[usize::from(to_err)] {
                let _ = write!(self.line, "\x1b[{}m[{name}]\x1b[0m ", 31 + number % 6);
            } else if prefixed {
                let _ = write!(self.line, "[{name}] ");
            }
            self.line.extend_from_slice(line);
        }
        if prefixed && !self.line.ends_with(b"\n") {
            self.line.push(b'\n');
        }
        if to_err {
            // Who has closed stderr does not want to know.
            let _ = std::io::stderr().write_all(&self.line);
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        out.write_all(&self.line)?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(find(OsStr::new("sh")).unwrap().is_absolute());
        assert_eq!(find(OsStr::new("/bin/sh")).unwrap(), PathBuf::from("/bin/sh"));
        assert_eq!(find(OsStr::new("/etc/passwd")).unwrap_err().code, 77);
        for missing in ["no-such-program-anywhere", "./no/such/file"] {
            let failure = find(OsStr::new(missing)).unwrap_err();
            assert!(failure.code == 2 && failure.text.contains(missing), "{failure:?}");
        }
    }

    #[test]
    fn seconds_are_positive_numbers() {
        assert_eq!(seconds("2.5"), Ok(Duration::from_millis(2500)));
        for text in ["", "0", "-1", "x", "inf", "1e300", "NaN"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
