//! One of the processes of the demo.

use super::{News, SESSION};
use crate::failure::{Failure, Result};
use dsm::prelude::*;
use dsm_examples::{contrast, image};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Arguments of the hidden `dsm demo-worker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    rounds: u64,
    image: PathBuf,
    result: PathBuf,
}

/// Stores of each process at the direct door, and at the trap door.
const DIRECT: usize = 2_000_000;
const TRAPPED: usize = 50_000;
/// Words that all processes together store to.
const TABLE: usize = 1 << 16;
/// Exchanges for the latency of each door.
const EXCHANGES: usize = 4000;
/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often rank 0 looks how far the image is.
const GLANCE: Duration = Duration::from_millis(60);

/// Runs `dsm demo-worker`.
pub fn worker(args: &Args) -> Result<()> {
    let session = Session::join(SESSION)?;
    let meet = session.barrier("demo", session.size())?;
    doors(&session, &meet)?;
    latency(&session, &meet)?;
    for round in 1..=args.rounds {
        work(&session, args, round)?;
    }
    same_here(&session, &args.image)?;
    meet.wait_timeout(PATIENCE)?;
    Ok(())
}

fn say(session: &Session, news: News) {
    use std::io::Write;
    if session.rank() == 0 {
        // Whether anybody hears it is not our concern: who has started us ends us.
        let _ = writeln!(std::io::stdout(), "{news}");
    }
}

/// Many stores at both doors; at the end all have what all have stored.
fn doors(session: &Session, meet: &Barrier<'_>) -> Result<()> {
    let table = session.array::<u64>("table", TABLE)?;
    meet.wait_timeout(PATIENCE)?;
    say(session, News::Doors);
    let mine = table.chunk(session.rank(), session.size());
    let (words, pointer) = (mine.len(), mine.as_ptr());
    for (number, at) in (0..DIRECT).zip((0..words).cycle()) {
        mine.set(at, number as u64);
    }
    for (number, at) in (DIRECT..DIRECT + TRAPPED).zip((0..words).cycle()) {
        let word = pointer.wrapping_add(at);
        // SAFETY: a word of the shared array, which no reference points to; a plain store to it traps and is captured.
        unsafe { word.write_volatile(number as u64) };
    }
    meet.wait_timeout(PATIENCE)?;
    // The last number that the loops above leave in word `at` of a chunk.
    let last = |count: usize, at: usize, words: usize| (at < count).then(|| (count - 1 - at) / words * words + at);
    for rank in 0..session.size() {
        let theirs = table.chunk(rank, session.size());
        let expected = |at| {
            let trapped = last(TRAPPED, at, theirs.len()).map(|number| DIRECT + number);
            trapped.or_else(|| last(DIRECT, at, theirs.len())).unwrap_or(0) as u64
        };
        if let Some(at) = (0..theirs.len()).find(|at| theirs.get(*at) != expected(*at)) {
            let (found, wanted) = (theirs.get(at), expected(at));
            let text = format!("word {at} of rank {rank} is {found} here, but should be {wanted}: that is a bug");
            return Err(Failure::new(text));
        }
    }
    Ok(())
}

/// The first rank and the last, which is on another host when there are several, wait for each other's stores.
fn latency(session: &Session, meet: &Barrier<'_>) -> Result<()> {
    let (rank, last) = (session.rank(), session.size() - 1);
    if last == 0 {
        return Ok(());
    }
    say(session, News::Latency);
    // On lines of their own.
    let words = session.array::<u64>("ball", 16)?;
    meet.wait_timeout(PATIENCE)?;
    if rank == 0 || rank == last {
        let (mine, theirs) = if rank == 0 { (words.at(0), words.at(8)) } else { (words.at(8), words.at(0)) };
        let direct = exchange(rank == 0, 0, |value| mine.set(value), || theirs.get())?;
        let pointer = mine.as_ptr();
        // SAFETY: a word of the shared array, which no reference points to; the plain store traps and is captured.
        let trap = |value| unsafe { pointer.write_volatile(value) };
        let trapped = exchange(rank == 0, EXCHANGES as u64, trap, || theirs.get())?;
        say(session, News::Measured(direct, trapped));
    }
    meet.wait_timeout(PATIENCE)?;
    Ok(())
}

/// Median nanoseconds one way.
fn exchange(first: bool, from: u64, mut store: impl FnMut(u64), load: impl Fn() -> u64) -> Result<f64> {
    let began = Instant::now();
    let wait = |value| {
        while load() < value {
            // The arbiter that brings it may need this processor.
            std::thread::yield_now();
            if began.elapsed() > PATIENCE {
                return Err(Failure::new("a store has not come to the other side"));
            }
        }
        Ok(())
    };
    let mut times = Vec::with_capacity(EXCHANGES);
    for value in from + 1..=from + EXCHANGES as u64 {
        let start = Instant::now();
        if first {
            store(value);
            wait(value)?;
        } else {
            wait(value)?;
            store(value);
        }
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[EXCHANGES / 2].as_nanos() as f64 / 2.0)
}

/// Works on the image together with the others. Rank 0 says how far they are.
fn work(session: &Session, args: &Args, round: u64) -> Result<()> {
    let done = |pixels| say(session, News::Round(round, args.rounds, pixels));
    done(0);
    let progress = session.open::<contrast::Progress>("progress")?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if session.rank() == 0 {
            scope.spawn(|| {
                let mut least = u64::MAX;
                while !over.load(Ordering::Relaxed) {
                    // What the round before has left there is not ours.
                    let now = progress.done();
                    least = least.min(now);
                    if now > least {
                        done(now);
                    }
                    std::thread::park_timeout(GLANCE);
                }
            });
        }
        let stretched = contrast::stretch(session, &args.image, &args.result);
        over.store(true, Ordering::Relaxed);
        stretched.map_err(|error| Failure::new(error.to_string()))
    })?;
    done(progress.done());
    Ok(())
}

/// Has this host what it should have?
fn same_here(session: &Session, input: &Path) -> Result<()> {
    let image = image::read(input).map_err(|error| Failure::new(error.to_string()))?;
    let expected = image::stretch_sequentially(&image.pixels);
    let found = session.array::<u8>("pixels", expected.len())?.to_vec();
    let differ = found.iter().zip(&expected).filter(|(found, wanted)| found != wanted).count();
    if differ > 0 {
        return Err(Failure::new(format!("{differ} pixels differ on host {}: that is a bug", session.host())));
    }
    Ok(())
}
