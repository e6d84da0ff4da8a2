//! Locks around values, and their guards, that own their part in the session, for those who cannot borrow it.

use super::owned::{Own, owned, try_owned};
use super::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::typed::{Plain, ReadOnly, Shared, SharedType};
use crate::{LockResult, Result, Session, TryLockResult, ValueHole};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A [`Mutex`] that keeps its session joined: for values that live longer than any borrow of the session; see
/// [`OwnedSemaphore`](crate::OwnedSemaphore).
///
/// ```
/// use std::sync::Arc;
///
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("example.txt")]
/// let session = Arc::new(session);
/// let count = session.mutex_owned::<u64>("count")?;
/// drop(session); // the mutex keeps it joined
/// let guard = count.lock()?;
/// std::thread::spawn(move || guard.value().set(7)).join().unwrap();
/// assert_eq!(count.lock()?.value().get(), 7);
/// # Ok(())
/// # }
/// ```
pub struct OwnedMutex<T: SharedType> {
    // Borrows `session`, and is never handed out.
    mutex: Mutex<'static, T>,
    session: Arc<Session>,
}

/// The lock of an [`OwnedMutex`], held; it is given back when the guard is dropped. See [`MutexGuard`].
#[must_use = "unlocked at once when the guard is not kept"]
pub struct OwnedMutexGuard<T: SharedType> {
    // Borrows the session, and is never handed out; dropped before it.
    pub(super) guard: MutexGuard<'static, T>,
    _session: Arc<Session>,
}

/// An [`RwLock`] that keeps its session joined: for values that live longer than any borrow of the session; see
/// [`OwnedSemaphore`](crate::OwnedSemaphore).
pub struct OwnedRwLock<T: SharedType> {
    // Borrows `session`, and is never handed out.
    lock: RwLock<'static, T>,
    session: Arc<Session>,
}

/// The right to read what is under an [`OwnedRwLock`]; it ends when the guard is dropped. See [`RwLockReadGuard`].
#[must_use = "unlocked at once when the guard is not kept"]
pub struct OwnedRwLockReadGuard<T: SharedType> {
    // Borrows the session, and is never handed out; dropped before it.
    guard: RwLockReadGuard<'static, T>,
    _session: Arc<Session>,
}

/// The right to change what is under an [`OwnedRwLock`]; it ends when the guard is dropped. See [`RwLockWriteGuard`].
#[must_use = "unlocked at once when the guard is not kept"]
pub struct OwnedRwLockWriteGuard<T: SharedType> {
    // Borrows the session, and is never handed out; dropped before it.
    pub(super) guard: RwLockWriteGuard<'static, T>,
    _session: Arc<Session>,
}

macro_rules! own {
    ($($guard:ident, $owned:ident;)*) => {$(
        impl<T: SharedType> Own for $guard<'static, T> {
            type Owned = $owned<T>;

            fn own(self, session: &Arc<Session>) -> $owned<T> {
                $owned { guard: self, _session: Arc::clone(session) }
            }
        }
    )*};
}

own! {
    MutexGuard, OwnedMutexGuard;
    RwLockReadGuard, OwnedRwLockReadGuard;
    RwLockWriteGuard, OwnedRwLockWriteGuard;
}

impl Session {
    /// As [`Session::mutex`], for a mutex whose guards own their part in the session.
    ///
    /// # Errors
    /// As [`Session::mutex`].
    pub fn mutex_owned<T: SharedType>(self: &Arc<Self>, name: &str) -> Result<OwnedMutex<T>> {
        let mutex = self.mutex::<T>(name)?;
        // SAFETY: what it borrows is the session's region, which lies in a box of its own and is unmapped when the
        // session is dropped; that happens after the last `Arc`, of which the new value keeps one. Fields are private,
        // and no method hands out anything that still borrows for `'static`.
        let mutex = unsafe { std::mem::transmute::<Mutex<'_, T>, Mutex<'static, T>>(mutex) };
        Ok(OwnedMutex { mutex, session: Arc::clone(self) })
    }

    /// As [`Session::rwlock`], for a lock whose guards own their part in the session.
    ///
    /// # Errors
    /// As [`Session::rwlock`].
    pub fn rwlock_owned<T: SharedType>(self: &Arc<Self>, name: &str) -> Result<OwnedRwLock<T>> {
        let lock = self.rwlock::<T>(name)?;
        // SAFETY: as in `mutex_owned`.
        let lock = unsafe { std::mem::transmute::<RwLock<'_, T>, RwLock<'static, T>>(lock) };
        Ok(OwnedRwLock { lock, session: Arc::clone(self) })
    }
}

