//! Named counting semaphores across hosts, FIFO, with RAII guards.

use crate::region::Region;
use crate::wait::{Asked, Wait, deadline, submit};
use crate::{Error, LockError, LockResult, Result, TryLockResult};
use dsm_core::record::{KEPT, Kind, STILL_DIRTY, TRY};
use dsm_core::slot::Answer;
use dsm_core::wire::status;
use std::sync::Arc;
use std::time::Duration;

/// A counting semaphore, known to all processes of the session by its name.
///
/// Acquiring and releasing have their places in the same order as the stores: who acquires has, by then, everything
/// that was written before the release. A release is one message and waits for nothing.
///
/// ```
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("sync/example.txt")]
/// let seats = session.semaphore("seats", 3)?;
/// {
///     let _one = seats.lock()?;
///     let _two = seats.acquire_many(2)?;
///     assert!(seats.try_lock()?.is_none());
/// } // all three are given back
/// let ready = session.semaphore("ready", 0)?;
/// ready.post(1)?; // one process signals,
/// ready.wait()?; // another, or the same, waits for it
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Semaphore<'s> {
    region: &'s Region,
    id: u32,
    name: Arc<str>,
}

/// Units that are held; they are given back when the guard is dropped.
///
/// They belong to the process, not to a thread: a guard may be sent to another thread and dropped there. In the child of
/// a `fork` a guard of the parent does nothing.
#[derive(Debug)]
#[must_use = "the units are given back at once when the guard is not kept"]
pub struct SemaphoreGuard<'s> {
    region: &'s Region,
    id: u32,
    units: u32,
    fence: u64,
    /// The process that acquired: a child of `fork` must not give back what its parent holds.
    process: u32,
    dirty: bool,
}

impl<'s> Semaphore<'s> {
    pub(crate) fn new(region: &'s Region, id: u32, name: impl Into<Arc<str>>) -> Self {
        Self { region, id, name: name.into() }
    }

    /// Takes one unit, waiting for it in line.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] with the guard in it; [`LockError::Other`] when the session has ended.
    pub fn lock(&self) -> LockResult<SemaphoreGuard<'s>> {
        self.acquire_many(1)
    }

    /// Takes `units` at once, waiting for them in line.
    ///
    /// # Errors
    /// As [`Semaphore::lock`]; [`Error::TooLarge`] for 0 units or more than 32,767.
    pub fn acquire_many(&self, units: u32) -> LockResult<SemaphoreGuard<'s>> {
        match self.take(units, 0, None)? {
            Some(guard) => Ok(guard),
            None => Err(LockError::Other(Error::TimedOut(Duration::MAX))),
        }
    }

    /// Takes one unit if it is free; `None` if it is not.
    ///
    /// # Errors
    /// As [`Semaphore::lock`].
    pub fn try_lock(&self) -> TryLockResult<SemaphoreGuard<'s>> {
        self.try_acquire_many(1)
    }

    /// Takes `units` at once if they are free and nobody waits in line; `None` if not.
    ///
    /// # Errors
    /// As [`Semaphore::acquire_many`].
    pub fn try_acquire_many(&self, units: u32) -> TryLockResult<SemaphoreGuard<'s>> {
        self.take(units, TRY, None)
    }

    /// Takes one unit, waiting no longer than `timeout`; where arbiter or server do not answer, being stopped, up to half a
    /// second longer.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as [`Semaphore::lock`].
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<SemaphoreGuard<'s>> {
        self.acquire_many_timeout(1, timeout)
    }

    /// Takes `units` at once, waiting no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as [`Semaphore::acquire_many`].
    pub fn acquire_many_timeout(&self, units: u32, timeout: Duration) -> LockResult<SemaphoreGuard<'s>> {
        match self.take(units, 0, Some(timeout))? {
            Some(guard) => Ok(guard),
            None => Err(LockError::Other(Error::TimedOut(timeout))),
        }
    }

    /// Where it is, and its number there.
    #[cfg(feature = "async")]
    pub(crate) fn object(&self) -> (&'s Region, u32) {
        (self.region, self.id)
    }

    fn take(&self, units: u32, flags: u8, timeout: Option<Duration>) -> TryLockResult<SemaphoreGuard<'s>> {
        match take(self.region, self.id, units, flags, timeout)? {
            Some(guard) if guard.dirty => Err(LockError::OwnerDied(guard, self.name.to_string())),
            guard => Ok(guard),
        }
    }

    /// Adds units that were not acquired: how one process signals another. At most 32,767 can be free.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for 0 units or more than 32,767, or when the session has ended.
    pub fn post(&self, units: u32) -> Result<()> {
        check(units)?;
        if let Some(error) = self.region.lost() {
            return Err(error);
        }
        submit(self.region, Kind::Release, 0, self.id, 0, units)
    }

    /// Takes one unit without giving it back, waiting for it in line: the other side of [`Semaphore::post`].
    ///
    /// # Errors
    /// As [`Semaphore::lock`].
    pub fn wait(&self) -> Result<()> {
        self.lock()?.keep();
        Ok(())
    }

    /// As [`Semaphore::wait`], but no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as [`Semaphore::lock`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.lock_timeout(timeout)?.keep();
        Ok(())
    }

    /// Name of the semaphore.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Takes units of a semaphore; `None` when that was not possible at once (`TRY`) or in time.
