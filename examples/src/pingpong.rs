//! Ping-pong: how long it takes to the other side and back. Ranks 0 and 1 play, once looking at a shared word until it
//! is their turn, once waiting for their turn on a semaphore. Any other ranks watch; alone, two threads play.
//!
//! ```sh
//! cargo run -p dsm-examples --bin pingpong                    # two threads, 1000 rounds
//! dsm run -n 2 --hosts 2 -- target/debug/pingpong 5000        # two processes, as if on two hosts
//! ```

use dsm::prelude::*;
use std::error::Error;
use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

/// The program.
///
/// # Errors
/// When the argument is not a number above 0; when the session cannot be joined, or ends.
pub fn main() -> Result<(), Box<dyn Error>> {
    let rounds: NonZero<u32> = std::env::args().nth(1).map_or("1000".parse(), |text| text.parse())?;
    let rounds = rounds.get();
    let session = Session::join("pingpong")?;

    let times = match (session.rank(), session.size()) {
        (_, 1) => thread::scope(|scope| {
            scope.spawn(|| play(&session, 1, rounds));
            play(&session, 0, rounds)
        })?,
        (me @ (0 | 1), _) => play(&session, me as u64, rounds)?,
        _ => Default::default(),
    };

    // Those who only watch wait here.
    session.barrier("end", session.size())?.wait()?;
    if session.rank() == 0 {
        let [spinning, semaphores] = times;
        println!("spinning:   {:.1?} there and back", spinning / rounds);
        println!("semaphores: {:.1?} there and back", semaphores / rounds);
        println!("the ball was hit {} times", session.open::<u64>("ball")?.get());
    }
    Ok(())
}

/// Both games, as player `me`: 0 begins, 1 answers.
fn play(session: &Session, me: u64, rounds: u32) -> dsm::Result<[Duration; 2]> {
    session.barrier("start", 2)?.wait()?;
    Ok([spinning(session, me, rounds)?, on_semaphores(session, me, rounds)?])
}

/// Nothing but loads and stores: a store of one host turns up in the memory of the other. (If the other died, nothing
/// would end this; of the semaphore below, the library knows that somebody waits.)
fn spinning(session: &Session, me: u64, rounds: u32) -> dsm::Result<Duration> {
    let ball = session.open::<u64>("ball")?; // how often it was hit: by 0 when that is even, by 1 when it is odd
    let until = |hits| {
        while ball.get() < hits {
            thread::yield_now(); // somebody else may need this processor to bring us the ball
        }
    };
    let start = Instant::now();
    for round in 0..u64::from(rounds) {
        until(2 * round + me);
        ball.set(ball.get() + 1);
    }
    until(2 * u64::from(rounds)); // the last one comes back, too
    Ok(start.elapsed())
}

/// Each sleeps until the other posts. Who is woken has what the other stored before.
fn on_semaphores(session: &Session, me: u64, rounds: u32) -> dsm::Result<Duration> {
    let ball = session.open::<u64>("ball")?;
    let turns = [session.semaphore("turn-0", 1)?, session.semaphore("turn-1", 0)?]; // 0 begins
    let (mine, theirs) = if me == 0 { (&turns[0], &turns[1]) } else { (&turns[1], &turns[0]) };
    let start = Instant::now();
    for _ in 0..rounds {
        mine.wait()?;
        ball.set(ball.get() + 1);
        theirs.post(1)?;
    }
    if me == 0 {
        mine.wait()?; // the last one comes back, too
    }
    Ok(start.elapsed())
}
