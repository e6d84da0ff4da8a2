//! Semaphores and guards that own their part in the session, for those who cannot borrow it.

use crate::{LockResult, Result, Semaphore, SemaphoreGuard, Session, TryLockResult};
use std::sync::Arc;
use std::time::Duration;

/// A [`Semaphore`] that keeps its session joined: for values that live longer than any borrow of the session, such as
/// those that a task or a thread of its own takes along.
///
/// (Where the session may last as long as the program, [`Session::leak`] gives handles and guards that are `'static`
/// without any of this.)
///
/// ```
/// use std::sync::Arc;
///
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("example.txt")]
/// let session = Arc::new(session);
/// let turns = session.semaphore_owned("turns", 1)?;
/// drop(session); // the semaphore keeps it joined
/// let guard = turns.lock()?;
/// std::thread::spawn(move || drop(guard)).join().unwrap();
/// assert!(turns.try_lock()?.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OwnedSemaphore {
    // Borrows `session`, and is never handed out.
    semaphore: Semaphore<'static>,
    session: Arc<Session>,
}

/// Units that are held; they are given back when the guard is dropped. See [`SemaphoreGuard`].
#[derive(Debug)]
#[must_use = "the units are given back at once when the guard is not kept"]
pub struct OwnedSemaphoreGuard {
    // Borrows the session, and is never handed out; dropped before it.
    guard: SemaphoreGuard<'static>,
    _session: Arc<Session>,
}

/// A guard that borrows the session, and can be made one that owns its part in it.
pub(super) trait Own: Sized {
    type Owned;
    fn own(self, session: &Arc<Session>) -> Self::Owned;
}

impl Own for SemaphoreGuard<'static> {
    type Owned = OwnedSemaphoreGuard;

    fn own(self, session: &Arc<Session>) -> OwnedSemaphoreGuard {
        OwnedSemaphoreGuard { guard: self, _session: Arc::clone(session) }
    }
}

pub(super) fn owned<G: Own>(result: LockResult<G>, session: &Arc<Session>) -> LockResult<G::Owned> {
    result.map(|guard| guard.own(session)).map_err(|error| error.map(|guard| guard.own(session)))
}

pub(super) fn try_owned<G: Own>(result: TryLockResult<G>, session: &Arc<Session>) -> TryLockResult<G::Owned> {
    result.map(|guard| guard.map(|guard| guard.own(session))).map_err(|error| error.map(|guard| guard.own(session)))
}

impl Session {
    /// As [`Session::semaphore`], for a semaphore whose guards own their part in the session.
    ///
    /// # Errors
    /// As [`Session::semaphore`].
    pub fn semaphore_owned(self: &Arc<Self>, name: &str, units: u32) -> Result<OwnedSemaphore> {
        let semaphore = self.semaphore(name, units)?;
        // SAFETY: what it borrows is the session's region, which lies in a box of its own and is unmapped when the
        // session is dropped; that happens after the last `Arc`, of which the new value keeps one. Fields are private,
        // and no method hands out anything that still borrows for `'static`.
        let semaphore = unsafe { std::mem::transmute::<Semaphore<'_>, Semaphore<'static>>(semaphore) };
        Ok(OwnedSemaphore { semaphore, session: Arc::clone(self) })
    }
}

impl OwnedSemaphore {
    #[cfg(feature = "async")]
    pub(super) fn inner(&self) -> &Semaphore<'static> {
        &self.semaphore
    }

    /// See [`Semaphore::lock`].
    ///
    /// # Errors
    /// As there.
    pub fn lock(&self) -> LockResult<OwnedSemaphoreGuard> {
        owned(self.semaphore.lock(), &self.session)
    }

    /// See [`Semaphore::acquire_many`].
    ///
    /// # Errors
    /// As there.
    pub fn acquire_many(&self, units: u32) -> LockResult<OwnedSemaphoreGuard> {
        owned(self.semaphore.acquire_many(units), &self.session)
    }

    /// See [`Semaphore::try_lock`].
    ///
    /// # Errors
    /// As there.
    pub fn try_lock(&self) -> TryLockResult<OwnedSemaphoreGuard> {
        try_owned(self.semaphore.try_lock(), &self.session)
    }

    /// See [`Semaphore::try_acquire_many`].
    ///
    /// # Errors
    /// As there.
    pub fn try_acquire_many(&self, units: u32) -> TryLockResult<OwnedSemaphoreGuard> {
        try_owned(self.semaphore.try_acquire_many(units), &self.session)
    }

    /// See [`Semaphore::lock_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<OwnedSemaphoreGuard> {
        owned(self.semaphore.lock_timeout(timeout), &self.session)
    }

    /// See [`Semaphore::acquire_many_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn acquire_many_timeout(&self, units: u32, timeout: Duration) -> LockResult<OwnedSemaphoreGuard> {
        owned(self.semaphore.acquire_many_timeout(units, timeout), &self.session)
    }

    /// The same semaphore, borrowed.
    #[must_use]
    pub fn semaphore(&self) -> &Semaphore<'_> {
        &self.semaphore
    }

    /// The session that it keeps joined.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl OwnedSemaphoreGuard {
    pub(crate) fn set_dirty(&mut self, dirty: bool) {
        self.guard.set_dirty(dirty);
    }

    /// See [`SemaphoreGuard::fencing_token`].
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.guard.fencing_token()
    }

    /// Units held.
    #[must_use]
    pub fn units(&self) -> u32 {
        self.guard.units()
    }

    /// See [`SemaphoreGuard::keep`].
    pub fn keep(self) {
        self.guard.keep();
    }
}
