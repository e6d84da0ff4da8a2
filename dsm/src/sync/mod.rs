//! Locks around shared values, sync objects as fields, and waiting for a word.

mod error;
pub mod field;
mod mutex;
mod open;
mod owned;
mod rwlock;
mod watch;

pub use error::{LockError, LockResult, TryLockResult};
pub use mutex::{Mutex, MutexGuard};
pub(crate) use open::{Object, ask, open_at};
pub use owned::{OwnedSemaphore, OwnedSemaphoreGuard};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
