//! Programs that show dsm at work. Each is one file, to be read on its own:
//!
//! - [`pi`]: partial sums in a shared array, and a barrier. The one to begin with.
//! - [`primes`]: work handed out in blocks by an atomic counter.
//! - [`pingpong`]: how long a store, and a semaphore, take to the other host and back.
//! - [`contrast`]: an image that several processes work on at once, through holes.
//!
//! Each runs alone (`cargo run -p dsm-examples --bin pi`), and as several processes on several hosts, or on what
//! passes for several hosts on one machine (`dsm run -n 4 --hosts 2 -- target/debug/pi`).

// The programs call this library by its name. So do the same files as its modules.
extern crate self as dsm_examples;

pub mod contrast;
pub mod image;
pub mod pi;
pub mod pingpong;
pub mod primes;
