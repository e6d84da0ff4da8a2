//! What both sides of dsm agree on: the shared-memory layouts and the host log, the wire format, and the
//! protocol state machines (sequencer, replica, semaphores, barriers) as plain data and pure functions.
//!
//! Nothing here opens a socket, reads a clock or starts a thread; [`sys`] alone makes system calls.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("dsm captures stores by decoding x86-64 instructions under Linux signals; no other target is supported");

pub mod barrier;
pub mod bias;
pub mod control;
pub mod deferral;
pub mod diff;
pub mod difference;
pub mod limits;
pub mod lock;
pub mod log;
pub mod memory;
pub mod op;
pub mod record;
pub mod replica;
pub mod segment;
pub mod semaphore;
pub mod sequencer;
pub mod slot;
pub mod sync;
pub mod sys;
pub mod watch;
pub mod wire;
