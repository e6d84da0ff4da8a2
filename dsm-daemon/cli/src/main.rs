//! The `dsm` command: starts, runs, lists, measures and diagnoses.

// Nothing of a program can be reached from outside: `pub` means, here, for the other modules.
#![allow(unreachable_pub)]

mod bench;
mod demo;
mod directory;
mod doctor;
mod down;
mod failure;
mod find;
mod litmus;
mod ls;
mod roles;
mod run;
mod selftest;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use failure::{Failure, Result};

/// Distributed shared memory: programs on several hosts map one memory
///
/// On a single machine nothing has to be started by hand: a program that joins a session starts what is not running
/// yet. Try `dsm demo` first, then `dsm run -n 4 --hosts 2 -- PROGRAM`.
#[derive(Debug, Parser)]
#[command(name = "dsm", version, arg_required_else_help = true, after_help = ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const ENVIRONMENT: &str = "\
Environment:
  DSM_DAEMON       address of the daemon, HOST:PORT
  DSM_RUNTIME_DIR  this host's arbiter (default: $XDG_RUNTIME_DIR/dsm, else /tmp/dsm-UID)
  DSM_KEY_FILE     file that holds the cluster's key
  NO_COLOR         no colours
A flag counts more than its variable.

Exit status: 0 done, 1 failed, 2 usage, 69 something does not answer, 77 not allowed.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a program as several processes that share memory, on one or more virtual hosts of this machine
    ///
    /// Every process gets its rank in DSM_RANK, their number in DSM_SIZE, and the DSM_RUNTIME_DIR and DSM_DAEMON of its
    /// virtual host, so that those that join a session by the same name find each other. Ranks are dealt out in
    /// blocks: of four on two hosts, 0 and 1 are on the first.
    ///
    /// When one fails, the others get SIGTERM, and SIGKILL two seconds later; the exit status is that of the one that
    /// failed, or 128 and the number of the signal that killed it. What a process leaves in the background ends with it,
    /// and the processes end with this command, even if that is killed.
    ///
    /// Rank 0 reads stdin, unless that is a terminal; the others have none.
    Run(run::Args),
    /// Show two virtual hosts at work on one image, live, and check the result
    Demo(demo::Args),
    /// List the sessions, what is in them, and what this host's arbiters do
    Ls(ls::Args),
    /// End this host's arbiter, a session everywhere, or a daemon with all its sessions
    Down(down::Args),
    /// Say what this machine can do for dsm, and what to change where something is missing
    Doctor(doctor::Args),
    /// Measure what loads, stores and synchronisation cost here, each beside what the bare machine needs
    Bench(bench::Args),
    /// Check the capture of stores against this processor
    Selftest(selftest::Args),
    /// Hold the memory model to its word: small programs on two to four virtual hosts, against what the model allows
    Litmus(litmus::Args),
    /// Run the directory daemon: knows the server of each session, and starts one where there is none
    Daemon(roles::DaemonArgs),
    /// Run the server of one session by itself, registered with a daemon
    Server(roles::ServerArgs),
    /// Run this host's arbiter in the foreground; a program that joins a session starts one by itself otherwise
    Arbiter(roles::ArbiterArgs),
    /// One of the processes of `dsm demo`
    #[command(hide = true)]
    DemoWorker(demo::WorkerArgs),
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Demo(_) => "demo",
            Self::Ls(_) => "ls",
            Self::Down(_) => "down",
            Self::Doctor(_) => "doctor",
            Self::Bench(_) => "bench",
            Self::Selftest(_) => "selftest",
            Self::Litmus(_) => "litmus",
            Self::Daemon(_) => "daemon",
            Self::Server(_) => "server",
            Self::Arbiter(_) => "arbiter",
            Self::DemoWorker(_) => "demo-worker",
        }
    }

    fn run(self) -> Result<()> {
        if matches!(self, Self::Ls(_) | Self::Down(_) | Self::Doctor(_) | Self::Bench(_)) {
            end_quietly_without_reader();
        }
        match self {
            Self::Run(args) => run::run(&args),
            Self::Demo(args) => demo::run(&args),
            Self::Ls(args) => ls::run(&args),
            Self::Down(args) => down::run(&args),
            Self::Doctor(args) => doctor::run(&args),
            Self::Bench(args) => bench::run(&args),
            Self::Selftest(args) => selftest::run(&args),
            Self::Litmus(args) => litmus::run(&args),
            Self::Daemon(args) => args.run(),
            Self::Server(args) => args.run(),
            Self::Arbiter(args) => args.run(),
            Self::DemoWorker(args) => demo::worker(&args),
        }
    }
}

fn main() {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => misunderstood(&error),
    };
    let name = command.name();
    if let Err(Failure { code, text }) = command.run() {
        if !text.is_empty() {
            eprintln!("dsm {name}: {}", text.replace('\n', " "));
        }
        std::process::exit(code);
    }
}

/// Help and version as clap has them; everything else as one line.
fn misunderstood(error: &clap::Error) -> ! {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    if matches!(error.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand) {
        error.exit();
    }
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.starts_with("Usage") && !line.starts_with("For more"));
    let what = lines.map(str::trim).filter(|line| !line.is_empty()).fold(String::new(), |what, line| {
        let line = line.trim_start_matches("error: ").trim_start_matches("tip: ");
        let between = if what.is_empty() || what.ends_with(':') { "" } else { ";" };
        format!("{what}{between} {line}")
    });
    let what = what.trim();
    let named = std::env::args().nth(1).filter(|name| Cli::command().find_subcommand(name).is_some());
    let name = named.map_or_else(|| "dsm".to_owned(), |name| format!("dsm {name}"));
    eprintln!("{name}: {what} (see `{name} --help`)");
    std::process::exit(Failure::USAGE);
}

/// `dsm ls | head -1` is no error.
fn end_quietly_without_reader() {
    // SAFETY: the default action runs no code of ours.
    let _ =
        unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_program_keeps_its_own_flags() {
        for words in
            [&["dsm", "run", "-n", "2", "--", "prog", "-n", "9"][..], &["dsm", "run", "-n", "2", "prog", "-n", "9"]]
        {
            let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else { panic!("another command") };
            assert_eq!(args.program, ["prog", "-n", "9"], "{words:?}");
        }
        assert!(Cli::try_parse_from(["dsm", "run", "--hsots", "2", "prog"]).is_err(), "a misspelt flag is no program");
    }
}
