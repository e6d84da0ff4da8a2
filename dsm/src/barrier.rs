//! Named barriers across hosts.

use crate::region::Region;
use crate::wait::{Asked, Wait, deadline};
use crate::{Error, Result};
use dsm_core::record::Kind;
use dsm_core::slot::Answer;
use dsm_core::wire::status;
use std::sync::Arc;
use std::time::Duration;

/// A reusable barrier for a fixed number of parties: threads of any processes of the session.
///
/// Passing it means to have everything that all parties wrote before they arrived.
///
/// ```
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("sync/example.txt")]
/// let (numbers, barrier) = (session.array::<u64>("numbers", 2)?, session.barrier("phase", 2)?);
/// std::thread::scope(|scope| {
///     for rank in 0..2 {
///         let barrier = barrier.clone();
///         scope.spawn(move || {
///             numbers.set(rank, 7);
///             barrier.wait().unwrap();
///             assert_eq!(numbers.get(1 - rank), 7);
///         });
///     }
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Barrier<'s> {
    region: &'s Region,
    id: u32,
    name: Arc<str>,
}

/// What [`Barrier::wait`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult(bool);

/// A phase: arrives and waits when it is dropped, so that a scope is a phase.
///
/// It stands for a party, not for a thread: it may be sent to another thread, which then arrives and waits.
#[derive(Debug)]
#[must_use = "the phase ends, and waits, at once when the guard is not kept"]
pub struct BarrierGuard<'s> {
    barrier: Barrier<'s>,
    waited: bool,
}

impl BarrierWaitResult {
    /// True for exactly one of the parties.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl<'s> Barrier<'s> {
    pub(crate) fn new(region: &'s Region, id: u32, name: impl Into<Arc<str>>) -> Self {
        Self { region, id, name: name.into() }
    }

    /// Waits until all parties have arrived.
    ///
    /// # Errors
    /// [`Error::BarrierBroken`] when a party can no longer come; what the session's end causes.
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        self.arrive(None)
    }

    /// Waits no longer than `timeout`. When that is over, this party has not arrived. (Where arbiter or server do not answer,
    /// being stopped, this takes up to half a second longer, and whether it has is for the order to say when they go on.)
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as [`Barrier::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult> {
        self.arrive(Some(timeout))
    }

    fn arrive(&self, timeout: Option<Duration>) -> Result<BarrierWaitResult> {
        if let Some(error) = self.region.lost() {
            return Err(error);
        }
        let answer = match Wait::ask(self.region, timeout.and_then(deadline), Kind::Arrive, 0, self.id, 0)? {
            Some(Asked::Answered(answer)) => Some(answer),
            Some(Asked::Late(wait)) => wait.take_back(self.id)?,
            None => None,
        };
        self.passed(answer, timeout)
    }

    /// What the answer means; `timeout` is what was over when it says that nobody waits any more.
    pub(crate) fn passed(&self, answer: Option<Answer>, timeout: Option<Duration>) -> Result<BarrierWaitResult> {
        match answer.map(|answer| answer.status) {
            Some(status::OK) => Ok(BarrierWaitResult(false)),
            Some(status::LEADER) => Ok(BarrierWaitResult(true)),
            Some(status::BROKEN) => Err(Error::BarrierBroken(self.name.to_string())),
            _ => Err(Error::TimedOut(timeout.unwrap_or_default())),
        }
    }

    /// Where it is, and its number there.
    #[cfg(feature = "async")]
    pub(crate) fn object(&self) -> (&'s Region, u32) {
        (self.region, self.id)
    }

    /// A phase that ends with this barrier: when the guard is dropped, or by [`BarrierGuard::wait`].
    pub fn phase(&self) -> BarrierGuard<'s> {
        BarrierGuard { barrier: self.clone(), waited: false }
    }

    /// Name of the barrier.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl BarrierGuard<'_> {
    /// Ends the phase, and says how it ended; dropping the guard does not.
    ///
    /// # Errors
    /// As [`Barrier::wait`].
    pub fn wait(mut self) -> Result<BarrierWaitResult> {
        self.waited = true;
        self.barrier.wait()
    }
}

impl BarrierGuard<'_> {
    /// As [`BarrierGuard::wait`], but waits no longer than `timeout`. When that is over, this party has not arrived, and
    /// the phase has ended for it all the same.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as [`Barrier::wait`].
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<BarrierWaitResult> {
        self.waited = true;
        self.barrier.wait_timeout(timeout)
    }

    /// As [`BarrierGuard::wait`], without blocking the thread; see [`Barrier::wait_async`]. A future that is dropped
    /// takes the arrival back, and ends the phase for this party.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "async")]
    pub fn wait_async(mut self) -> impl Future<Output = Result<BarrierWaitResult>> {
        // Now: a future that is never polled must not wait when it is dropped.
        self.waited = true;
        async move { self.barrier.wait_async().await }
    }
}

impl Drop for BarrierGuard<'_> {
    /// # Panics
    /// When the barrier is broken or the session has ended, unless the thread is panicking already: going on as if
    /// the others had come would be wrong.
    fn drop(&mut self) {
        if !self.waited
            && let Err(error) = self.barrier.wait()
            && !std::thread::panicking()
        {
            panic!("a barrier phase did not end well: {error}");
        }
    }
}
