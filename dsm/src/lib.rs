//! Distributed shared memory.
pub mod place;
pub mod typed;
pub use dsm_macros::shared;
