//! Every interleaving of small programs, run by the real log, replica and sequencer.
//!
//! Two hosts with a few operations each, on bytes that overlap around the end of a line. From every state that can be
//! reached every event that can happen is tried: a thread's next step, draining a log, ordering a batch, delivering a
//! frame, taking up the lease of atomics or giving it back, joining, leaving. In every state, for every host: replica = the prefix of the total order that it has
//! received, overlaid with its own pending stores in their order; whoever has an answer has the one that the order
//! gives, and all before it. At the end all replicas equal the sequencer's bytes, and nobody waits for what could come.
//!
//! `DSM_EVERY=n` runs every nth program, 1 all of them; without it, so many of each family as take half a minute.
#![cfg(not(loom))]

#[path = "exhaustive/order.rs"]
mod order;
#[path = "exhaustive/world.rs"]
mod world;

use order::Op;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use world::{Event, World};

/// What runs: of each host, of each thread, its operations.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    hosts: [Vec<Vec<Op>>; 2],
    /// The second host joins at some time; the first has the lease of atomics until then.
    late: bool,
    /// And leaves when it is done.
    leaves: bool,
    /// Units of the semaphore.
    units: u32,
    /// Threads that the barrier is for.
    parties: u32,
}

impl Program {
    fn new(left: &[&[Op]], right: &[&[Op]]) -> Self {
        let hosts = [left, right].map(|threads| threads.iter().map(|ops| ops.to_vec()).collect());
        Self { hosts, late: false, leaves: false, units: 1, parties: 2 }
    }
}

/// Within a word, a line, across the line's end; nested, overlapping and apart.
const STORES: [Op; 7] = [
    Op::Store(4, 4),
    Op::Store(6, 1),
    Op::Store(0, 8),
    Op::Store(5, 6),
    Op::Bulk(&[4, 7, 8, 9]),
    Op::Add(4, 4),
    Op::Add(7, 2),
];

/// Two operations on each host.
fn stores() -> Vec<Program> {
    let pairs: Vec<[Op; 2]> = STORES.iter().flat_map(|a| STORES.iter().map(|b| [*a, *b])).collect();
    let mut programs: Vec<Program> = Vec::new();
    for (at, left) in pairs.iter().enumerate() {
        // The hosts are alike: half of the pairs of pairs are enough.
        for right in &pairs[at..] {
            let touching = left.iter().any(|op| right.contains(op)) || programs.len().is_multiple_of(3);
            let threaded = left.iter().any(|op| matches!(op, Op::Add(..))) && touching;
            if threaded {
                programs.push(Program::new(&[&left[..1], &left[1..]], &[right]));
            }
            programs.push(Program::new(&[left], &[right]));
        }
    }
    programs
}

/// A fence between two operations, or beside those of another thread of its host.
fn fences() -> Vec<Program> {
    let mut programs = Vec::new();
    for a in [Op::Store(4, 4), Op::Bulk(&[4, 7, 8, 9]), Op::Add(7, 2)] {
        for b in [Op::Store(6, 1), Op::Add(4, 4)] {
            for c in STORES {
                programs.push(Program::new(&[&[a, Op::Fence, b]], &[&[c]]));
                programs.push(Program::new(&[&[a, Op::Fence]], &[&[c, Op::Fence]]));
                programs.push(Program::new(&[&[a, Op::Fence], &[b]], &[&[c]]));
            }
        }
    }
    programs
}

/// Critical sections, hand-overs, large requests before small ones, waits that are given up; also with too few units.
fn semaphores() -> Vec<Program> {
    use Op::{Acquire, Add, Release, Store, Timed, Try};
    let scripts: [&[Op]; 8] = [
        &[Acquire(1), Store(4, 4), Release(1)],
        &[Acquire(1), Op::Bulk(&[4, 7, 8, 9]), Release(1)],
        &[Acquire(1), Add(7, 2)],
        &[Acquire(2), Release(2)],
        &[Store(6, 1), Release(1)],
        &[Timed(1), Store(5, 6)],
        &[Timed(2), Release(2)],
        &[Try(1), Store(6, 1)],
    ];
    let mut programs = Vec::new();
    for units in 0..3 {
        for (at, left) in scripts.iter().enumerate() {
            for right in &scripts[at..] {
                programs.push(Program { units, ..Program::new(&[left], &[right]) });
                // Two threads of a host, one of them with its last steps only.
                programs.push(Program { units, ..Program::new(&[left, &right[right.len() - 1..]], &[&left[..1]]) });
            }
        }
    }
    programs
}

