//! What travels: fixed frames for the hot path, `bincode` messages for control.

pub mod control;
mod frame;
mod hello;

pub use frame::{BadFrame, Frame, FrameHeader, FrameKind, Reader, Reply, status};
pub use hello::{Hello, HelloError, Role};

/// Version of everything in this module. Both ends must agree.
pub const VERSION: u32 = 4;