pub(crate) fn take(
    region: &Region,
    id: u32,
    units: u32,
    flags: u8,
    timeout: Option<Duration>,
) -> Result<Option<SemaphoreGuard<'_>>> {
    check(units)?;
    if let Some(error) = region.lost() {
        return Err(error);
    }
    let answer = match Wait::ask(region, timeout.and_then(deadline), Kind::Acquire, flags, id, units)? {
        Some(Asked::Answered(answer)) => Some(answer),
        Some(Asked::Late(wait)) => wait.too_late(id, units)?,
        None => None,
    };
    Ok(answer.and_then(|answer| granted(region, id, units, answer)))
}

/// The guard of what was granted, if it was.
pub(crate) fn granted(region: &Region, id: u32, units: u32, answer: Answer) -> Option<SemaphoreGuard<'_>> {
    let dirty = answer.status == status::OWNER_DIED;
    (dirty || answer.status == status::OK).then(|| SemaphoreGuard {
        region,
        id,
        units,
        fence: answer.fence,
        process: region.process(),
        dirty,
    })
}

pub(crate) fn check(units: u32) -> Result<()> {
    let most = dsm_core::limits::SEMAPHORE_VALUE;
    if units == 0 || units > most {
        return Err(Error::TooLarge(format!("{units} units of a semaphore are not possible: 1 to {most} are")));
    }
    Ok(())
}

impl SemaphoreGuard<'_> {
    /// Did the last owner die, and nobody has said since that things are consistent?
    pub(crate) fn dirty(&self) -> bool {
        self.dirty
    }

    /// Says that things are consistent, or that they are not.
    pub(crate) fn set_dirty(&mut self, dirty: bool) {
        self.dirty = dirty;
    }

    /// Rises with every grant of this semaphore: what a resource outside of the session can compare, to refuse one who
    /// was taken for dead and comes too late (a fencing token).
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.fence
    }

    /// Units held.
    #[must_use]
    pub fn units(&self) -> u32 {
        self.units
    }

    /// Keeps the units for good: they do not come back when the guard ends, nor when this process does.
    pub fn keep(mut self) {
        let units = std::mem::take(&mut self.units);
        if self.process == self.region.process() && self.region.lost().is_none() {
            let _ = submit(self.region, Kind::Release, KEPT, self.id, 0, units);
        }
    }
}

impl Drop for SemaphoreGuard<'_> {
    fn drop(&mut self) {
        if self.units > 0 && self.process == self.region.process() && self.region.lost().is_none() {
            let flags = if self.dirty { STILL_DIRTY } else { 0 };
            // Where the session ends, nobody is left who could have them.
            let _ = submit(self.region, Kind::Release, flags, self.id, 0, self.units);
        }
    }
}
