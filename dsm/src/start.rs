//! Starting together: ranks for processes that nobody numbered, and a `main` that has joined.

use crate::join::Builder;
use crate::session::Session;
use crate::{Barrier, Error, LockError, Result};
use dsm_core::limits::PARTIES;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long [`Builder::expect`] waits where nothing else is said.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether a rank has become free, or the others have come.
const NAP: Duration = Duration::from_millis(5);
/// Between two attempts to meet after somebody who had come has left: until another takes the place, each is in vain.
const AGAIN: Duration = Duration::from_millis(50);

impl Builder {
    /// Joins together with others: [`Builder::join`] returns when this many processes have come, with
    /// [`Session::size`] as it is said here, and with a [`Session::rank`] that no other of them has. For programs that
    /// were started one by one, on any hosts; `dsm run` gives them ranks, too, which are kept then.
    ///
    /// Joining then fails with [`Error::TimedOut`] when they have not all come within a minute (or
    /// [`Builder::expect_timeout`]); with [`Error::Exists`] when as many are there already; and with
    /// [`Error::Mismatch`] when this process was told another size, or a rank that is too large.
    ///
    /// The rank of a process that has ended is free again, for another that joins with this number; it waits until all
    /// of them join anew.
    #[must_use]
    pub fn expect(self, processes: usize) -> Self {
        self.expect_timeout(processes, PATIENCE)
    }

    /// As [`Builder::expect`], but waits no longer than `timeout` for the others.
    #[must_use]
    pub fn expect_timeout(mut self, processes: usize, timeout: Duration) -> Self {
        self.expect = Some((processes, timeout));
        self
    }
}

/// What `Builder::expect` and `Builder::expect_timeout` were given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) processes: usize,
    pub(crate) patience: Duration,
    /// The rank, where it is known; the size, where one was given.
    pub(crate) rank: Option<usize>,
    pub(crate) size: Option<usize>,
}

/// All have a rank, or will; this process has to wait for them.
#[derive(Debug)]
pub(crate) struct Meeting {
    processes: usize,
    pub(crate) patience: Duration,
    start: Instant,
}

/// Takes the rank of this process, waiting for it where it is not free yet.
///
/// A rank is a semaphore that its process holds for life: when it ends, however it ends, the rank is free again.
pub(crate) fn take_a_rank(
    session: &Session,
    expected: Expected,
    given_up: impl Fn() -> bool,
) -> Result<(usize, Meeting)> {
    let Expected { processes, patience, rank, size } = expected;
    if processes == 0 || processes > PARTIES as usize {
        return Err(Error::TooLarge(format!("{processes} processes cannot be expected: 1 to {PARTIES} can")));
    }
    if let Some(size) = size.filter(|size| *size != processes) {
        let text = format!("{processes} processes are expected, but this one was started as one of {size}");
        return Err(Error::Mismatch(text));
    }
    let meeting = Meeting { processes, patience, start: Instant::now() };
    loop {
        let free = match rank {
            Some(rank) if rank >= processes => {
                return Err(Error::Mismatch(format!("rank {rank} of {processes} processes: ranks begin at 0")));
            }
            Some(rank) => hold(session, processes, rank)?.then_some(rank),
            None => free(session, processes)?,
        };
        match free {
            Some(rank) => return Ok((rank, meeting)),
            // Those of an earlier run may be about to leave.
            None if meeting.left().is_some() && !given_up() => std::thread::sleep(NAP),
            None => {
                let text = match rank {
                    Some(rank) => format!("rank {rank} of {processes} is another process's"),
                    None => format!("the {processes} processes that are expected are all there already"),
                };
                return Err(Error::Exists(format!("session {:?}: {text}", session.name())));
            }
        }
    }
}

