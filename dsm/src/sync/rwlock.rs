//! A shared value that many can read at the same time, or one change.

use super::{LockError, LockResult, Object, TryLockResult, field, open_at};
use crate::region::Region;
use crate::semaphore::{SemaphoreGuard, take};
use crate::typed::{Plain, ReadOnly, Shared, SharedType};
use crate::{Error, Result, Session, ValueHole};
use dsm_core::limits::SEMAPHORE_VALUE;
use dsm_core::record::TRY;
use dsm_core::wire::control::SyncKind;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A value in shared memory that many processes and threads of the session can read at the same time, or one change.
///
/// It is a semaphore of 32,767 units of which a reader takes one and a writer all: so many readers there can be at a
/// time, on all hosts together. All wait in one line, first come first served: a writer that waits holds back readers
/// that come after it. So a thread that reads must not begin to read again: with a writer in between, both wait for ever.
///
/// ```
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("example.txt")]
/// let limits = session.rwlock::<[u64; 4]>("limits")?;
/// limits.write()?.value().set(0, 7);
/// assert_eq!(limits.read()?.load(), [7, 0, 0, 0]);
/// # Ok(())
/// # }
/// ```
#[repr(transparent)]
pub struct RwLock<'s, T>(Shared<'s, field::RwLock<T>>);

/// The right to read what is under an [`RwLock`]; it ends when the guard is dropped.
///
/// It belongs to the process, not to a thread: a guard may be sent to another thread and dropped there. In the child of
/// a `fork` a guard of the parent does nothing.
#[must_use = "unlocked at once when the guard is not kept"]
pub struct RwLockReadGuard<'s, T: SharedType> {
    _held: SemaphoreGuard<'s>,
    shared: Shared<'s, T>,
}

/// The right to change what is under an [`RwLock`]; it ends when the guard is dropped.
///
/// As a [`MutexGuard`](crate::MutexGuard), it belongs to the process, so that it may be sent to another thread and dropped
/// there, and leaves the value as a dead owner would when it is dropped by a panic.
#[must_use = "unlocked at once when the guard is not kept"]
pub struct RwLockWriteGuard<'s, T: SharedType> {
    pub(super) held: SemaphoreGuard<'s>,
    value: Shared<'s, T>,
    panicking: bool,
}

/// An [`RwLock`] of which only the value can be read: what a read-only handle gives of a field.
pub struct ReadLock<'s, T>(RwLock<'s, T>);

impl Session {
    /// Opens the value `name` together with its lock: attaches to them, or creates them, the value as zeros. The same
    /// as `open::<field::RwLock<T>>(name)`.
    ///
    /// # Errors
    /// As [`Session::open`]; [`Error::TypeDiffers`] also where there is a `T` by that name, but without a lock.
    pub fn rwlock<T: SharedType>(&self, name: &str) -> Result<RwLock<'_, T>> {
        Ok(RwLock::new(self.open::<field::RwLock<T>>(name)?))
    }
}

impl<'s, T: SharedType> RwLock<'s, T> {
    /// How many can read at the same time.
    pub const READERS: u32 = SEMAPHORE_VALUE;

    pub(super) fn new(field: Shared<'s, field::RwLock<T>>) -> Self {
        Self(field)
    }

