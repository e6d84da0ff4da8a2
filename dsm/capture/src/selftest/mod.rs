//! A differential test: random instructions that write memory, run by the processor on ordinary memory and captured on
//! a region, from the same registers. Whatever a program could observe must be equal.
//!
//! It covers every instruction that iced knows, that writes memory, and that the processor has. The region is one of
//! two kinds. [`run`] has one of its own, and tells the engine directly of its faults. [`Ready::run_on`] takes a [`Stage`]
//! from outside, whose region is captured by somebody else's handler; what arrives elsewhere is then compared, too.
//!
//! Every case has a number. Its instruction and registers come from the seed and the number alone, and what it finds
//! in memory from the cases before it in its batch, which a repetition runs natively.

mod arena;
mod batch;
mod compare;
mod generate;
mod ground;
mod report;
mod rng;
mod runner;
mod universe;

pub use report::{Coverage, Form, Report};
pub use runner::capturing;

use crate::plan::{self, Action, Writes};
use crate::processor::Processor;
use arena::Arena;
use batch::{Captured, Test};
use ground::Ground;
use iced_x86::{Code, Instruction};
use rng::Rng;
use runner::Handlers;
use std::io;
use std::sync::Mutex;

/// A region on which instructions are captured by somebody else's handler of SIGSEGV, which was installed after
/// [`prepare`] and hands on what it does not carry out.
pub trait Stage {
    /// Where the region lies, and its length: whole pages, at least three, with nothing mapped next to them. It can be
    /// read, and stores to it are captured.
    fn region(&self) -> (usize, usize);

    /// Puts bytes into the region, as a program would.
    ///
    /// # Errors
    /// What keeps the test from going on.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()>;

    /// Some instructions have been captured, and the region holds `expected`. Is that so elsewhere? If not: what is
    /// there instead, as text.
    ///
    /// # Errors
    /// What keeps the test from going on.
    fn settle(&mut self, expected: &[u8]) -> io::Result<Option<String>>;
}

/// Which cases are run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What the random numbers start from.
    pub seed: u64,
    /// The number of the first case.
    pub first: u64,
    /// How many.
    pub cases: u64,
}

impl Options {
    /// The first `cases` of a seed.
    pub fn new(seed: u64, cases: u64) -> Self {
        Self { seed, first: 0, cases }
    }

    /// One case alone.
    pub fn only(seed: u64, case: u64) -> Self {
        Self { seed, first: case, cases: 1 }
    }
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const MOST_FAILURES: usize = 20;

/// Compares random instructions on a region of the test's own. Takes the process's handlers of SIGSEGV, SIGTRAP,
/// SIGILL, SIGBUS and SIGFPE for its time; other threads must not need them.
///
/// # Errors
/// When memory or handlers cannot be had.
pub fn run(options: Options) -> io::Result<Report> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    crate::warm();
    let handlers = Handlers::install()?;
    let report = own_region(options);
    drop(handlers);
    report
}

fn own_region(options: Options) -> io::Result<Report> {
    let processor = Processor::detect();
    let mut arenas = [Arena::new(true)?, Arena::new(false)?];
    let mut grounds = [arenas[0].ground(&processor)?, arenas[1].ground(&processor)?];
    let candidates = explore(&mut arenas, &mut grounds, processor)?;
    let mut test = Test::new(processor, options.seed, &candidates);
    test.run_all(options, |test, batch, cases| {
        let kind = (batch % 2) as usize;
        test.batch(&mut grounds[kind], Captured::Here(&mut arenas[kind]), batch, cases)
    })?;
    Ok(test.report(&candidates, true))
}

/// Installs the test's handlers for good. Call it before the handler is installed that captures on a [`Stage`].
///
/// # Errors
/// When they cannot be had.
pub fn prepare() -> io::Result<Ready> {
    crate::warm();
    Handlers::install()?.keep();
    Ok(Ready(()))
}

/// The test's handlers are in place: see [`prepare`].
#[derive(Debug)]
pub struct Ready(());

impl Ready {
    /// Compares random instructions on a region of somebody else's.
    ///
    /// # Errors
    /// When memory cannot be had, and what the stage says.
    pub fn run_on(&self, stage: &mut dyn Stage, options: Options) -> io::Result<Report> {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let processor = Processor::detect();
        // What this processor has, and what the engine refuses (which would end the process), is found out before.
        let mut arenas = [Arena::new(true)?, Arena::new(false)?];
        let mut grounds = [arenas[0].ground(&processor)?, arenas[1].ground(&processor)?];
        let candidates = explore(&mut arenas, &mut grounds, processor)?;
        drop(grounds);
        let region = stage.region();
        let mut ground = Ground::new(region, 0, ground::code_near(region.0)?, false, &processor)?;
        let mut test = Test::new(processor, options.seed, &candidates);
        test.run_all(options, |test, batch, cases| test.batch(&mut ground, Captured::There(stage), batch, cases))?;
        Ok(test.report(&candidates, ground.low))
    }
}

/// A form of instruction, and what was found out about it before.
struct Candidate {
    code: Code,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It can be compared.
    Open,
    Illegal,
    Refused(&'static str),
    /// No draw of it could be run.
    Vain,
}

/// Every form that writes memory, tried out.
fn explore(arenas: &mut [Arena; 2], grounds: &mut [Ground; 2], processor: Processor) -> io::Result<Vec<Candidate>> {
    let mut rng = Rng::new(0);
    let mut test = Test::new(processor, 0, &[]);
    let writes = Writes::new();
    let mut verdict = |code: Code, instruction: &Instruction| match plan::plan(instruction, &writes).action {
        _ if code.op_code().is_privileged() => Ok(Verdict::Illegal),
        Action::Refused(reason) => Ok(Verdict::Refused(reason)),
        _ => test.try_out(code, arenas, grounds, &mut rng),
    };
    let candidate = |(code, instruction)| Ok(Candidate { code, verdict: verdict(code, &instruction)? });
    universe::forms().into_iter().map(candidate).collect()
}