impl<T: SharedType> OwnedMutex<T> {
    #[cfg(feature = "async")]
    pub(super) fn inner(&self) -> Mutex<'static, T> {
        self.mutex
    }

    /// See [`Mutex::lock`].
    ///
    /// # Errors
    /// As there.
    pub fn lock(&self) -> LockResult<OwnedMutexGuard<T>> {
        owned(self.mutex.lock(), &self.session)
    }

    /// See [`Mutex::try_lock`].
    ///
    /// # Errors
    /// As there.
    pub fn try_lock(&self) -> TryLockResult<OwnedMutexGuard<T>> {
        try_owned(self.mutex.try_lock(), &self.session)
    }

    /// See [`Mutex::lock_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<OwnedMutexGuard<T>> {
        owned(self.mutex.lock_timeout(timeout), &self.session)
    }

    /// The session that it keeps joined.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl<T: SharedType> OwnedMutexGuard<T> {
    /// See [`MutexGuard::value`].
    #[must_use]
    pub fn value(&self) -> Shared<'_, T> {
        self.guard.value()
    }

    /// See [`MutexGuard::hole`].
    ///
    /// # Errors
    /// As there.
    pub fn hole(&mut self) -> Result<ValueHole<'_, T>> {
        self.guard.hole()
    }

    /// See [`MutexGuard::fencing_token`].
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.guard.fencing_token()
    }
}

impl<T: SharedType> OwnedRwLock<T> {
    #[cfg(feature = "async")]
    pub(super) fn inner(&self) -> RwLock<'static, T> {
        self.lock
    }

    /// See [`RwLock::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&self) -> LockResult<OwnedRwLockReadGuard<T>> {
        owned(self.lock.read(), &self.session)
    }

    /// See [`RwLock::try_read`].
    ///
    /// # Errors
    /// As there.
    pub fn try_read(&self) -> TryLockResult<OwnedRwLockReadGuard<T>> {
        try_owned(self.lock.try_read(), &self.session)
    }

    /// See [`RwLock::read_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn read_timeout(&self, timeout: Duration) -> LockResult<OwnedRwLockReadGuard<T>> {
        owned(self.lock.read_timeout(timeout), &self.session)
    }

    /// See [`RwLock::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&self) -> LockResult<OwnedRwLockWriteGuard<T>> {
        owned(self.lock.write(), &self.session)
    }

    /// See [`RwLock::try_write`].
    ///
    /// # Errors
    /// As there.
    pub fn try_write(&self) -> TryLockResult<OwnedRwLockWriteGuard<T>> {
        try_owned(self.lock.try_write(), &self.session)
    }

    /// See [`RwLock::write_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn write_timeout(&self, timeout: Duration) -> LockResult<OwnedRwLockWriteGuard<T>> {
        owned(self.lock.write_timeout(timeout), &self.session)
    }

    /// The session that it keeps joined.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl<T: SharedType> OwnedRwLockReadGuard<T> {
    /// See [`RwLockReadGuard::load`].
    #[must_use]
    pub fn load(&self) -> T
    where
        T: Plain,
    {
        self.guard.load()
    }

    /// See [`RwLockReadGuard::value`].
    #[must_use]
    pub fn value(&self) -> ReadOnly<'_, T> {
        self.guard.value()
    }
}

impl<T: SharedType> OwnedRwLockWriteGuard<T> {
    /// See [`RwLockWriteGuard::value`].
    #[must_use]
    pub fn value(&self) -> Shared<'_, T> {
        self.guard.value()
    }

    /// See [`RwLockWriteGuard::hole`].
    ///
    /// # Errors
    /// As there.
    pub fn hole(&mut self) -> Result<ValueHole<'_, T>> {
        self.guard.hole()
    }

    /// See [`RwLockWriteGuard::fencing_token`].
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.guard.fencing_token()
    }
}

impl<T: SharedType> Clone for OwnedMutex<T> {
    fn clone(&self) -> Self {
        Self { mutex: self.mutex, session: Arc::clone(&self.session) }
    }
}

impl<T: SharedType> Clone for OwnedRwLock<T> {
    fn clone(&self) -> Self {
        Self { lock: self.lock, session: Arc::clone(&self.session) }
    }
}

/// Shown as what they own.
macro_rules! debug {
    ($($owned:ident, $field:ident;)*) => {$(
        impl<T: SharedType> fmt::Debug for $owned<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($owned)).field(&self.$field).finish()
            }
        }
    )*};
}

debug! {
    OwnedMutex, mutex;
    OwnedMutexGuard, guard;
    OwnedRwLock, lock;
    OwnedRwLockReadGuard, guard;
    OwnedRwLockWriteGuard, guard;
}
