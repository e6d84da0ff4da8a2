//! One call of a collective by one rank: its rounds, and what becomes of it when it does not come to its end.
//!
//! A call may be given up: its future is dropped, its time is over, an operation of the program's own panics. What it
//! leaves is in [`Progress`], and this rank's next call sees to it first:
//! - Before anything was exchanged, the arrival is taken back, and the call has not been made. (The others may all have
//!   come just before: then they have what this rank has put, and the round is over.)
//! - Later, the others wait for more, which this rank has no longer: it comes to the next round to say so, and that ends
//!   the call for all.
//!
//! Either way all ranks are in step again.

use super::said::{Said, What, compare};
use super::team::{State, Team};
use crate::patient::publish_all;
use crate::place::Place;
use crate::wait::{GRACE, Left, Wait, Waiter, deadline};
use crate::{Error, Result};
use dsm_core::limits::{LINE, PAGE};
use dsm_core::record::{BARRIER, Kind};
use dsm_core::wire::status;
use std::future::poll_fn;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// Where this rank is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    calls: u64,
    rounds: u64,
    /// What this rank says of its call, or said of its last one.
    said: Said,
    /// It has exchanged something in its call, and there is more to come.
    within: bool,
    /// The arrival whose outcome is not known yet.
    arrived: Option<Arrived>,
    /// A rank is gone.
    broken: bool,
}

#[derive(Clone, Copy, Debug)]
struct Arrived {
    wait: Left,
    /// In the last round of its call.
    last: bool,
    /// It is to be taken back.
    cancelled: bool,
}

/// The calls of one rank, which come one after the other. A call takes the progress, and brings it back.
#[derive(Debug)]
pub(super) struct Line(Mutex<Calls>);

#[derive(Debug)]
struct Calls {
    progress: Option<Progress>,
    /// The region's `births` when it was taken: a call of the parent of a `fork` is never over in its child.
    births: u32,
    waiting: Vec<Waker>,
}

impl Default for Line {
    fn default() -> Self {
        Self(Mutex::new(Calls { progress: Some(Progress::default()), births: 0, waiting: Vec::new() }))
    }
}

