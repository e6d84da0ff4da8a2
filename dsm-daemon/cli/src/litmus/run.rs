//! Running the tests: a process or two on every virtual host, a thread for each of the test's threads there, many
//! instances of a test in a round, kept close to each other.

use super::Args;
use super::check::{Checker, Class, Known, Where, Words, encode};
use super::program::{Function, Loc, Op, Program};
use super::random::Random;
use super::report::Report;
use super::settings::{Settings, Tuner, WORDS};
use super::side::{INSTANCES, Side, THREADS};
use super::variant::{Door, Job, Process};
use crate::bench::Reaped;
use crate::directory::Directory;
use crate::failure::{Failure, Result};
use dsm::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Tells a process of this executable which of the processes of a cluster it is, which these are, and where the run's
/// directory is: `number;cluster;directory`.
const WORKER: &str = "DSM_LITMUS_WORKER";
/// The longest that a process waits for the others.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a thread looks whether those that are behind have come, before it goes on without them.
const LOOKS: u32 = 220;
/// Looks before it gives the processor away.
const SPINS: u32 = 20;

/// One of the processes that do not lead.
#[derive(Debug)]
pub struct Worker {
    number: usize,
    cluster: String,
    dir: PathBuf,
}

impl Worker {
    /// Is this one?
    pub fn from_environment() -> Result<Option<Self>> {
        let Some(value) = std::env::var_os(WORKER) else { return Ok(None) };
        let parse = |text: &str| {
            let (number, rest) = text.split_once(';')?;
            let (cluster, dir) = rest.split_once(';')?;
            Some(Self { number: number.parse().ok()?, cluster: cluster.into(), dir: dir.into() })
        };
        let worker = value.to_str().and_then(parse);
        worker.map(Some).ok_or_else(|| Failure::usage(format!("{WORKER} is {value:?}, which makes no sense")))
    }

    /// Takes part in all tests of its cluster.
    pub fn run(&self, jobs: &[Job], args: &Args) -> Result<()> {
        let jobs: Vec<_> = jobs.iter().filter(|job| job.cluster() == self.cluster).collect();
        let processes = jobs.first().map(|job| job.placement.processes()).unwrap_or_default();
        if self.number >= processes.len() {
            return Err(Failure::usage(format!("{WORKER} names {:?}, which no test has", self.cluster)));
        }
        let session = Session::builder("litmus").join()?;
        let member = Member::new(&session, self.number, &processes, &self.dir, args)?;
        jobs.into_iter().try_for_each(|job| member.job(job, None))?;
        member.meet()
    }
}

/// Runs tests of the same processes; this one is the first of them.
pub fn cluster(jobs: &[Job], args: &Args, known: &mut Known, report: &mut Report) -> Result<()> {
    let Some(first) = jobs.first() else { return Ok(()) };
    let (cluster, processes) = (first.cluster(), first.placement.processes());
    let dir = Directory::make()?;
    let on = |host: u8| dir.host(usize::from(host));
    let session = Session::builder("litmus").runtime_dir(on(0)).join()?;
    let workers = processes.iter().enumerate().skip(1).map(|(number, (host, _))| {
        let mut command = Command::new("/proc/self/exe");
        command.arg("litmus").args(["--runs", &args.runs.to_string(), "--seed", &args.seed.to_string()]);
        command.args(args.skip_fences.then_some("--skip-fences")).args(&args.tests);
        command.env(WORKER, format!("{number};{cluster};{}", dir.path().display()));
        command.env("DSM_RUNTIME_DIR", on(*host)).env("DSM_DAEMON", session.daemon());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        child.map(Reaped).map_err(Failure::system("cannot start a process"))
    });
    let _workers = workers.collect::<Result<Vec<_>>>()?;
    let member = Member::new(&session, 0, &processes, dir.path(), args)?;
    let mut tuner = Tuner::new(Random::new(&[args.seed]));
    for job in jobs {
        let mut lead = Lead { checker: Checker::new(&job.program(), known), tuner: &mut tuner };
        member.job(job, Some(&mut lead))?;
        report.add(job, args.seed, &lead.checker.finish())?;
    }
    member.meet()
}

