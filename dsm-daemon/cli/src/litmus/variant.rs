//! Variants of a test: how its stores are made, what stands between its accesses, and which threads share a host.

use super::program::{Function, Loc, Op, Program, Thread};
use super::tests::{TESTS, Test};

/// How stores are made. Loads are plain loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Plain stores through a pointer: the trap door. Locked instructions: `std::sync::atomic`.
    Plain,
    /// Typed accessors: the direct door.
    Accessor,
    /// `std::sync::atomic` in shared memory: every store a locked instruction, which traps.
    Atomic,
    /// Every store a `swap` of the typed atomic.
    Swap,
    /// Every store a hole of its own.
    Hole,
    /// Stores that follow each other, in one hole.
    Batch,
}

/// What stands between two accesses of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Nothing.
    Nothing,
    /// `Session::fence`.
    Fence,
    /// A locked instruction on a word that only this thread uses.
    Locked,
}

/// A test in one of its variants, and how often it is to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number among all that are to run.
    pub number: usize,
    /// The test.
    pub test: &'static Test,
    /// How stores are made.
    pub door: Door,
    /// What stands between accesses.
    pub between: Between,
    /// Where its threads run.
    pub placement: &'static Placement,
    /// How many instances are run.
    pub runs: u64,
}

/// Doors with what may stand between the accesses, and how much of the runs each gets: the less an access costs, the more.
const STORES: &[(Door, Between, u64)] = &[
    (Door::Accessor, Between::Nothing, 130),
    (Door::Plain, Between::Nothing, 130),
    (Door::Hole, Between::Nothing, 12),
    (Door::Batch, Between::Nothing, 12),
    (Door::Atomic, Between::Nothing, 3),
    (Door::Swap, Between::Nothing, 3),
    (Door::Accessor, Between::Fence, 2),
    (Door::Plain, Between::Fence, 2),
    (Door::Hole, Between::Fence, 2),
    (Door::Accessor, Between::Locked, 2),
    (Door::Plain, Between::Locked, 2),
    (Door::Hole, Between::Locked, 2),
];

/// With every thread on a host of its own, no variant gets less than this part of the runs.
const LEAST: u64 = 40;
/// With threads on several hosts, no variant gets less than this part of the runs whose stores are seen later elsewhere:
/// some of that is to be seen only where two threads share a host.
const LEAST_RELAXED: u64 = 100;

/// A process: its host, and its number there.
pub type Process = (u8, u8);

/// Where the threads of a test run.
#[derive(Debug)]
pub struct Placement {
    /// The process of each thread.
    threads: &'static [Process],
    /// No other host is in the session, which then has the lease of atomics. Elsewhere there is one more that looks on
    /// where all threads are on one host: what is to be seen is seen across hosts.
    alone: bool,
}

const fn on(threads: &'static [Process]) -> Placement {
    Placement { threads, alone: false }
}

const fn alone(threads: &'static [Process]) -> Placement {
    Placement { threads, alone: true }
}

/// The first process of a host, and the second.
const A: Process = (0, 0);
const A2: Process = (0, 1);
const B: Process = (1, 0);
const B2: Process = (1, 1);
const C: Process = (2, 0);
const D: Process = (3, 0);

const TWO: &[Placement] = &[on(&[A, B]), on(&[A, A]), on(&[A, A2]), alone(&[A, A2])];
const THREE: &[Placement] = &[
    on(&[A, B, C]),
    on(&[A, A, B]),
    on(&[A, B, A]),
    on(&[A, B, B]),
    on(&[A, A2, B]),
    on(&[A, B, A2]),
    on(&[B, A, A2]),
    alone(&[A, A2, A]),
];
const FOUR: &[Placement] = &[
    on(&[A, B, C, D]),
    on(&[A, B, A, B]),
    on(&[A, B, B, A]),
    on(&[A, A, B, C]),
    on(&[A, B, A2, B2]),
    on(&[A, A2, A, B]),
    alone(&[A, A2, A2, A]),
];

