//! What crosses to another host: two processes under two arbiters run the same phases.

use super::{Figure, floor, median};
use dsm::prelude::*;
use std::time::{Duration, Instant};

#[dsm::shared]
struct Words {
    /// Written by rank 0, on a line of its own.
    ping: u64,
    _gap: [u64; 7],
    /// Written by rank 1.
    pong: u64,
    _rest: [u64; 7],
}

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `holds`, giving the processor away; how a program on few cores should spin.
fn until(mut holds: impl FnMut() -> bool) -> dsm::Result<()> {
    let start = Instant::now();
    while !holds() {
        std::thread::yield_now();
        if start.elapsed() > PATIENCE {
            return Err(dsm::Error::TimedOut(PATIENCE));
        }
    }
    Ok(())
}

fn io(source: std::io::Error) -> dsm::Error {
    dsm::Error::System { what: "a floor could not be measured".into(), source }
}

/// Both ranks call this; rank 0 measures and shows.
pub fn run(
    session: &Session,
    rank: usize,
    scale: f64,
    wanted: &dyn Fn(&str) -> bool,
    mut show: impl FnMut(Figure),
) -> dsm::Result<()> {
    let rounds = |count: f64| (count * scale).max(10.0) as u64;
    let words = session.open::<Words>("bench.words")?;
    let barrier = session.barrier("bench.phase", 2)?;
    let meet = || barrier.wait_timeout(PATIENCE).map(drop);
    let done = session.semaphore("bench.done", 0)?;
    let first = rank == 0;

    meet()?;
    if wanted("visible.2hosts") {
        let rounds = rounds(20e3);
        let mut times = Vec::new();
        for round in 1..=rounds {
            if first {
                let start = Instant::now();
                words.set_ping(round);
                until(|| words.pong() == round)?;
                times.push(start.elapsed().as_nanos() as f64 / 2.0);
            } else {
                until(|| words.ping() == round)?;
                words.set_pong(round);
            }
        }
        meet()?;
        if first {
            let floor = floor::tcp_one_way(rounds as usize).map_err(io)?;
            show(Figure::new("visible.2hosts", "ns", median(times), floor, "half a bare TCP round trip, polled"));
        }
        meet()?;
    }

    if wanted("updates.2hosts") {
        let table = session.array::<u64>("bench.table", 1 << 16)?;
        let (mut rates, mut floors) = (Vec::new(), Vec::new());
        let updates = rounds(10e6);
        for _ in 0..5 {
            meet()?;
            let start = Instant::now();
            if first {
                let mut at = 0;
                for value in 0..updates {
                    table.set(at, value);
                    at = (at + 1) & 0xffff;
                }
                done.post(1)?;
            } else {
                // Granted when all that precedes it has been applied here; and a processor is not spent on looking.
                done.wait_timeout(PATIENCE)?;
            }
            meet()?;
            rates.push(updates as f64 / start.elapsed().as_secs_f64());
            if first {
                floors.push(floor::tcp_bandwidth(256 << 10, 256 << 20).map_err(io)? / 24.0);
            }
        }
        if first {
            let floor = median(floors);
            show(Figure::new("updates.2hosts", "1/s", median(rates), floor, "bare TCP, 24 bytes an update"));
        }
        meet()?;
    }

    for (name, copied, size) in [("hole.64k", "hole.64k.memcpy", 64usize << 10), ("hole.1m", "hole.1m.memcpy", 1 << 20)]
    {
        if !wanted(name) && !wanted(copied) {
            continue;
        }
        let bytes = session.array::<u64>(name, size / 8)?;
        let holes = rounds(if size > 100_000 { 256.0 } else { 4096.0 });
        let (mut rates, mut floors, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        // The floors between the rounds: the machine's mood changes faster than a run ends.
        for run in 1..=7u64 {
            meet()?;
            let start = Instant::now();
            if first {
                for round in 0..holes {
                    let mut hole = bytes.hole()?;
                    // Every byte of every word changes in every round.
                    let value = (run * holes + round + 1).wrapping_mul(0x0101_0101_0101_0101);
                    hole.fill_with(|| value);
                    hole.fill()?;
                }
                done.post(1)?;
            } else {
                done.wait_timeout(PATIENCE)?;
            }
            meet()?;
            rates.push((holes * size as u64) as f64 / start.elapsed().as_secs_f64());
            if first {
                floors.push(floor::tcp_bandwidth(size, 256 << 20).map_err(io)?);
                copies.push(floor::memcpy_bandwidth(size, 256 << 20));
            }
        }
        if first {
            let [rate, floor, copy] = [rates, floors, copies].map(median);
            show(Figure::new(name, "bytes/s", rate, floor, "bare TCP over loopback"));
            show(Figure::new(copied, "bytes/s", rate, copy, "the same beside a copy in private memory"));
        }
        meet()?;
    }

    if wanted("atomic.2hosts") || wanted("atomic.2hosts.relayed") {
        let (counter, found) = (words.ping_atomic(), session.open::<[f64; 3]>("bench.atomic")?);
        let rounds = rounds(500.0);
        meet()?;
        // From the host that the server is not on, so that it is asked over the wire. In turn with the floors.
        if !first {
            let (mut times, mut bare, mut relayed) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..15 {
                for _ in 0..rounds {
                    let start = Instant::now();
                    counter.fetch_add(1, SeqCst);
                    times.push(start.elapsed().as_nanos() as f64);
                }
                bare.push(2.0 * floor::tcp_one_way(rounds as usize).map_err(io)?);
                relayed.push(floor::relayed_round_trip(rounds as usize).map_err(io)?);
            }
            found.store(&[times, bare, relayed].map(median));
        }
        meet()?;
        if first {
            let [value, floor, relayed] = found.load();
            let between = "the same with a thread in between, as an arbiter";
            show(Figure::new("atomic.2hosts", "ns", value, floor, "a bare TCP round trip, polled"));
            show(Figure::new("atomic.2hosts.relayed", "ns", value, relayed, between));
        }
        meet()?;
    }

    if wanted("sem.handoff.2hosts") {
        let mine = session.semaphore(["bench.0", "bench.1"][rank], 0)?;
        let theirs = session.semaphore(["bench.1", "bench.0"][rank], 0)?;
        let mut times = Vec::new();
        meet()?;
        let rounds = rounds(5e3);
        for _ in 0..rounds {
            let start = Instant::now();
            if first {
                theirs.post(1)?;
                mine.wait_timeout(PATIENCE)?;
                times.push(start.elapsed().as_nanos() as f64 / 2.0);
            } else {
                mine.wait_timeout(PATIENCE)?;
                theirs.post(1)?;
            }
        }
        meet()?;
        if first {
            let floor = floor::tcp_one_way(rounds as usize).map_err(io)?;
            show(Figure::new("sem.handoff.2hosts", "ns", median(times), floor, "half a bare TCP round trip, polled"));
        }
        meet()?;
    }

    if wanted("barrier.2hosts") {
        let rounds = rounds(5e3);
        let mut times = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            meet()?;
            times.push(start.elapsed().as_nanos() as f64);
        }
        if first {
            let floor = 2.0 * floor::tcp_one_way(rounds as usize).map_err(io)?;
            show(Figure::new("barrier.2hosts", "ns", median(times), floor, "a bare TCP round trip, polled"));
        }
        meet()?;
    }
    Ok(())
}
