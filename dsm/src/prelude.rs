//! What most programs need: `use dsm::prelude::*`.

pub use crate::typed::{Atomic, ReadOnly, ReadOnlySlice, Shared, SharedType, Slice};
pub use crate::{Barrier, Error, Hole, LockError, RawHole, Semaphore, SemaphoreGuard, Session, ValueHole};
pub use std::sync::atomic::Ordering::{self, SeqCst};
