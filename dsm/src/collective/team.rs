//! A team of ranks: the memory through which they exchange, and their steps in common.
//!
//! Every rank has a line to say what it calls, and room for a piece of data, both twice. A step ("round") is: put what
//! the others need, wait at the team's barrier, get what others have put. The barrier carries the stores, so nothing
//! else is waited for.
//!
//! One barrier a round is enough, as rounds alternate between the two sets: who puts for round `n + 2` has passed
//! the barrier of round `n + 1`, and so everybody has arrived there, which each rank does after it has got what it
//! wanted of round `n`.

use super::call::Line;
use crate::region::Region;
use crate::session::Session;
use crate::{Error, Result};
use dsm_core::limits::{LINE, PAGE, PARTIES};
use dsm_core::segment::{OpenMode, TypeDesc};
use dsm_core::wire::control::SyncKind;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Ranks that work together: see [`collective`](crate::collective).
///
/// Threads and tasks of one process share its rank: their calls come one after the other. (So a thread that makes a call
/// must not itself be the one that drives a task in the middle of another.)
#[derive(Clone, Debug)]
pub struct Team<'s> {
    pub(super) region: &'s Region,
    pub(super) state: Arc<State>,
    pub(super) timeout: Option<Duration>,
}

/// What a process knows of a team, once.
#[derive(Debug)]
pub(super) struct State {
    pub(super) name: String,
    pub(super) rank: usize,
    pub(super) size: usize,
    pub(super) barrier: u32,
    pub(super) offset: u64,
    /// Room of a rank for data, in bytes.
    pub(super) piece: usize,
    pub(super) line: Line,
}

/// A session's teams.
#[derive(Debug, Default)]
pub(crate) struct Teams(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    teams: BTreeMap<String, Arc<State>>,
    /// Barriers that are open already: a barrier counts how often it was opened.
    barriers: BTreeMap<String, u32>,
}

/// Most that all ranks' data rooms take together, if a page for each is not more.
const ROOM: usize = 16 << 20;
/// Most that one rank's takes.
const MOST: usize = 64 << 10;

impl Session {
    /// The team of all processes that were started together: [`Session::size`] of them, this one being number
    /// [`Session::rank`].
    ///
    /// # Errors
    /// As [`Session::team`].
    pub fn world(&self) -> Result<Team<'_>> {
        self.team("world", self.rank(), self.size())
    }

    /// The team `name` of `size` processes, as rank `rank` of them. Does not wait for the others; calls do.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when there can be no such rank, or so many; [`Error::Exists`] when this process has another
    /// rank in it; [`Error::BadName`], and what the session's end causes.
    pub fn team(&self, name: &str, rank: usize, size: usize) -> Result<Team<'_>> {
        if rank >= size || size > PARTIES as usize {
            return Err(Error::TooLarge(format!(
                "rank {rank} of {size} is not possible: ranks are less than the size, and the size at most {PARTIES}"
            )));
        }
        let full = full_name(name, size);
        let mut known = self.teams().0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = match known.teams.get(&full) {
            Some(state) if state.rank == rank => Arc::clone(state),
            Some(state) => {
                let text = format!("this process is rank {} of team {name:?}, not {rank}", state.rank);
                return Err(Error::Exists(text));
            }
            None => {
                let barrier = known.barrier(self, &full, size)?;
                let piece = (ROOM / size).clamp(PAGE as usize, MOST) / PAGE as usize * PAGE as usize;
                let len = 2 * size * (piece + LINE as usize) + PAGE as usize;
                let ty = TypeDesc { name: "Team".into(), size: len as u64, fingerprint: len as u64, fields: vec![] };
                let offset = self.segment(&full, len as u64, ty, OpenMode::OpenOrCreate)?.offset();
                let line = Line::default();
                let state = Arc::new(State { name: name.to_owned(), rank, size, barrier, offset, piece, line });
                known.teams.insert(full, Arc::clone(&state));
                state
            }
        };
        Ok(Team { region: self.region(), state, timeout: None })
    }

    /// Lets those who were started together with this process know that it is there: from now on its end ends their
    /// waits in collectives, even if it has not made any call.
    pub(crate) fn announce(&self) -> Result<()> {
        let size = self.size();
        if size > 1 && size <= PARTIES as usize {
            let mut known = self.teams().0.lock().unwrap_or_else(PoisonError::into_inner);
            known.barrier(self, &full_name("world", size), size)?;
        }
        Ok(())
    }
}

/// The size is in it: another run in the same session may have another.
fn full_name(name: &str, size: usize) -> String {
    format!("dsm:team/{name}/{size}")
}

impl Known {
    fn barrier(&mut self, session: &Session, full: &str, size: usize) -> Result<u32> {
        if let Some(id) = self.barriers.get(full) {
            return Ok(*id);
        }
        let id = session.sync(full, SyncKind::Barrier(size as u32))?;
        self.barriers.insert(full.to_owned(), id);
        Ok(id)
    }
}

impl Team<'_> {
    /// Name of the team; that of all processes is `world`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// This process's rank, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.state.rank
    }

    /// How many ranks there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.state.size
    }

    /// The same team, but no call waits longer than `timeout` for the others at a time.
    ///
    /// A call that has timed out has given up: see [there](crate::collective#calls-that-are-given-up). Here it is known
    /// that it has not been made.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}
