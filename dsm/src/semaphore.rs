//! Named counting semaphores across hosts, FIFO, with RAII guards.

use crate::region::Region;
use crate::wait::{Wait, deadline, submit};
use crate::{Error, Result};
use dsm_core::record::{KEPT, Kind, STILL_DIRTY, TRY};
use dsm_core::slot::Answer;
use dsm_core::wire::status;
use std::time::Duration;

/// A counting semaphore, known to all processes of the session by its name.
///
/// Acquiring and releasing have their places in the same order as the stores: who acquires has, by then, everything
/// that was written before the release. A release is one message and waits for nothing.
#[derive(Clone, Debug)]
pub struct Semaphore<'s> {
    region: &'s Region,
    id: u32,
    name: String,
}

/// Units that are held; they are given back when the guard is dropped.
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

/// Why a lock was not simply had.
#[derive(Debug)]
#[must_use]
pub enum LockError<'s> {
    /// It was had, but the last owner died while it held it, so that what it protects may be half done.
    /// [`LockError::recover`] gives the guard. Dropping this passes the news on to the next owner.
    OwnerDied(SemaphoreGuard<'s>, String),
    /// It was not had.
    Other(Error),
}

impl<'s> Semaphore<'s> {
    pub(crate) fn new(region: &'s Region, id: u32, name: &str) -> Self {
        Self { region, id, name: name.to_owned() }
    }

    /// Takes one unit, waiting for it in line.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] with the guard in it; [`LockError::Other`] when the session has ended.
    pub fn lock(&self) -> Result<SemaphoreGuard<'s>, LockError<'s>> {
        self.acquire(1)
    }

    /// Takes `units` at once, waiting for them in line.
    ///
    /// # Errors
    /// As [`Semaphore::lock`]; [`Error::TooLarge`] for 0 units or more than 32,767.
    pub fn acquire(&self, units: u32) -> Result<SemaphoreGuard<'s>, LockError<'s>> {
        match self.take(units, 0, None)? {
            Some(guard) => Ok(guard),
            None => Err(LockError::Other(Error::TimedOut(Duration::MAX))),
        }
    }

    /// Takes one unit if it is free; `None` if it is not.
    ///
    /// # Errors
    /// As [`Semaphore::lock`].
    pub fn try_lock(&self) -> Result<Option<SemaphoreGuard<'s>>, LockError<'s>> {
        self.take(1, TRY, None)
    }

    /// Takes one unit, waiting no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as [`Semaphore::lock`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<SemaphoreGuard<'s>, LockError<'s>> {
        self.acquire_timeout(1, timeout)
    }

    /// Takes `units` at once, waiting no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as [`Semaphore::acquire`].
    pub fn acquire_timeout(&self, units: u32, timeout: Duration) -> Result<SemaphoreGuard<'s>, LockError<'s>> {
        match self.take(units, 0, Some(timeout))? {
            Some(guard) => Ok(guard),
            None => Err(LockError::Other(Error::TimedOut(timeout))),
        }
    }

    fn take(
        &self,
        units: u32,
        flags: u8,
        timeout: Option<Duration>,
    ) -> Result<Option<SemaphoreGuard<'s>>, LockError<'s>> {
        check(units)?;
        if let Some(error) = self.region.lost() {
            return Err(error.into());
        }
        let wait = Wait::begin(self.region);
        submit(self.region, Kind::Acquire, flags, self.id, wait.token, units);
        let answer = match wait.answer(timeout.and_then(deadline))? {
            Some(answer) => Some(answer),
            None => {
                // Whether it was granted before it was cancelled is for the order to say.
                submit(self.region, Kind::Cancel, 0, self.id, wait.token, 0);
                wait.answer(None)?
            }
        };
        let Some(Answer { status, fence, .. }) = answer else { return Ok(None) };
        let dirty = status == status::OWNER_DIED;
        let guard =
            SemaphoreGuard { region: self.region, id: self.id, units, fence, process: self.region.process(), dirty };
        match status {
            status::OK => Ok(Some(guard)),
            status::OWNER_DIED => Err(LockError::OwnerDied(guard, self.name.clone())),
            _ => {
                std::mem::forget(guard);
                Ok(None)
            }
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
        submit(self.region, Kind::Release, 0, self.id, 0, units);
        Ok(())
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

fn check(units: u32) -> Result<()> {
    let most = dsm_core::limits::SEMAPHORE_VALUE;
    if units == 0 || units > most {
        return Err(Error::TooLarge(format!("{units} units of a semaphore are not possible: 1 to {most} are")));
    }
    Ok(())
}

impl SemaphoreGuard<'_> {
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
            submit(self.region, Kind::Release, KEPT, self.id, 0, units);
        }
    }
}

impl Drop for SemaphoreGuard<'_> {
    fn drop(&mut self) {
        if self.units > 0 && self.process == self.region.process() && self.region.lost().is_none() {
            let flags = if self.dirty { STILL_DIRTY } else { 0 };
            submit(self.region, Kind::Release, flags, self.id, 0, self.units);
        }
    }
}

impl<'s> LockError<'s> {
    /// The guard, when the last owner died: the caller has made, or will make, things consistent.
    ///
    /// # Errors
    /// What else happened.
    pub fn recover(self) -> Result<SemaphoreGuard<'s>> {
        match self {
            Self::OwnerDied(mut guard, _) => {
                guard.dirty = false;
                Ok(guard)
            }
            Self::Other(error) => Err(error),
        }
    }
}

impl std::fmt::Display for LockError<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OwnerDied(_, name) => Error::OwnerDied(name.clone()).fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LockError<'_> {}

impl From<Error> for LockError<'_> {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// So that `?` works where dead owners are not dealt with: the units go back, and the next owner is told.
impl From<LockError<'_>> for Error {
    fn from(error: LockError<'_>) -> Self {
        match error {
            LockError::OwnerDied(_, name) => Self::OwnerDied(name),
            LockError::Other(error) => error,
        }
    }
}
