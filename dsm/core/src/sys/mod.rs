//! System calls: the only place below the typed handles that makes any.

pub mod event;
pub mod futex;
pub mod map;
pub mod membarrier;
pub mod passing;
pub mod process;
pub mod robust;
