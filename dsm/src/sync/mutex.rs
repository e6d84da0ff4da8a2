//! A shared value that can be reached only through a guard.

use super::{LockError, LockResult, Object, TryLockResult, field, open_at};
use crate::region::Region;
use crate::semaphore::{SemaphoreGuard, take};
use crate::typed::{Shared, SharedType};
use crate::{Error, Result, Session, ValueHole};
use dsm_core::record::TRY;
use dsm_core::wire::control::SyncKind;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A value in shared memory that can be reached only while its lock is held, by one process and thread of the whole
/// session at a time, first come first served.
///
/// Locking and unlocking have their places in the same order as the stores: whoever has the lock has everything that
/// was written under it before.
///
/// ```
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("example.txt")]
/// let count = session.mutex::<u64>("count")?;
/// {
///     let guard = count.lock()?;
///     guard.value().set(guard.value().get() + 1);
/// } // unlocked in order, not waited for
/// # Ok(())
/// # }
/// ```
#[repr(transparent)]
pub struct Mutex<'s, T>(Shared<'s, field::Mutex<T>>);

/// The lock of a [`Mutex`], held; it is given back when the guard is dropped.
///
/// It belongs to the process, not to a thread: a guard may be sent to another thread and dropped there. In the child of
/// a `fork` a guard of the parent does nothing. A guard that is dropped by a panic leaves the value as one whose owner
/// died would: the next owner is told.
#[must_use = "unlocked at once when the guard is not kept"]
pub struct MutexGuard<'s, T: SharedType> {
    pub(super) held: SemaphoreGuard<'s>,
    value: Shared<'s, T>,
    panicking: bool,
}

impl Session {
    /// Opens the value `name` together with its lock: attaches to them, or creates them, the value as zeros. The same
    /// as `open::<field::Mutex<T>>(name)`.
    ///
    /// # Errors
    /// As [`Session::open`]; [`Error::TypeDiffers`] also where there is a `T` by that name, but without a lock.
    pub fn mutex<T: SharedType>(&self, name: &str) -> Result<Mutex<'_, T>> {
        Ok(Mutex::new(self.open::<field::Mutex<T>>(name)?))
    }
}

impl<'s, T: SharedType> Mutex<'s, T> {
    pub(super) fn new(field: Shared<'s, field::Mutex<T>>) -> Self {
        Self(field)
    }

    /// Locks, waiting in line. A thread that has the lock already waits for ever.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] with the guard in it, when the last owner died or panicked while it held the lock;
    /// [`LockError::Other`] when the session has ended.
    pub fn lock(self) -> LockResult<MutexGuard<'s, T>> {
        self.take(0, None)?.ok_or(LockError::Other(Error::TimedOut(Duration::MAX)))
    }

    /// Locks if nobody has the lock; `None` if somebody has. Still asks the session's server.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    pub fn try_lock(self) -> TryLockResult<MutexGuard<'s, T>> {
        self.take(TRY, None)
    }

    /// Locks, waiting no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as [`Mutex::lock`].
    pub fn lock_timeout(self, timeout: Duration) -> LockResult<MutexGuard<'s, T>> {
        self.take(0, Some(timeout))?.ok_or(LockError::Other(Error::TimedOut(timeout)))
    }

    fn take(self, flags: u8, timeout: Option<Duration>) -> TryLockResult<MutexGuard<'s, T>> {
        let (region, id, name) = self.object()?;
        take(region, id, 1, flags, timeout)?.map(|held| self.guard(held, &name)).transpose()
    }

    pub(super) fn object(self) -> Result<(&'s Region, u32, Arc<str>)> {
        let (region, offset) = (self.0.place().region(), self.0.place().offset());
        let (id, name) = open_at(region, Object::Mutex, offset, SyncKind::Semaphore(1))?;
        Ok((region, id, name))
    }

    pub(super) fn guard(self, held: SemaphoreGuard<'s>, name: &str) -> LockResult<MutexGuard<'s, T>> {
        let (value, dirty) = (T::field_of::<field::Mutex<T>, 0>(self.0), held.dirty());
        let guard = MutexGuard { held, value, panicking: std::thread::panicking() };
        if dirty { Err(LockError::OwnerDied(guard, name.to_owned())) } else { Ok(guard) }
    }
}

impl<T: SharedType> MutexGuard<'_, T> {
    /// The handle of the value. It is good for as long as the guard is borrowed, and so cannot outlive the lock.
    #[must_use]
    pub fn value(&self) -> Shared<'_, T> {
        self.value
    }

    /// Opens a hole over the value: plain `&mut T`, published when it is dropped or filled, before the lock goes back.
    /// There can be one at a time, which the compiler sees to.
    ///
    /// # Errors
    /// As [`Shared::hole`].
    pub fn hole(&mut self) -> Result<ValueHole<'_, T>> {
        self.value().hole()
    }

    /// See [`SemaphoreGuard::fencing_token`].
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.held.fencing_token()
    }
}

impl<T: SharedType> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.panicking {
            self.held.set_dirty(true);
        }
    }
}

impl<T> Clone for Mutex<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Mutex<'_, T> {}

/// Shows the type and the address, not the value.
impl<T: SharedType> fmt::Debug for Mutex<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mutex<{}>({:p})", T::LAYOUT, self.0.as_ptr())
    }
}

/// Shows the type and the address, not the value.
impl<T: SharedType> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MutexGuard<{}>({:p})", T::LAYOUT, self.value.as_ptr())
    }
}
