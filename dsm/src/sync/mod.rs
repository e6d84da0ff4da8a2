//! Locks around shared values, sync objects as fields, and waiting for a word.

#[cfg(feature = "async")]
pub(crate) mod asynchronous;
#[cfg(feature = "async")]
mod bell;
mod error;
pub mod field;
mod mutex;
mod open;
mod owned;
mod owned_locks;
mod rwlock;
mod watch;

#[cfg(feature = "async")]
pub(crate) use bell::Bell;
pub use error::{LockError, LockResult, TryLockResult};
pub use mutex::{Mutex, MutexGuard};
pub(crate) use open::{Object, ask, open_at};
pub use owned::{OwnedSemaphore, OwnedSemaphoreGuard};
pub use owned_locks::{OwnedMutex, OwnedMutexGuard, OwnedRwLock, OwnedRwLockReadGuard, OwnedRwLockWriteGuard};
pub use rwlock::{ReadLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
