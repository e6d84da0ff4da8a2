//! Pi as the integral of 4 / (1 + x²) from 0 to 1: every rank adds up its part of the strips, puts its sum into an
//! array that all share, and waits for the others at a barrier. Then each has all the sums.
//!
//! ```sh
//! cargo run -p dsm-examples --bin pi            # alone
//! dsm run -n 4 --hosts 2 -- target/debug/pi     # four processes, as if on two hosts
//! ```

use dsm::prelude::*;
use std::f64::consts::PI;

const STRIPS: usize = 10_000_000;

/// The program.
///
/// # Errors
/// When the session cannot be joined, or ends.
pub fn main() -> dsm::Result<()> {
    let session = Session::join("pi")?;
    let (rank, size) = (session.rank(), session.size());
    let sums = session.array::<f64>("sums", size)?;

    let width = 1.0 / STRIPS as f64;
    let mine = (rank..STRIPS).step_by(size).map(|strip| {
        let x = (strip as f64 + 0.5) * width;
        4.0 / (1.0 + x * x) * width
    });
    sums.set(rank, mine.sum());

    // Who has passed the barrier sees what every other rank stored before it.
    session.barrier("summed", size)?.wait()?;
    let pi: f64 = sums.iter().sum();
    println!("rank {rank} of {size}: pi is {pi:.15}, off by {:.1e}", (pi - PI).abs());
    Ok(())
}
