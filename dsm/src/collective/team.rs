//! A team of ranks: the memory through which they exchange, and their steps in common.
//!
//! Every rank has a line to say what it calls, and room for a piece of data, both twice. A step ("round") is: put what
//! the others need, wait at the team's barrier, get what others have put. The barrier carries the stores, so nothing
//! else is waited for.
//!
//! One barrier a round is enough, as rounds alternate between the two sets: who puts for round `n + 2` has passed
//! the barrier of round `n + 1`, and so everybody has arrived there, which each rank does after it has got what it
//! wanted of round `n`.

use super::operation::NAMES;
use crate::barrier::Barrier;
use crate::place::Place;
use crate::region::Region;
use crate::session::Session;
use crate::typed::SharedType;
use crate::{Error, Result};
use dsm_core::limits::{LINE, PAGE, PARTIES};
use dsm_core::segment::{OpenMode, TypeDesc};
use dsm_core::wire::control::SyncKind;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Ranks that work together: see [`collective`](crate::collective).
///
/// Threads of one process share its rank: their calls come one after the other.
#[derive(Clone, Debug)]
pub struct Team<'s> {
    region: &'s Region,
    state: Arc<State>,
    timeout: Option<Duration>,
}

/// What a process knows of a team, once.
#[derive(Debug)]
struct State {
    name: String,
    rank: usize,
    size: usize,
    barrier: u32,
    offset: u64,
    /// Room of a rank for data, in bytes.
    piece: usize,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    calls: u64,
    rounds: u64,
    /// The steps of this rank are not those of the others any more.
    broken: bool,
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

/// The collectives.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum What {
    Barrier,
    Broadcast,
    Reduce,
    AllReduce,
    Gather,
    AllGather,
    Scatter,
}

const CALLS: [&str; 7] = ["barrier", "broadcast", "reduce", "all_reduce", "gather", "all_gather", "scatter"];

/// What a rank says of its call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Said {
    /// Calls of this rank before this one.
    call: u64,
    /// Rounds of this rank before this one, and 1: nobody has said anything in a line of zeros.
    round: u64,
    /// Which collective, which operation, which root.
    what: u8,
    operation: u8,
    unused: [u8; 2],
    root: u32,
    /// Elements.
    len: u64,
    /// Type of an element.
    fingerprint: u64,
    /// The process, for finding two of one rank.
    process: u64,
}

const _: () = assert!(size_of::<Said>() <= LINE as usize);

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
                let progress = Mutex::default();
                let state = Arc::new(State { name: name.to_owned(), rank, size, barrier, offset, piece, progress });
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
    /// A call that has timed out before anything was exchanged can be made again. One that times out half way (of
    /// larger data, the pieces are exchanged one by one) leaves this rank out of step: its later calls fail with
    /// [`Error::TeamBroken`].
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// One call: what this rank says of it, and its rounds.
    pub(super) fn call<T: SharedType>(
        &self,
        what: What,
        operation: u8,
        root: usize,
        len: usize,
        rounds: impl FnOnce(&mut Call<'_, '_>) -> Result<()>,
    ) -> Result<()> {
        let state = &*self.state;
        let State { rank, size, .. } = *state;
        assert!(root < size, "rank out of bounds: the size is {size} but the root is {root}");
        let mut progress = state.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.broken {
            return Err(Error::TeamBroken(state.name.clone()));
        }
        if let Some(error) = self.region.lost() {
            return Err(error);
        }
        let process = u64::from(self.region.host()) << 32 | u64::from(self.region.process());
        let said = Said {
            call: progress.calls,
            round: 0,
            what: what as u8,
            operation,
            unused: [0; 2],
            root: root as u32,
            len: len as u64,
            fingerprint: T::LAYOUT.fingerprint,
            process,
        };
        let first = progress.rounds;
        let mut call = Call { team: self, progress: &mut progress, said, rank, size };
        let result = rounds(&mut call);
        let retry = matches!(result, Err(Error::TimedOut(_))) && progress.rounds == first;
        if !retry {
            progress.calls += 1;
            progress.broken = matches!(&result, Err(error) if !matches!(error, Error::CollectiveMismatch(_)));
        }
        result
    }
}

/// A call that is being carried out.
pub(super) struct Call<'a, 's> {
    team: &'a Team<'s>,
    progress: &'a mut Progress,
    said: Said,
    pub(super) rank: usize,
    pub(super) size: usize,
}

