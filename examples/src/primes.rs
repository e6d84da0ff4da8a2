//! How many primes there are below a limit. High numbers take longer to try than low ones, so the work is not dealt
//! out in advance: whoever is free takes the next block, by `fetch_add` on a counter that all share.
//!
//! ```sh
//! cargo run -p dsm-examples --bin primes                      # below a million, alone
//! dsm run -n 4 --hosts 2 -- target/debug/primes 5000000       # four processes, as if on two hosts
//! ```

use dsm::prelude::*;
use std::error::Error;

const BLOCK: usize = 1000;

/// The program.
///
/// # Errors
/// When the argument is not a number; when the session cannot be joined, or ends.
pub fn main() -> Result<(), Box<dyn Error>> {
    let limit: usize = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let session = Session::join("primes")?;
    let (rank, size) = (session.rank(), session.size());

    let blocks = limit.div_ceil(BLOCK).max(1);
    let found = session.array::<u64>("found", blocks)?; // how many primes in each block
    let next = session.open::<u64>("next")?; // the block that nobody has taken yet

    let mut taken = 0;
    loop {
        // One order for the whole cluster: no two ranks ever get the same number.
        let block = next.atomic().fetch_add(1, SeqCst) as usize;
        if block >= blocks {
            break;
        }
        let numbers = block * BLOCK..limit.min((block + 1) * BLOCK);
        found.set(block, numbers.filter(|number| is_prime(*number)).count() as u64);
        taken += 1;
    }

    session.barrier("done", size)?.wait()?;
    println!("rank {rank} of {size} took {taken} of {blocks} blocks");
    if rank == 0 {
        println!("{} primes below {limit}", found.iter().sum::<u64>());
    }
    Ok(())
}

fn is_prime(number: usize) -> bool {
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}