impl Meeting {
    /// How much longer to wait; `None` when it has taken too long.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.patience.checked_sub(self.start.elapsed()).filter(|left| !left.is_zero())
    }

    /// Where all meet.
    pub(crate) fn barrier<'s>(&self, session: &'s Session) -> Result<Barrier<'s>> {
        session.barrier(&format!("dsm:start/{}", self.processes), self.processes)
    }

    /// How long to wait before another attempt, of one that was in vain; an error when there is to be none.
    pub(crate) fn again(&self, error: Error) -> Result<Duration> {
        match error {
            // Somebody left; whoever is to take the place may still come.
            Error::BarrierBroken(_) => Ok(AGAIN.min(self.left().unwrap_or_default())),
            Error::TimedOut(_) => Err(Error::TimedOut(self.patience)),
            error => Err(error),
        }
    }

    /// Returns when all are there.
    pub(crate) fn wait(&self, session: &Session) -> Result<()> {
        let barrier = self.barrier(session)?;
        loop {
            let left = self.left().ok_or(Error::TimedOut(self.patience))?;
            match barrier.wait_timeout(left) {
                Ok(_) => return Ok(()),
                Err(error) => std::thread::sleep(self.again(error)?),
            }
        }
    }
}

/// Takes the lowest rank that is free.
fn free(session: &Session, processes: usize) -> Result<Option<usize>> {
    for rank in 0..processes {
        if hold(session, processes, rank)? {
            return Ok(Some(rank));
        }
    }
    Ok(None)
}

/// Takes a rank for as long as this process lives, if it is free.
fn hold(session: &Session, processes: usize, rank: usize) -> Result<bool> {
    let semaphore = session.semaphore(&format!("dsm:rank/{processes}/{rank}"), 1)?;
    let guard = match semaphore.try_lock() {
        Ok(guard) => guard,
        // It was left by a death: that harms nobody here.
        Err(error @ LockError::OwnerDied(..)) => Some(error.recover()?),
        Err(LockError::Other(error)) => return Err(error),
    };
    let held = guard.is_some();
    // The unit goes back when this process leaves the session.
    std::mem::forget(guard);
    Ok(held)
}

/// What `main` may return.
#[diagnostic::on_unimplemented(
    message = "`main` cannot return `{Self}`",
    note = "it may return `()`, `std::process::ExitCode`, or `Result<(), E>` where `E` can be displayed"
)]
pub trait Outcome {
    /// As an exit code, or what to say before exit code 1.
    #[doc(hidden)]
    fn outcome(self) -> Result<ExitCode, String>;
}

impl Outcome for () {
    fn outcome(self) -> Result<ExitCode, String> {
        Ok(ExitCode::SUCCESS)
    }
}

impl Outcome for ExitCode {
    fn outcome(self) -> Result<ExitCode, String> {
        Ok(self)
    }
}

impl<E: Display> Outcome for Result<(), E> {
    fn outcome(self) -> Result<ExitCode, String> {
        self.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
    }
}

/// What `#[dsm::main]` calls.
pub fn run_main<R: Outcome>(session: Option<&str>, expect: Option<usize>, main: fn(&Session) -> R) -> ExitCode {
    let program = program();
    let name = session.map_or_else(|| session_name(&program), str::to_owned);
    let builder = Session::builder(name);
    let joined = match expect {
        Some(processes) => builder.expect(processes).join(),
        None => builder.join(),
    };
    let result = match joined {
        Ok(session) => main(&session).outcome(),
        Err(error) => Err(error.to_string()),
    };
    result.unwrap_or_else(|error| {
        let line: Vec<&str> = error.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        eprintln!("{program}: {}", line.join(" "));
        ExitCode::FAILURE
    })
}

fn program() -> String {
    let path = std::env::current_exe().ok();
    let stem = path.as_deref().and_then(std::path::Path::file_stem);
    stem.map_or_else(|| "dsm".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// The program's name as a session's: what a name cannot contain becomes `_`.
fn session_name(program: &str) -> String {
    let fits = |c: char| if dsm_core::segment::check_name(c.encode_utf8(&mut [0; 4])).is_ok() { c } else { '_' };
    let name: String = program.chars().map(fits).collect();
    if dsm_core::segment::check_name(&name).is_ok() { name } else { "dsm".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_name_their_sessions() {
        assert_eq!(session_name("pi"), "pi");
        assert_eq!(session_name("my game (2)"), "my_game__2_");
        assert_eq!(session_name(&"x".repeat(300)), "dsm");
    }
}
