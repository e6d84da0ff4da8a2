//! What a lock says about its last owner.

use super::{MutexGuard, OwnedSemaphoreGuard, RwLockReadGuard, RwLockWriteGuard};
use super::{OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard};
use crate::typed::SharedType;
use crate::{Error, Result, SemaphoreGuard};

/// Why a lock was not simply had. `G` is the guard that it would have given.
///
/// It may hold a guard, which borrows the session, and so is no [`std::error::Error`] itself: `?` makes an [`Error`] of it,
/// or a `Box<dyn std::error::Error>`; elsewhere, `map_err(dsm::Error::from)` does.
#[derive(Debug)]
#[must_use]
pub enum LockError<G> {
    /// It was had, but the last owner died while it held it, so that what it protects may be half done. The text names
    /// the lock. [`LockError::recover`] gives the guard. Dropping this passes the news on to the next owner.
    OwnerDied(G, String),
    /// It was not had.
    Other(Error),
}

/// What taking a lock gives: its guard, or why it was not simply had.
pub type LockResult<G> = Result<G, LockError<G>>;

/// What trying to take a lock gives: its guard, or `None` where that would mean waiting, or why it was not simply had.
pub type TryLockResult<G> = Result<Option<G>, LockError<G>>;

impl<G> LockError<G> {
    /// The guard, when the last owner died: the caller has made, or will make, things consistent, and nobody else is
    /// told. (A reader cannot: whoever comes after it is told again.)
    ///
    /// # Errors
    /// What else happened.
    pub fn recover(self) -> Result<G>
    where
        G: Repair,
    {
        match self {
            Self::OwnerDied(mut guard, _) => {
                guard.repaired();
                Ok(guard)
            }
            Self::Other(error) => Err(error),
        }
    }

    pub(crate) fn map<H>(self, guard: impl FnOnce(G) -> H) -> LockError<H> {
        match self {
            Self::OwnerDied(held, name) => LockError::OwnerDied(guard(held), name),
            Self::Other(error) => LockError::Other(error),
        }
    }
}

impl<G> std::fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OwnerDied(_, name) => Error::OwnerDied(name.clone()).fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl<G> From<Error> for LockError<G> {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// So that `?` works where dead owners are not dealt with: the lock goes back, and the next owner is told.
impl<G> From<LockError<G>> for Error {
    fn from(error: LockError<G>) -> Self {
        match error {
            LockError::OwnerDied(_, name) => Self::OwnerDied(name),
            LockError::Other(error) => error,
        }
    }
}

/// As `Error`, for functions that return any error.
impl<G> From<LockError<G>> for Box<dyn std::error::Error> {
    fn from(error: LockError<G>) -> Self {
        Error::from(error).into()
    }
}

/// As `Error`, for functions that return any error.
impl<G> From<LockError<G>> for Box<dyn std::error::Error + Send + Sync> {
    fn from(error: LockError<G>) -> Self {
        Error::from(error).into()
    }
}

/// A guard that can be told that what it protects is consistent.
pub trait Repair {
    #[doc(hidden)]
    fn repaired(&mut self);
}

impl Repair for SemaphoreGuard<'_> {
    fn repaired(&mut self) {
        self.set_dirty(false);
    }
}

impl Repair for OwnedSemaphoreGuard {
    fn repaired(&mut self) {
        self.set_dirty(false);
    }
}

impl<T: SharedType> Repair for MutexGuard<'_, T> {
    fn repaired(&mut self) {
        self.held.set_dirty(false);
    }
}

impl<T: SharedType> Repair for RwLockWriteGuard<'_, T> {
    fn repaired(&mut self) {
        self.held.set_dirty(false);
    }
}

impl<T: SharedType> Repair for RwLockReadGuard<'_, T> {
    fn repaired(&mut self) {}
}

impl<T: SharedType> Repair for OwnedMutexGuard<T> {
    fn repaired(&mut self) {
        self.guard.repaired();
    }
}

impl<T: SharedType> Repair for OwnedRwLockWriteGuard<T> {
    fn repaired(&mut self) {
        self.guard.repaired();
    }
}

impl<T: SharedType> Repair for OwnedRwLockReadGuard<T> {
    fn repaired(&mut self) {}
}