/// What is run between two barriers.
#[derive(Clone, Copy, Debug)]
struct Round {
    number: u64,
    instances: usize,
    settings: Settings,
}

impl Round {
    /// Where a machine word of an instance lies, in 64-bit words.
    fn place(&self, program: &Program, instance: usize, word: usize) -> usize {
        self.settings.place(instance, word, program.words(), self.instances)
    }

    /// How many words of the segment the instances reach.
    fn used(&self, program: &Program) -> usize {
        let last = (0..program.words()).map(|word| self.place(program, self.instances - 1, word)).max();
        last.map_or(0, |last| last + 1)
    }
}

/// What only the first process has.
struct Lead<'a> {
    checker: Checker,
    tuner: &'a mut Tuner,
}

/// This process's part.
struct Member<'s> {
    session: &'s Session,
    /// Its number among all.
    number: usize,
    process: Process,
    /// How many there are.
    processes: usize,
    seed: u64,
    skip_fences: bool,
    side: Side,
    barrier: dsm::Barrier<'s>,
    words: Slice<'s, u64>,
    /// Another segment, for tests that access halves of words.
    halves: Slice<'s, u32>,
}

impl<'s> Member<'s> {
    fn new(session: &'s Session, number: usize, all: &[Process], dir: &Path, args: &Args) -> Result<Self> {
        let words = session.array::<u64>("words", WORDS)?;
        let halves = session.array::<u32>("halves", 2 * WORDS)?;
        let barrier = session.barrier("round", all.len())?;
        let side = Side::open(&dir.join("side"))?;
        let Args { seed, skip_fences, .. } = *args;
        let (process, processes) = (all[number], all.len());
        let this = Self { session, number, process, processes, seed, skip_fences, side, barrier, words, halves };
        this.meet()?;
        Ok(this)
    }

    fn meet(&self) -> Result<()> {
        self.barrier.wait_timeout(PATIENCE)?;
        Ok(())
    }

    /// Runs all instances of a test.
    fn job(&self, job: &Job, mut lead: Option<&mut Lead<'_>>) -> Result<()> {
        let program = job.program();
        let (mut left, mut number) = (job.runs, 0);
        while left > 0 {
            let instances = left.min(INSTANCES as u64) as usize;
            self.round(job, &program, number, instances, lead.as_deref_mut())?;
            left -= instances as u64;
            number += 1;
        }
        Ok(())
    }

