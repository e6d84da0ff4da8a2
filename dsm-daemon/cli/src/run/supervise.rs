//! The processes of a run: starts them, passes on what they say, and ends them all when one fails.

use super::child::{bind_to_us, kill_group, pidfd};
use super::hosts::Hosts;
use super::lines::Lines;
use super::signals::Signals;
use crate::failure::{Failure, Result};
use dsm_daemon::config;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// How long we go on to read when all have ended: somebody whom they started may hold their pipes for ever.
const DRAINING: Duration = Duration::from_millis(500);

/// What to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Its arguments; the first is its own name.
    pub args: Vec<OsString>,
    /// How many processes.
    pub size: usize,
    /// Rank 0 reads what we would read.
    pub stdin: bool,
    /// How long it may all take.
    pub timeout: Option<Duration>,
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A process, on stdout.
    Out(usize),
    /// A process, on stderr.
    Err(usize),
    /// The arbiter of a virtual host.
    Host(usize),
}

/// Who looks on.
pub trait Watch {
    /// Whole lines have come. An error ends the run: nobody reads any more.
    fn text(&mut self, from: Source, lines: &[u8]) -> std::io::Result<()>;

    /// How often [`Watch::tick`] wants to be called.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// Some time has passed.
    fn tick(&mut self, _hosts: &Hosts) {}
}

/// Why it ended before all had succeeded.
#[derive(Debug)]
enum Cause {
    Failed(usize, ExitStatus),
    Host(usize),
    Signal(i32),
    Timeout(Duration),
    Unread,
}

#[derive(Debug)]
struct Rank {
    child: Child,
    ended: OwnedFd,
    over: bool,
}

#[derive(Debug)]
struct Pipe {
    from: Source,
    file: File,
    lines: Lines,
}

struct Supervisor<'a> {
    ranks: Vec<Rank>,
    pipes: Vec<Pipe>,
    watch: &'a mut dyn Watch,
    buffer: Vec<u8>,
    /// Why, and when those that are left are killed.
    ending: Option<(Cause, Option<Instant>)>,
}

/// What woke us.
#[derive(Default)]
struct News {
    signal: bool,
    pipes: Vec<usize>,
    hosts: Vec<usize>,
    ranks: Vec<usize>,
}

/// Runs the program over the virtual hosts until all its processes have ended.
pub fn run(program: &Program, hosts: &mut Hosts, signals: &Signals, watch: &mut dyn Watch) -> Result<()> {
    let mut this = Supervisor { ranks: Vec::new(), pipes: Vec::new(), watch, buffer: vec![0; 64 << 10], ending: None };
    for (number, host) in hosts.hosts.iter_mut().enumerate() {
        if let Some((says, lines)) = host.says.take() {
            this.pipes.push(Pipe { from: Source::Host(number), file: File::from(OwnedFd::from(says)), lines });
        }
    }
    let deadline = program.timeout.map(|timeout| Instant::now() + timeout);
    let started = (0..program.size).try_for_each(|rank| this.start(program, rank, hosts));
    if let Err(failure) = started {
        this.kill_all();
        return Err(failure);
    }
    let watched = this.watch(program, hosts, signals, deadline);
    this.kill_all();
    watched?;
    match this.ending {
        None => Ok(()),
        Some((cause, _)) => Err(explain(&cause, program)),
    }
}