impl<'s> Call<'_, 's> {
    /// Bytes that go in one round.
    pub(super) fn piece(&self) -> usize {
        self.team.state.piece
    }

    /// The pieces of `len` bytes: at least one, so that every call has a round.
    pub(super) fn pieces(&self, len: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let piece = self.piece();
        (0..len.max(1)).step_by(piece).map(move |start| start.min(len)..(start + piece).min(len))
    }

    /// Rank `rank`'s place of this round: what it says, and its data.
    fn places(&self, rank: usize) -> (Place<'s>, Place<'s>) {
        let state = &*self.team.state;
        let number = (self.progress.rounds % 2) as usize * self.size + rank;
        let lines = (2 * self.size * LINE as usize).next_multiple_of(PAGE as usize);
        let base = Place::new(self.team.region, state.offset);
        (base.at(number * LINE as usize), base.at(lines + number * state.piece))
    }

    /// Puts at most a piece of data in the place of rank `rank`.
    pub(super) fn put(&self, rank: usize, bytes: &[u8]) {
        self.places(rank).1.store_bytes(bytes);
    }

    /// Gets what was put in the place of rank `rank` before the last round's barrier.
    pub(super) fn get(&mut self, rank: usize, bytes: &mut [u8]) {
        // That round has been counted.
        self.progress.rounds -= 1;
        let place = self.places(rank).1;
        self.progress.rounds += 1;
        place.load_bytes(bytes);
    }

    /// Waits until all ranks have put what they have for this round, and looks whether it is of the same call.
    pub(super) fn round(&mut self) -> Result<()> {
        let Self { team, size, .. } = *self;
        self.said.round = self.progress.rounds + 1;
        self.places(self.rank).0.store_bytes(bytemuck::bytes_of(&self.said));
        if size > 1 {
            let state = &*team.state;
            let barrier = Barrier::new(team.region, state.barrier, state.name.as_str());
            let passed = match team.timeout {
                Some(timeout) => barrier.wait_timeout(timeout),
                None => barrier.wait(),
            };
            passed.map_err(|error| match error {
                Error::BarrierBroken(name) => Error::TeamBroken(name),
                error => error,
            })?;
        }
        let said: Vec<Said> = (0..size).map(|rank| self.said_by(rank)).collect();
        self.progress.rounds += 1;
        match compare(&said, self.rank, &self.said) {
            None => Ok(()),
            Some(difference) => {
                Err(Error::CollectiveMismatch(format!("team {:?}: {difference}", self.team.state.name)))
            }
        }
    }

    fn said_by(&self, rank: usize) -> Said {
        let mut said = Said::default();
        self.places(rank).0.load_bytes(bytemuck::bytes_of_mut(&mut said));
        said
    }
}

/// Why these are not one call of all ranks, if so. All ranks come to the same result, unless two have the same number.
fn compare(said: &[Said], rank: usize, own: &Said) -> Option<String> {
    if said.get(rank) != Some(own) {
        return Some(format!("another process has rank {rank}, too"));
    }
    let first = said.first()?;
    let (at, other) = said.iter().enumerate().find(|(_, said)| Said { process: first.process, ..**said } != *first)?;
    if (first.call, first.round) != (other.call, other.round) {
        let count = |said: &Said| if said.round == 0 { "none".to_owned() } else { (said.call + 1).to_string() };
        return Some(format!(
            "the ranks are not in step: rank 0 is at call {}, rank {at} at {} (does every process have a rank of its \
             own, and did all begin together?)",
            count(first),
            count(other)
        ));
    }
    let (one, two) = (describe(first), describe(other));
    let types = if one == two { " of another type" } else { "" };
    Some(format!("in call {}, rank 0 calls {one}, rank {at} calls {two}{types}", first.call + 1))
}

fn describe(said: &Said) -> String {
    let name = CALLS.get(usize::from(said.what)).copied().unwrap_or("something unknown");
    let root = match said.what {
        what if [What::Broadcast, What::Reduce, What::Gather, What::Scatter].iter().any(|w| *w as u8 == what) => {
            format!(" with root {}", said.root)
        }
        _ => String::new(),
    };
    let operation = match said.what {
        what if [What::Reduce, What::AllReduce].iter().any(|w| *w as u8 == what) => {
            format!(" by {}", NAMES.get(usize::from(said.operation)).copied().unwrap_or("something unknown"))
        }
        _ => String::new(),
    };
    match said.len {
        _ if said.what == What::Barrier as u8 => name.to_owned(),
        1 => format!("{name}{root}{operation} of 1 value"),
        len => format!("{name}{root}{operation} of {len} values"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(what: What, len: u64) -> Said {
        Said { call: 4, round: 9, what: what as u8, len, fingerprint: 7, ..Said::default() }
    }

    #[test]
    fn the_same_call_does_not_differ() {
        let all = [1, 2, 3].map(|process| Said { process, ..said(What::Gather, 3) });
        assert_eq!(compare(&all, 1, &all[1]), None);
    }

    #[test]
    fn differences_are_described() {
        let (gather, barrier) = (said(What::Gather, 3), said(What::Barrier, 0));
        let found = |one, two| compare(&[one, two], 0, &one).unwrap();
        assert_eq!(
            found(gather, barrier),
            "in call 5, rank 0 calls gather with root 0 of 3 values, rank 1 calls barrier"
        );
        let (sum, min) =
            (Said { operation: 1, ..said(What::AllReduce, 1) }, Said { operation: 2, ..said(What::AllReduce, 1) });
        assert_eq!(
            found(sum, min),
            "in call 5, rank 0 calls all_reduce by Sum of 1 value, rank 1 calls all_reduce by Min of 1 value"
        );
        assert!(found(sum, Said { fingerprint: 8, ..sum }).ends_with("of another type"));
        assert!(found(sum, Said { round: 8, ..sum }).contains("not in step"));
        assert!(found(sum, Said::default()).contains("rank 0 is at call 5, rank 1 at none"));
        assert_eq!(compare(&[sum, min], 0, &min).unwrap(), "another process has rank 0, too");
    }
}