    /// Three barriers: all is zero everywhere behind the first, all that was stored is everywhere behind the second,
    /// all have said what they have behind the third. While the first process compares and clears, the others wait at the
    /// first one of the next round.
    fn round(
        &self,
        job: &Job,
        program: &Program,
        number: u64,
        instances: usize,
        lead: Option<&mut Lead<'_>>,
    ) -> Result<()> {
        if let Some(lead) = &lead {
            let settings = lead.tuner.settings();
            let settings = if job.door == Door::Batch { settings.near() } else { settings };
            let round = Round { number, instances, settings };
            self.side.set(round.settings.to_words());
            (0..THREADS).for_each(|thread| self.side.come(thread, 0));
            self.clear(program, &round)?;
        }
        self.meet()?;
        let round = Round { number, instances, settings: Settings::from_words(self.side.settings()) };
        std::thread::scope(|scope| {
            let here = (0..program.threads.len()).filter(|thread| job.process(*thread) == self.process);
            let running: Vec<_> = here
                .map(|number| scope.spawn(move || Runner { member: self, job, program, round, number }.run()))
                .collect();
            running
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        self.meet()?;
        for instance in 0..instances {
            for word in 0..program.words() {
                let from = self.base(program).wrapping_add(round.place(program, instance, word));
                // SAFETY: a mapped, aligned word of the segment; a volatile load of machine width.
                let found = unsafe { from.read_volatile() };
                self.side.last(self.number, instance, word).store(found, Ordering::Release);
            }
        }
        self.meet()?;
        if let Some(lead) = lead {
            let score = self.compare(program, &round, &mut lead.checker);
            lead.tuner.learn(score);
        }
        Ok(())
    }

    /// Makes all zero that the round uses, whatever the last one has left there.
    fn clear(&self, program: &Program, round: &Round) -> Result<()> {
        let used = round.used(program);
        if program.grain == 1 {
            self.words.range(..used).hole()?.fill_with(|| 0);
        } else {
            self.halves.range(..2 * used).hole()?.fill_with(|| 0);
        }
        Ok(())
    }

    /// Shows the checker what all have said. Returns how much there was to be seen: as many different outcomes as would
    /// have been seen were all equally frequent (the inverse of Simpson's index), and one more for a relaxed one.
    fn compare(&self, program: &Program, round: &Round, checker: &mut Checker) -> f64 {
        let mut last = [Words::default(); THREADS];
        let mut registers = Words::default();
        let (mut relaxed, mut counts) = (false, HashMap::<(Words, Words), u64>::new());
        for instance in 0..round.instances {
            for (number, register) in registers.iter_mut().enumerate().take(program.registers) {
                *register = self.side.register(instance, number).load(Ordering::Acquire);
            }
            for (process, last) in last.iter_mut().enumerate().take(self.processes) {
                for (word, value) in last.iter_mut().enumerate().take(program.words()) {
                    *value = self.side.last(process, instance, word).load(Ordering::Acquire);
                }
            }
            let at = Where { round: round.number, instance };
            let class = checker.observe(&registers[..program.registers], &last[..self.processes], at);
            relaxed |= class == Class::Relaxed;
            *counts.entry((registers, last[0])).or_default() += 1;
        }
        let squares: f64 = counts.values().map(|count| (*count as f64 / round.instances as f64).powi(2)).sum();
        1.0 / squares + if relaxed { 1.0 } else { 0.0 }
    }

    /// The segment that a test uses.
    fn base(&self, program: &Program) -> *mut u64 {
        if program.grain == 1 { self.words.as_ptr() } else { self.halves.as_ptr().cast() }
    }
}

/// One thread of a test in one round.
struct Runner<'a, 's> {
    member: &'a Member<'s>,
    job: &'a Job,
    program: &'a Program,
    round: Round,
    number: usize,
}

impl Runner<'_, '_> {
    fn run(&self) -> Result<()> {
        let Settings { skew, gap, .. } = self.round.settings;
        let seed = [self.member.seed, self.job.number as u64, self.round.number, self.number as u64];
        let mut random = Random::new(&seed);
        for instance in 0..self.round.instances {
            self.keep_pace(instance as u64 + 1);
            pause(random.below(skew[self.number] + 1));
            for op in &self.program.threads[self.number].ops {
                self.perform(instance, op)?;
                pause(random.below(gap + 1));
            }
        }
        // Nobody waits for this thread any more.
        self.member.side.come(self.number, u64::MAX);
        Ok(())
    }

    /// Waits a little for those that are behind.
    fn keep_pace(&self, step: u64) {
        let (side, window) = (&self.member.side, self.round.settings.window);
        side.come(self.number, step);
        let behind = |other| side.pace(other).saturating_add(window) < step;
        for look in 0..LOOKS {
            if !(0..self.program.threads.len()).any(behind) {
                break;
            }
            if look < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Number of the 64-bit word in which `at` lies.
    fn word(&self, instance: usize, at: Loc) -> usize {
        self.round.place(self.program, instance, usize::from(at.start / self.program.grain))
    }

    /// Number of the 32-bit word, where it is half of one.
    fn half(&self, instance: usize, at: Loc) -> Option<usize> {
        let half = at.len < self.program.grain;
        half.then(|| 2 * self.word(instance, at) + usize::from(at.start % self.program.grain))
    }

    fn perform(&self, instance: usize, op: &Op) -> Result<()> {
        let (member, grain) = (self.member, self.program.grain);
        let typed = matches!(self.job.door, Door::Accessor | Door::Swap);
        let base = member.base(self.program);
        let pointer = |at: Loc| base.wrapping_add(self.word(instance, at));
        let half_pointer = |half: usize| base.cast::<u32>().wrapping_add(half);
        let note = |register: &u8, value: u64| {
            member.side.register(instance, usize::from(*register)).store(value, Ordering::Release);
        };
        match op {
            Op::Load(at, register) => {
                let value = match self.half(instance, *at) {
                    // SAFETY: a mapped, aligned word; a volatile load of machine width.
                    Some(half) => u64::from(unsafe { half_pointer(half).read_volatile() }),
                    // SAFETY: as above.
                    None => unsafe { pointer(*at).read_volatile() },
                };
                note(register, value);
            }
            Op::Store(at, value) => {
                let value = encode(*value, at.len, grain);
                match self.half(instance, *at) {
                    Some(half) if typed => member.halves.set(half, value as u32),
                    // SAFETY: a mapped, aligned word of the view; the store traps and is carried out by the library.
                    Some(half) => unsafe { half_pointer(half).write_volatile(value as u32) },
                    None if typed && grain == 1 => member.words.set(self.word(instance, *at), value),
                    // SAFETY: as above.
                    None => unsafe { pointer(*at).write_volatile(value) },
                }
            }
            Op::Rmw(at, function, value, register) => {
                let value = encode(*value, at.len, grain);
                let expected = match function {
                    Function::CompareExchange(expected) => encode(*expected, at.len, grain),
                    _ => 0,
                };
                let found = match self.half(instance, *at) {
                    Some(half) if typed => {
                        let (word, value, expected) = (member.halves.atomic(half), value as u32, expected as u32);
                        u64::from(match function {
                            Function::Add => word.fetch_add(value, SeqCst),
                            Function::Swap => word.swap(value, SeqCst),
                            _ => word.compare_exchange(expected, value, SeqCst, SeqCst).unwrap_or_else(|found| found),
                        })
                    }
                    Some(half) => {
                        // SAFETY: a mapped, aligned word that lives as long as the session; others use atomics too.
                        let word = unsafe { AtomicU32::from_ptr(half_pointer(half)) };
                        let (value, expected) = (value as u32, expected as u32);
                        u64::from(match function {
                            Function::Add => word.fetch_add(value, Ordering::SeqCst),
                            Function::Swap => word.swap(value, Ordering::SeqCst),
                            _ => word
                                .compare_exchange(expected, value, Ordering::SeqCst, Ordering::SeqCst)
                                .unwrap_or_else(|found| found),
                        })
                    }
                    None if typed && grain == 1 => {
                        let word = member.words.atomic(self.word(instance, *at));
                        match function {
                            Function::Add => word.fetch_add(value, SeqCst),
                            Function::Swap => word.swap(value, SeqCst),
                            _ => word.compare_exchange(expected, value, SeqCst, SeqCst).unwrap_or_else(|found| found),
                        }
                    }
                    None => {
                        // SAFETY: as above.
                        let word = unsafe { AtomicU64::from_ptr(pointer(*at)) };
                        match function {
                            Function::Add => word.fetch_add(value, Ordering::SeqCst),
                            Function::Swap => word.swap(value, Ordering::SeqCst),
                            _ => word
                                .compare_exchange(expected, value, Ordering::SeqCst, Ordering::SeqCst)
                                .unwrap_or_else(|found| found),
                        }
                    }
                };
                if let Some(register) = register {
                    note(register, found);
                }
            }
            Op::Fence if member.skip_fences => {}
            Op::Fence => member.session.fence_timeout(PATIENCE)?,
            Op::Fill(stores) => self.fill(instance, stores)?,
        }
        Ok(())
    }

    fn fill(&self, instance: usize, stores: &[(Loc, u16)]) -> Result<()> {
        let words = || stores.iter().map(|(at, _)| self.word(instance, *at));
        let (first, last) = (words().min().unwrap_or(0), words().max().unwrap_or(0));
        let range = self.member.words.range(first..=last);
        let begun = Instant::now();
        let mut hole = loop {
            match range.hole() {
                Ok(hole) => break hole,
                // Another thread of this process is in a hole there.
                Err(dsm::Error::HolesOverlap { .. }) if begun.elapsed() < PATIENCE => std::thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        };
        for (at, value) in stores {
            hole[self.word(instance, *at) - first] = encode(*value, at.len, self.program.grain);
        }
        Ok(hole.fill()?)
    }
}

/// Turns of an empty loop.
fn pause(turns: u64) {
    for turn in 0..turns {
        std::hint::black_box(turn);
    }
}