impl Supervisor<'_> {
    fn start(&mut self, program: &Program, rank: usize, hosts: &Hosts) -> Result<()> {
        let host = &hosts.hosts[rank * hosts.hosts.len() / program.size];
        let mut command = Command::new(&program.path);
        std::os::unix::process::CommandExt::arg0(&mut command, &program.args[0]);
        command.args(&program.args[1..]);
        command.env("DSM_RANK", rank.to_string()).env("DSM_SIZE", program.size.to_string());
        command.env(config::RUNTIME_DIR, &host.dir).env(config::DAEMON, &hosts.daemon);
        command.stdin(if program.stdin && rank == 0 { Stdio::inherit() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        bind_to_us(&mut command);
        let cannot = format!("cannot start rank {rank}, {}", program.path.display());
        let mut child = command.spawn().map_err(Failure::system(cannot))?;
        let out = child.stdout.take().map(|out| (Source::Out(rank), OwnedFd::from(out)));
        let err = child.stderr.take().map(|err| (Source::Err(rank), OwnedFd::from(err)));
        for (from, fd) in out.into_iter().chain(err) {
            self.pipes.push(Pipe { from, file: File::from(fd), lines: Lines::default() });
        }
        match pidfd(&child) {
            Ok(ended) => self.ranks.push(Rank { child, ended, over: false }),
            Err(failure) => {
                kill_group(&child, Signal::SIGKILL);
                let _ = child.wait();
                return Err(failure);
            }
        }
        Ok(())
    }

    fn watch(&mut self, program: &Program, hosts: &Hosts, signals: &Signals, deadline: Option<Instant>) -> Result<()> {
        let mut drained = None;
        let mut tick = Instant::now();
        loop {
            let now = Instant::now();
            if let Some(interval) = self.watch.interval()
                && now >= tick
            {
                self.watch.tick(hosts);
                tick = now + interval;
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                self.end(Cause::Timeout(program.timeout.unwrap_or_default()));
            }
            if let Some((_, kill @ Some(_))) = &mut self.ending
                && kill.is_some_and(|kill| now >= kill)
            {
                *kill = None;
                self.signal(Signal::SIGKILL);
            }
            let over = self.ranks.iter().all(|rank| rank.over);
            if over {
                let until = *drained.get_or_insert(now + DRAINING);
                if now >= until || self.pipes.iter().all(|pipe| matches!(pipe.from, Source::Host(_))) {
                    return Ok(());
                }
            }
            let kill = self.ending.as_ref().and_then(|(_, kill)| *kill);
            let deadline = deadline.filter(|_| self.ending.is_none());
            let next = self.watch.interval().map(|_| tick);
            let until = [kill, deadline, next, drained].into_iter().flatten().min();
            let news = self.wait(hosts, signals, until.map(|until| until.saturating_duration_since(now)))?;
            if news.signal
                && let Some(signal) = signals.take()
            {
                // Who asks twice does not want to wait.
                if matches!(self.ending, Some((Cause::Signal(_), _))) {
                    self.signal(Signal::SIGKILL);
                }
                self.end(Cause::Signal(signal));
            }
            self.hear(&news.pipes);
            if let Some(host) = news.hosts.first() {
                self.end(Cause::Host(*host));
            }
            for rank in news.ranks {
                self.bury(rank)?;
            }
        }
    }

    /// Waits until something happens, or `patience` is over.
    fn wait(&self, hosts: &Hosts, signals: &Signals, patience: Option<Duration>) -> Result<News> {
        let watched: Vec<usize> = (0..self.ranks.len()).filter(|rank| !self.ranks[*rank].over).collect();
        let arbiters = if self.ending.is_none() { &hosts.hosts[..] } else { &[] };
        let wanted = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut entries = vec![wanted(signals.descriptor())];
        entries.extend(self.pipes.iter().map(|pipe| wanted(pipe.file.as_fd())));
        entries.extend(arbiters.iter().map(|host| wanted(host.alive.as_fd())));
        entries.extend(watched.iter().map(|rank| wanted(self.ranks[*rank].ended.as_fd())));
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        match poll(&mut entries, patience.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Failure::errno("cannot wait for the processes")(errno)),
        }
        let ready: Vec<bool> = entries.iter().map(|entry| !entry.revents().is_empty()).collect();
        let (pipes, rest) = ready[1..].split_at(self.pipes.len());
        let (alive, ended) = rest.split_at(arbiters.len());
        let which = |ready: &[bool]| ready.iter().enumerate().filter(|(_, ready)| **ready).map(|(at, _)| at).collect();
        let ranks: Vec<usize> = which(ended);
        let ranks = ranks.into_iter().map(|at| watched[at]).collect();
        Ok(News { signal: ready[0], pipes: which(pipes), hosts: which(alive), ranks })
    }

    /// Reads from the pipes that have something, and forgets those that have ended.
    fn hear(&mut self, ready: &[usize]) {
        let mut unread = false;
        for at in ready.iter().rev() {
            let Pipe { from, file, lines } = &mut self.pipes[*at];
            let (text, more) = lines.read(file, &mut self.buffer);
            if let Some(text) = text {
                unread |= self.watch.text(*from, &text).is_err();
            }
            if !more {
                self.pipes.remove(*at);
            }
        }
        if unread {
            self.end(Cause::Unread);
        }
    }

    /// A process has ended: so does everything that it has started and left in its group.
    fn bury(&mut self, number: usize) -> Result<()> {
        let rank = &mut self.ranks[number];
        kill_group(&rank.child, Signal::SIGKILL);
        let status = rank.child.wait().map_err(Failure::system(format!("rank {number} is lost")))?;
        rank.over = true;
        if !status.success() {
            self.end(Cause::Failed(number, status));
        }
        Ok(())
    }

    /// Ends all that are left, if that has not begun yet.
    fn end(&mut self, cause: Cause) {
        if self.ending.is_none() {
            self.ending = Some((cause, Some(Instant::now() + GRACE)));
            self.signal(Signal::SIGTERM);
        }
    }

    fn signal(&self, signal: Signal) {
        self.ranks.iter().filter(|rank| !rank.over).for_each(|rank| kill_group(&rank.child, signal));
    }

    fn kill_all(&mut self) {
        self.signal(Signal::SIGKILL);
        for rank in self.ranks.iter_mut().filter(|rank| !rank.over) {
            let _ = rank.child.wait();
            rank.over = true;
        }
    }
}

fn explain(cause: &Cause, program: &Program) -> Failure {
    let others = if program.size > 1 { "; the others were ended" } else { "" };
    match cause {
        Cause::Failed(rank, status) => {
            let how = match (status.code(), status.signal()) {
                (Some(code), _) => format!("failed with exit status {code}"),
                (None, signal) => format!("was killed by {}", name(signal.unwrap_or_default())),
            };
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
            Failure { code, text: format!("rank {rank} of {} {how}{others}", program.size) }
        }
        Cause::Host(host) => Failure::new(format!("the arbiter of virtual host {host} has ended, and with it the run")),
        Cause::Signal(signal) => super::ended_by(*signal),
        Cause::Timeout(after) => Failure::new(format!(
            "not done after {} s (--timeout): {}",
            after.as_secs_f64(),
            if program.size > 1 { format!("all {} processes were ended", program.size) } else { "it was ended".into() }
        )),
        // As for a program that SIGPIPE ends.
        Cause::Unread => Failure { code: 128 + libc::SIGPIPE, text: String::new() },
    }
}

/// A signal's name and number, for people.
pub fn name(signal: i32) -> String {
    match Signal::try_from(signal) {
        Ok(known) => format!("{} (signal {signal})", known.as_str()),
        Err(_) => format!("signal {signal}"),
    }
}