    /// Waits in line until the value may be read.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] with the guard in it, when the last writer died or panicked and no writer has repaired
    /// things since; [`LockError::Other`] when the session has ended.
    pub fn read(self) -> LockResult<RwLockReadGuard<'s, T>> {
        self.take_read(0, None)?.ok_or(LockError::Other(Error::TimedOut(Duration::MAX)))
    }

    /// The right to read if it can be had at once; `None` if somebody writes, or waits to. Still asks the session's
    /// server.
    ///
    /// # Errors
    /// As [`RwLock::read`].
    pub fn try_read(self) -> TryLockResult<RwLockReadGuard<'s, T>> {
        self.take_read(TRY, None)
    }

    /// As [`RwLock::read`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as [`RwLock::read`].
    pub fn read_timeout(self, timeout: Duration) -> LockResult<RwLockReadGuard<'s, T>> {
        self.take_read(0, Some(timeout))?.ok_or(LockError::Other(Error::TimedOut(timeout)))
    }

    /// Waits in line until the value may be changed.
    ///
    /// # Errors
    /// [`LockError::OwnerDied`] with the guard in it, when the last writer died or panicked; [`LockError::Other`] when
    /// the session has ended.
    pub fn write(self) -> LockResult<RwLockWriteGuard<'s, T>> {
        self.take_write(0, None)?.ok_or(LockError::Other(Error::TimedOut(Duration::MAX)))
    }

    /// The right to change if it can be had at once; `None` if not. Still asks the session's server.
    ///
    /// # Errors
    /// As [`RwLock::write`].
    pub fn try_write(self) -> TryLockResult<RwLockWriteGuard<'s, T>> {
        self.take_write(TRY, None)
    }

    /// As [`RwLock::write`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as [`RwLock::write`].
    pub fn write_timeout(self, timeout: Duration) -> LockResult<RwLockWriteGuard<'s, T>> {
        self.take_write(0, Some(timeout))?.ok_or(LockError::Other(Error::TimedOut(timeout)))
    }

    fn take_read(self, flags: u8, timeout: Option<Duration>) -> TryLockResult<RwLockReadGuard<'s, T>> {
        let (region, id, name) = self.object()?;
        take(region, id, 1, flags, timeout)?.map(|held| self.read_guard(held, &name)).transpose()
    }

    fn take_write(self, flags: u8, timeout: Option<Duration>) -> TryLockResult<RwLockWriteGuard<'s, T>> {
        let (region, id, name) = self.object()?;
        take(region, id, Self::READERS, flags, timeout)?.map(|held| self.write_guard(held, &name)).transpose()
    }

    pub(super) fn object(self) -> Result<(&'s Region, u32, Arc<str>)> {
        let (region, offset) = (self.0.place().region(), self.0.place().offset());
        let (id, name) = open_at(region, Object::RwLock, offset, SyncKind::RwLock(Self::READERS))?;
        Ok((region, id, name))
    }

    pub(super) fn read_guard(self, held: SemaphoreGuard<'s>, name: &str) -> LockResult<RwLockReadGuard<'s, T>> {
        let dirty = held.dirty();
        let guard = RwLockReadGuard { _held: held, shared: self.0.part::<T, 0>() };
        if dirty { Err(LockError::OwnerDied(guard, name.to_owned())) } else { Ok(guard) }
    }

    pub(super) fn write_guard(self, held: SemaphoreGuard<'s>, name: &str) -> LockResult<RwLockWriteGuard<'s, T>> {
        let (value, dirty) = (self.0.part::<T, 0>(), held.dirty());
        let guard = RwLockWriteGuard { held, value, panicking: std::thread::panicking() };
        if dirty { Err(LockError::OwnerDied(guard, name.to_owned())) } else { Ok(guard) }
    }
}

impl<'s, T: SharedType> ReadLock<'s, T> {
    pub(super) fn new(field: ReadOnly<'s, field::RwLock<T>>) -> Self {
        Self(RwLock::new(field.shared()))
    }

    #[cfg(feature = "async")]
    pub(super) fn lock(self) -> RwLock<'s, T> {
        self.0
    }

    /// See [`RwLock::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(self) -> LockResult<RwLockReadGuard<'s, T>> {
        self.0.read()
    }

    /// See [`RwLock::try_read`].
    ///
    /// # Errors
    /// As there.
    pub fn try_read(self) -> TryLockResult<RwLockReadGuard<'s, T>> {
        self.0.try_read()
    }

    /// See [`RwLock::read_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn read_timeout(self, timeout: Duration) -> LockResult<RwLockReadGuard<'s, T>> {
        self.0.read_timeout(timeout)
    }
}

impl<T: SharedType> RwLockReadGuard<'_, T> {
    /// Copies the value out. Nobody changes it meanwhile, so it is whole.
    #[must_use]
    pub fn load(&self) -> T
    where
        T: Plain,
    {
        self.shared.load()
    }

    /// The handle of the value, to be read only. It is good for as long as the guard is borrowed, and so cannot outlive
    /// the lock.
    #[must_use]
    pub fn value(&self) -> ReadOnly<'_, T> {
        self.shared.read_only()
    }
}

impl<T: SharedType> RwLockWriteGuard<'_, T> {
    /// The handle of the value. It is good for as long as the guard is borrowed, and so cannot outlive the lock. (A
    /// [`Pointer`](crate::Pointer) that is made of it leads nowhere: it cannot be followed.)
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

impl<T: SharedType> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.panicking {
            self.held.set_dirty(true);
        }
    }
}

impl<T> Clone for ReadLock<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ReadLock<'_, T> {}

/// Shows the type and the address, not the value.
impl<T: SharedType> fmt::Debug for ReadLock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadLock<{}>({:p})", T::LAYOUT, self.0.0.as_ptr())
    }
}

impl<T> Clone for RwLock<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RwLock<'_, T> {}

/// Shows the type and the address, not the value.
impl<T: SharedType> fmt::Debug for RwLock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RwLock<{}>({:p})", T::LAYOUT, self.0.as_ptr())
    }
}

/// Shows the type and the address, not the value.
impl<T: SharedType> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RwLockReadGuard<{}>({:p})", T::LAYOUT, self.shared.as_ptr())
    }
}

/// Shows the type and the address, not the value.
impl<T: SharedType> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RwLockWriteGuard<{}>({:p})", T::LAYOUT, self.value.as_ptr())
    }
}