impl Line {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, cx: &Context<'_>, births: u32) -> Poll<Result<Progress>> {
        let mut calls = self.calls();
        if let Some(progress) = calls.progress.take() {
            calls.births = births;
            return Poll::Ready(Ok(progress));
        }
        if calls.births != births {
            let text = "this process was forked in the middle of a collective, which goes on in its parent alone";
            return Poll::Ready(Err(Error::Unavailable(text.into())));
        }
        if !calls.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            calls.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn bring_back(&self, progress: Progress) {
        let mut calls = self.calls();
        calls.progress = Some(progress);
        // All: some of them may belong to futures that were dropped. Not under the lock, as wakers are the program's.
        let waiting = std::mem::take(&mut calls.waiting);
        drop(calls);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A call that is being carried out.
pub(super) struct Call<'a, 's> {
    team: &'a Team<'s>,
    waiter: Waiter,
    progress: Progress,
    pub(super) rank: usize,
    pub(super) size: usize,
}

/// What is exchanged in one round.
pub(super) struct Step {
    /// Which elements are begun, gone on with or completed: several, or one that takes several rounds.
    pub(super) elements: Range<usize>,
    /// Which of their bytes.
    pub(super) bytes: Range<usize>,
    /// They are complete then.
    pub(super) completes: bool,
    /// So is the call.
    pub(super) last: bool,
}

impl<'a, 's> Call<'a, 's> {
    /// Begins a call, once this rank's last one is over.
    pub(super) async fn begin(team: &'a Team<'s>, waiter: Waiter, said: Said) -> Result<Self> {
        let State { rank, size, .. } = *team.state;
        let progress = poll_fn(|cx| team.state.line.take(cx, team.region.births())).await?;
        let mut call = Self { team, waiter, progress, rank, size };
        if call.progress.broken {
            return Err(Error::TeamBroken(team.state.name.clone()));
        }
        if let Some(error) = team.region.lost() {
            return Err(error);
        }
        call.settle().await?;
        call.progress.said = Said { call: call.progress.calls, ..said };
        Ok(call)
    }

    /// Sees to what the last call has left.
    async fn settle(&mut self) -> Result<()> {
        if let Some(Arrived { last, .. }) = self.progress.arrived
            && self.outcome(self.team.timeout).await?
        {
            // Whoever made that call does not wait for what came of it any more.
            let _ = self.passed(last);
        }
        if self.progress.within {
            self.progress.said.what = What::GaveUp as u8;
            match self.round(true).await {
                Ok(()) | Err(Error::CollectiveMismatch(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The rounds for `len` elements of type `T`: at least one.
    pub(super) fn steps<T>(&self, len: usize) -> impl Iterator<Item = Step> + use<T> {
        let (size, piece) = (size_of::<T>(), self.team.state.piece);
        let group = (piece / size).max(1);
        (0..len.max(1)).step_by(group).flat_map(move |start| {
            let elements = start.min(len)..(start + group).min(len);
            let all = elements.len() * size;
            (0..all.max(1)).step_by(piece).map(move |from| {
                let bytes = from.min(all)..(from + piece).min(all);
                let completes = bytes.end == all;
                Step { last: completes && elements.end == len, elements: elements.clone(), bytes, completes }
            })
        })
    }

    /// Rank `rank`'s place of a round: what it says, and its data.
    fn places(&self, round: u64, rank: usize) -> (Place<'s>, Place<'s>) {
        let state = &*self.team.state;
        let number = (round % 2) as usize * self.size + rank;
        let lines = (2 * self.size * LINE as usize).next_multiple_of(PAGE as usize);
        let base = Place::new(self.team.region, state.offset);
        (base.at(number * LINE as usize), base.at(lines + number * state.piece))
    }

    fn publish(&self, place: Place<'_>, bytes: &[u8]) -> Result<()> {
        let timeout = self.team.timeout;
        if publish_all(place, bytes, timeout.and_then(deadline))? { Ok(()) } else { Err(timed_out(timeout)) }
    }

    /// Puts at most a piece of data in the place of rank `rank`.
    pub(super) fn put(&self, rank: usize, bytes: &[u8]) -> Result<()> {
        self.publish(self.places(self.progress.rounds, rank).1, bytes)
    }

    /// Gets what was put in the place of rank `rank` before the last round's barrier.
    pub(super) fn get(&self, rank: usize, bytes: &mut [u8]) {
        // That round has been counted.
        self.places(self.progress.rounds - 1, rank).1.load_bytes(bytes);
    }

    /// Waits until all ranks have put what they have for this round, and looks whether it is of the same call.
    pub(super) async fn round(&mut self, last: bool) -> Result<()> {
        self.progress.said.round = self.progress.rounds + 1;
        self.publish(self.places(self.progress.rounds, self.rank).0, bytemuck::bytes_of(&self.progress.said))?;
        if self.size > 1 {
            let Team { region, state, timeout } = self.team;
            let end = timeout.and_then(deadline);
            let wait = self.waiter.begin(region, end)?.ok_or_else(|| timed_out(*timeout))?;
            if !wait.submit_by(end, Kind::Arrive, 0, state.barrier, 0)? {
                return Err(timed_out(*timeout));
            }
            self.progress.arrived = Some(Arrived { wait: wait.leave(), last, cancelled: false });
            if !self.outcome(*timeout).await? {
                return Err(timed_out(*timeout));
            }
        }
        self.passed(last)
    }

    /// Waits for what becomes of the arrival: true when all have come, false when it was taken back. Where nobody says so in
    /// time, it is left to the next call.
    async fn outcome(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let Some(Arrived { wait, .. }) = self.progress.arrived else { return Ok(false) };
        // A future that is dropped in here leaves the wait to the next call.
        let wait = ManuallyDrop::new(Wait::resume(self.team.region, wait));
        let status = self.status(&wait, timeout).await;
        if matches!(status, Ok(None)) {
            return Err(timed_out(timeout));
        }
        self.progress.arrived = None;
        drop(ManuallyDrop::into_inner(wait));
        match status {
            Ok(Some(status::OK | status::LEADER)) => Ok(true),
            Ok(Some(status::BROKEN)) => {
                self.progress.broken = true;
                Err(Error::TeamBroken(self.team.state.name.clone()))
            }
            Ok(_) => Ok(false),
            Err(error) => {
                self.progress.broken = true;
                Err(error)
            }
        }
    }

    async fn status(&mut self, wait: &Wait<'_>, timeout: Option<Duration>) -> Result<Option<u32>> {
        if self.progress.arrived.is_some_and(|arrived| !arrived.cancelled) {
            if let Some(answer) = self.waiter.answer(wait, timeout.and_then(deadline)).await? {
                return Ok(Some(answer.status));
            }
            self.cancel();
        }
        let grace = timeout.and_then(|_| deadline(GRACE));
        Ok(self.waiter.answer(wait, grace).await?.map(|answer| answer.status))
    }

    /// Asks for the arrival back. The answer says whether all had come before.
    fn cancel(&mut self) {
        if let Some(arrived) = self.progress.arrived.as_mut().filter(|arrived| !arrived.cancelled) {
            let wait = Wait::resume(self.team.region, arrived.wait);
            let said = wait.submit_by(deadline(GRACE), Kind::Cancel, BARRIER, self.team.state.barrier, 0);
            // Else the next call says so.
            arrived.cancelled = matches!(said, Ok(true));
            wait.leave();
        }
    }

    /// Looks, when all have come, whether they are in the same call.
    fn passed(&mut self, last: bool) -> Result<()> {
        let said: Vec<Said> = (0..self.size).map(|rank| self.said_by(rank)).collect();
        let difference = compare(&said, self.rank, &self.progress.said);
        let over = last || difference.is_some();
        self.progress.rounds += 1;
        self.progress.calls += u64::from(over);
        self.progress.within = !over;
        difference.map_or(Ok(()), |difference| {
            Err(Error::CollectiveMismatch(format!("team {:?}: {difference}", self.team.state.name)))
        })
    }

    fn said_by(&self, rank: usize) -> Said {
        let mut said = Said::default();
        self.places(self.progress.rounds, rank).0.load_bytes(bytemuck::bytes_of_mut(&mut said));
        said
    }
}

impl Drop for Call<'_, '_> {
    fn drop(&mut self) {
        if self.team.region.lost().is_none() {
            self.cancel();
        }
        self.team.state.line.bring_back(std::mem::take(&mut self.progress));
    }
}

fn timed_out(timeout: Option<Duration>) -> Error {
    Error::TimedOut(timeout.unwrap_or_default())
}

/// Has this thread wait for a future: one that waits as a thread, and so is pending only while another call of the same
/// rank goes on.
pub(super) fn now<R>(future: impl Future<Output = R>) -> R {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut cx, mut future) = (Context::from_waker(&waker), pin!(future));
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(result) => return result,
            Poll::Pending => std::thread::park(),
        }
    }
}