/// Where the threads of a test may run; the first is with every thread on a host of its own.
fn placements(threads: usize) -> &'static [Placement] {
    match threads {
        2 => TWO,
        3 => THREE,
        _ => FOUR,
    }
}

impl Placement {
    /// All processes that take part, those of a host together; the first is the one that leads.
    pub fn processes(&self) -> Vec<Process> {
        let mut all = self.threads.to_vec();
        if !self.alone && all.iter().all(|(host, _)| *host == 0) {
            all.push(B);
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// `0` for the first process of host 0, `0b` for its second.
pub fn name((host, number): Process) -> String {
    let suffix = ["", "b"][usize::from(number).min(1)];
    format!("{host}{suffix}")
}

fn names(processes: &[Process]) -> String {
    processes.iter().map(|process| name(*process)).collect::<Vec<_>>().join(",")
}

/// The jobs for these selections (`TEST`, `TEST/VARIANT`, `TEST/VARIANT/HOSTS`; none: all), with `runs` for each test on
/// several hosts; what runs on one host comes on top, unless nothing else is selected.
///
/// # Errors
/// The first selection that selects nothing.
pub fn plan(selected: &[String], runs: u64) -> Result<Vec<Job>, String> {
    let all: Vec<Job> = TESTS.iter().flat_map(variants).collect();
    if let Some(nothing) = selected.iter().find(|selection| !all.iter().any(|job| job.is(selection))) {
        return Err(nothing.clone());
    }
    let wanted = |job: &Job| selected.is_empty() || selected.iter().any(|selection| job.is(selection));
    let mut jobs: Vec<Job> = all.into_iter().filter(wanted).collect();
    for test in TESTS {
        let of_test = || jobs.iter().filter(|job| job.test.name == test.name);
        let shares = |of: &mut dyn Iterator<Item = &Job>| of.map(Job::share).sum::<u64>();
        let shares = match shares(&mut of_test().filter(|job| job.spread())) {
            0 => shares(&mut of_test()),
            spread => spread,
        };
        for job in jobs.iter_mut().filter(|job| job.test.name == test.name) {
            let least = if job.apart() {
                runs / LEAST
            } else if job.spread() && job.relaxes() {
                runs / LEAST_RELAXED
            } else {
                0
            };
            job.runs = (runs * job.share()).div_ceil(shares).max(least).max(1);
        }
    }
    // Those of the same processes together, so that these are started once for them.
    jobs.sort_by_key(|job| (job.hosts(), job.placement.processes()));
    jobs.iter_mut().enumerate().for_each(|(number, job)| job.number = number);
    Ok(jobs)
}

fn variants(test: &'static Test) -> Vec<Job> {
    let (threads, _) = test.ops();
    let store = |op: &Op| matches!(op, Op::Store(..));
    let stores = threads.iter().flatten().any(store);
    let runs_of_stores = threads.iter().any(|ops| ops.windows(2).any(|pair| pair.iter().all(store)));
    let fits = |door: Door| match door {
        Door::Plain | Door::Accessor => true,
        Door::Atomic | Door::Swap => stores,
        // A hole is over whole words.
        Door::Hole => stores && test.grain == 1,
        Door::Batch => runs_of_stores && test.grain == 1,
    };
    let mut jobs = Vec::new();
    for placement in placements(test.threads.len()) {
        for (door, between, _) in STORES.iter().filter(|(door, ..)| fits(*door)) {
            jobs.push(Job { number: 0, test, door: *door, between: *between, placement, runs: 0 });
        }
    }
    jobs
}

impl Job {
    /// `TEST/VARIANT/HOSTS`.
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.test.name, self.variant(), self.placement())
    }

    /// Does `selection` name it, or what its name begins with?
    fn is(&self, selection: &str) -> bool {
        let (name, selection) = (self.name().to_ascii_lowercase(), selection.to_ascii_lowercase());
        name.strip_prefix(&selection).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// How stores are made, and what stands between the accesses.
    pub fn variant(&self) -> String {
        let door = match self.door {
            Door::Plain => "plain",
            Door::Accessor => "accessor",
            Door::Atomic => "atomic",
            Door::Swap => "swap",
            Door::Hole => "hole",
            Door::Batch => "batch",
        };
        let between = match self.between {
            Between::Nothing => "",
            Between::Fence => "+fence",
            Between::Locked => "+locked",
        };
        format!("{door}{between}")
    }

    /// The process of each thread: `0,1` or `0,0b`, or `alone:0,0b` where no other host is there.
    pub fn placement(&self) -> String {
        let alone = if self.placement.alone { "alone:" } else { "" };
        format!("{alone}{}", names(self.placement.threads))
    }

    /// The process of a thread.
    pub fn process(&self, thread: usize) -> Process {
        self.placement.threads[thread]
    }

    /// The processes that have to be there.
    pub fn cluster(&self) -> String {
        names(&self.placement.processes())
    }

    /// How many hosts they are on.
    fn hosts(&self) -> usize {
        self.placement.processes().last().map_or(0, |(host, _)| usize::from(*host) + 1)
    }

    /// Is every thread on a host of its own?
    pub fn apart(&self) -> bool {
        std::ptr::eq(self.placement, &raw const placements(self.placement.threads.len())[0])
    }

    /// Are its threads on several hosts?
    pub fn spread(&self) -> bool {
        self.placement.threads.iter().any(|(host, _)| *host != 0)
    }

    /// Are its stores seen later elsewhere than here, with nothing between them that waits?
    fn relaxes(&self) -> bool {
        matches!(self.door, Door::Plain | Door::Accessor | Door::Hole) && self.between == Between::Nothing
    }

    fn share(&self) -> u64 {
        let found = STORES.iter().find(|(door, between, _)| (*door, *between) == (self.door, self.between));
        let share = found.map_or(1, |(_, _, share)| *share);
        if self.apart() {
            share * 8
        } else if self.spread() {
            share * 2
        } else {
            share
        }
    }

    /// The test in this variant.
    pub fn program(&self) -> Program {
        let (threads, registers) = self.test.ops();
        let grain = self.test.grain;
        let mut cells = self.test.cells();
        let mut programs = Vec::new();
        for (ops, (host, _)) in threads.into_iter().zip(self.placement.threads) {
            let mut ops = self.stores(ops);
            if self.between != Between::Nothing {
                let own = Loc { start: cells, len: grain };
                let op = match self.between {
                    Between::Locked => Op::Rmw(own, Function::Add, 1, None),
                    _ => Op::Fence,
                };
                if self.between == Between::Locked && ops.len() > 1 {
                    cells += grain;
                }
                ops = ops.into_iter().flat_map(|access| [op.clone(), access]).skip(1).collect();
            }
            programs.push(Thread { host: *host, ops });
        }
        Program { threads: programs, registers, finals: self.test.finals.to_vec(), grain, cells }
    }

    /// With the stores made as this variant makes them.
    fn stores(&self, ops: Vec<Op>) -> Vec<Op> {
        let mut made: Vec<Op> = Vec::new();
        for op in ops {
            match (op, self.door, made.last_mut()) {
                (Op::Store(at, value), Door::Atomic | Door::Swap, _) => {
                    made.push(Op::Rmw(at, Function::Swap, value, None));
                }
                (Op::Store(at, value), Door::Batch, Some(Op::Fill(stores))) => {
                    // The later of two stores to the same place is what the hole comes to.
                    stores.retain(|(other, _)| *other != at);
                    stores.push((at, value));
                }
                (Op::Store(at, value), Door::Hole | Door::Batch, _) => made.push(Op::Fill(vec![(at, value)])),
                (op, ..) => made.push(op),
            }
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::super::side::THREADS;
    use super::*;

    #[test]
    fn every_test_gets_its_runs_in_all_its_variants() {
        let jobs = plan(&[], 100_000).unwrap();
        for test in TESTS {
            let of_test = || jobs.iter().filter(|job| job.test.name == test.name);
            let spread = of_test().filter(|job| job.spread());
            assert!(spread.map(|job| job.runs).sum::<u64>() >= 100_000, "{}", test.name);
            let variants: std::collections::BTreeSet<_> = of_test().map(Job::variant).collect();
            let stores = test.grain == 1 && test.name != "CAS";
            for name in ["plain", "accessor", "plain+fence", "plain+locked", "accessor+fence", "accessor+locked"] {
                assert!(variants.contains(name), "{} lacks {name}", test.name);
            }
            assert!(of_test().all(|job| !job.apart() || job.runs >= 2_500), "{}", test.name);
            for name in ["atomic", "swap", "hole", "hole+fence", "hole+locked"] {
                assert!(!stores || variants.contains(name), "{} lacks {name}", test.name);
            }
            assert!(of_test().any(|job| !job.apart()) && of_test().any(Job::apart), "{}", test.name);
            assert!(of_test().any(|job| !job.spread()), "{}", test.name);
        }
        let alone = plan(&["SB/plain/0,0b".into(), "SB/plain/alone:0,0b".into()], 1000).unwrap();
        assert_eq!(alone.iter().map(|job| job.runs).collect::<Vec<_>>(), [500, 500]);
        assert!(jobs.iter().all(|job| job.placement.processes()[0] == A && job.placement.processes().len() <= THREADS));
        let mut clusters: Vec<_> = jobs.iter().map(Job::cluster).collect();
        clusters.dedup();
        let several = clusters.len();
        clusters.sort();
        clusters.dedup();
        assert_eq!(clusters.len(), several, "jobs of the same processes follow each other");
    }

    #[test]
    fn tests_are_selected_by_what_their_names_begin_with() {
        let names = |selected: &str| -> Vec<String> {
            plan(&[selected.to_owned()], 1000).unwrap().iter().map(Job::name).collect()
        };
        let placements = ["SB/plain/alone:0,0b", "SB/plain/0,0b", "SB/plain/0,1", "SB/plain/0,0"];
        assert_eq!(names("SB/Plain"), placements);
        assert_eq!(names("sb/plain+fence/0,1"), ["SB/plain+fence/0,1"]);
        assert!(names("SB").iter().all(|name| name.starts_with("SB/")), "not SB+rfi");
        assert_eq!(plan(&["SB".into(), "SB/no".into()], 1000).unwrap_err(), "SB/no");
    }

    #[test]
    fn stores_are_made_as_the_variant_says() {
        let ops = |name: &str| plan(&[name.to_owned()], 1).unwrap()[0].program().threads[0].ops.clone();
        let (x, y) = (Loc::cell(0), Loc::cell(1));
        assert_eq!(ops("MP/plain"), [Op::Store(x, 1), Op::Store(y, 1)]);
        assert_eq!(ops("MP/hole"), [Op::Fill(vec![(x, 1)]), Op::Fill(vec![(y, 1)])]);
        assert_eq!(ops("MP/batch"), [Op::Fill(vec![(x, 1), (y, 1)])]);
        assert_eq!(ops("CoWW/batch"), [Op::Fill(vec![(x, 2)])]);
        assert_eq!(ops("MP/plain+fence"), [Op::Store(x, 1), Op::Fence, Op::Store(y, 1)]);
        let locked = Op::Rmw(Loc::cell(2), Function::Add, 1, None);
        assert_eq!(ops("MP/plain+locked"), [Op::Store(x, 1), locked, Op::Store(y, 1)]);
        assert_eq!(ops("SB/atomic")[0], Op::Rmw(x, Function::Swap, 1, None));
    }
}