/// Barriers for two, for three of whom two are of one host, and for more than there are; used again.
fn barriers() -> Vec<Program> {
    use Op::Arrive;
    let mut programs = Vec::new();
    for a in [Op::Store(4, 4), Op::Bulk(&[4, 7, 8, 9]), Op::Add(7, 2)] {
        for b in STORES {
            programs.push(Program::new(&[&[a, Arrive]], &[&[b, Arrive]]));
            programs.push(Program::new(&[&[a, Arrive]], &[&[Arrive, b]]));
            programs.push(Program::new(&[&[Arrive, a, Arrive]], &[&[Arrive, b, Arrive]]));
            for parties in [2, 3, 4] {
                programs.push(Program { parties, ..Program::new(&[&[a, Arrive], &[Arrive]], &[&[b, Arrive]]) });
            }
        }
    }
    programs
}

/// The first host is alone and has the lease of atomics; the second joins, and in some of them leaves again.
fn joins() -> Vec<Program> {
    let (word, wide) = (Op::Add(4, 4), Op::Add(7, 2));
    let mut programs = Vec::new();
    for leaves in [false, true] {
        for right in [[].as_slice(), &[Op::Store(6, 1)], &[word], &[wide], &[Op::Fence]] {
            for left in [[word, word], [wide, word], [Op::Store(5, 6), wide], [word, Op::Bulk(&[4, 7, 8, 9])]] {
                programs.push(Program { late: true, leaves, ..Program::new(&[&left], &[right]) });
            }
            for left in [[word, word], [word, Op::Store(6, 1)], [wide, Op::Fence]] {
                programs.push(Program { late: true, leaves, ..Program::new(&[&left[..1], &left[1..]], &[right]) });
            }
        }
        programs.push(Program { late: true, leaves, ..Program::new(&[&[word, wide, word]], &[&[word]]) });
        programs.push(Program { late: true, leaves, ..Program::new(&[&[word, word]], &[&[word, wide]]) });
    }
    programs
}

/// What has happened, the newest first.
struct Past(Option<Rc<Past>>, (usize, Event));

fn tell(past: Option<&Rc<Past>>) -> Vec<(usize, Event)> {
    let mut events: Vec<_> = std::iter::successors(past, |past| past.0.as_ref()).map(|past| past.1).collect();
    events.reverse();
    events
}

/// All states that `program` can reach. Returns how many there are.
fn explore(program: &Program) -> usize {
    let start = World::new(program);
    let (mut seen, mut todo, mut ends) = (HashSet::from([start.key()]), vec![(start, None::<Rc<Past>>)], 0);
    while let Some((world, past)) = todo.pop() {
        if let Err(broken) = world.check() {
            panic!("{broken}, in {program:?} after {:?}", tell(past.as_ref()));
        }
        let possible = world.possible(program);
        if possible.is_empty() {
            ends += 1;
            if let Err(broken) = world.check_end(program) {
                panic!("{broken}, at the end of {program:?} after {:?}", tell(past.as_ref()));
            }
        }
        let mut world = Some(world);
        for (left, event) in possible.iter().enumerate().rev() {
            // The last one needs no copy.
            let Some(mut after) = (if left == 0 { world.take() } else { world.clone() }) else { break };
            after.happen(program, *event);
            if seen.insert(after.key()) {
                todo.push((after, Some(Rc::new(Past(past.clone(), *event)))));
            }
        }
    }
    assert!(ends > 0, "{program:?} never ends");
    seen.len()
}

/// Runs every program of a family, or by default every `step`th.
fn run(name: &str, programs: Vec<Program>, step: usize) {
    let every = std::env::var("DSM_EVERY").ok().and_then(|text| text.parse().ok()).unwrap_or(step);
    let programs: Vec<_> = programs.into_iter().step_by(every.max(1)).collect();
    let (next, states) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(program) = programs.get(next.fetch_add(1, SeqCst)) {
                    states.fetch_add(explore(program), SeqCst);
                }
            });
        }
    });
    println!("{name}: {} programs, {} states", programs.len(), states.into_inner());
}

#[test]
fn every_interleaving_of_small_programs_keeps_the_rules() {
    run("stores", stores(), 1);
    run("fences", fences(), 1);
    // No divisors of how many of a kind follow each other, so that there are some of every kind.
    run("semaphores", semaphores(), 3);
    run("barriers", barriers(), 5);
    run("joins of a second host", joins(), 1);
}
