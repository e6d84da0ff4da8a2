//! A differential test: random instructions that write memory, run by the processor on ordinary memory and by the
//! engine on a region, from the same registers. Whatever a program could observe must be equal.
//!
//! It covers every instruction that iced knows, that writes memory, and that the processor has.

mod arena;
mod compare;
mod generate;
mod rng;
mod runner;

use crate::processor::Processor;
use arena::{Arena, SIZE};
use generate::Case;
use iced_x86::{Code, Formatter, IntelFormatter, Mnemonic, Register};
use rng::Rng;
use runner::{Installed, Job};
use std::fmt;
use std::io;
use std::sync::Mutex;

/// How an instruction fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coverage {
    /// It was run natively and captured this many times, with equal results.
    Covered(u64),
    /// The processor does not have it, or does not let programs use it.
    NotHere,
    /// The engine refuses it, and says so.
    Refused(&'static str),
    /// The generator could not make one that both could run.
    Missed,
}

/// What a run found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The seed, to repeat the run with.
    pub seed: u64,
    /// Instructions that were compared.
    pub compared: u64,
    /// Of these, those that did trap. (One whose mask is empty, say, does not.)
    pub trapped: u64,
    /// Of these, faults that were handed on because the operand was not wholly in the region.
    pub genuine: u64,
    /// Every form of instruction that writes memory: its name, its syntax and how it fared.
    pub codes: Vec<(String, &'static str, Coverage)>,
    /// Differences, at most twenty, each with the instruction, the seed and all that differed.
    pub failures: Vec<String>,
}

impl Report {
    /// How many forms satisfy `condition`.
    pub fn count(&self, condition: impl Fn(&Coverage) -> bool) -> usize {
        self.codes.iter().filter(|(_, _, coverage)| condition(coverage)).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} instructions compared, {} trapped, {} handed on",
            self.seed, self.compared, self.trapped, self.genuine
        )?;
        writeln!(
            f,
            "forms that write memory: {} covered, {} not on this processor, {} refused, {} missed",
            self.count(|coverage| matches!(coverage, Coverage::Covered(_))),
            self.count(|coverage| *coverage == Coverage::NotHere),
            self.count(|coverage| matches!(coverage, Coverage::Refused(_))),
            self.count(|coverage| *coverage == Coverage::Missed),
        )?;
        for (name, syntax, coverage) in &self.codes {
            match coverage {
                Coverage::Refused(reason) => writeln!(f, "  refused: {syntax} ({reason})")?,
                Coverage::Missed => writeln!(f, "  missed: {syntax} [{name}]")?,
                Coverage::Covered(_) | Coverage::NotHere => {}
            }
        }
        self.failures.iter().try_for_each(|failure| writeln!(f, "{failure}"))
    }
}

/// One form of instruction under test.
struct Form {
    code: Code,
    compared: u64,
    /// Draws that could not be made or run natively; too many of them end the attempts.
    vain: u32,
    illegal: bool,
    refused: Option<&'static str>,
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const MOST_FAILURES: usize = 20;

/// Compares `cases` random instructions, spread over all forms. Takes the process's handlers of SIGSEGV, SIGTRAP,
/// SIGILL, SIGBUS and SIGFPE for its time; other threads must not need them.
///
/// # Errors
/// When memory or handlers cannot be had.
pub fn run(cases: u64, seed: u64) -> io::Result<Report> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    crate::warm();
    let processor = Processor::detect();
    let mut rng = Rng::new(seed);
    let arenas = [Arena::new(true, &processor)?, Arena::new(false, &processor)?];
    let mut forms: Vec<Form> = Code::values()
        .filter(|code| generate::harmless(*code) && is_candidate(*code, &arenas, &mut rng))
        .map(|code| Form { code, compared: 0, vain: 0, illegal: false, refused: None })
        .collect();
    let mut job = Job::new();
    let installed = Installed::new(&mut job)?;
    let sample = runner::sample(&mut job);
    let has_header = sample[464..468] == 0x4650_5853u32.to_le_bytes() && processor.xcr0 != 0;
    let mut test = Test { processor, arenas, job, sample, has_header, native: vec![0; SIZE], captured: vec![0; SIZE] };
    let mut report = Report { seed, compared: 0, trapped: 0, genuine: 0, codes: vec![], failures: vec![] };
    let mut draws = 0u64;
    while report.compared < cases && report.failures.len() < MOST_FAILURES {
        let before = draws;
        for form in forms.iter_mut().filter(|form| form.is_open()) {
            if report.compared >= cases {
                break;
            }
            draws += 1;
            test.step(form, &mut rng, draws, &mut report);
        }
        if draws == before {
            break;
        }
    }
    drop(installed);
    let coverage = |form: &Form| match form {
        Form { refused: Some(reason), .. } => Coverage::Refused(reason),
        Form { compared: 1.., .. } => Coverage::Covered(form.compared),
        Form { illegal: true, .. } => Coverage::NotHere,
        _ => Coverage::Missed,
    };
    let row = |form: &Form| (format!("{:?}", form.code), form.code.op_code().instruction_string(), coverage(form));
    report.codes = forms.iter().map(row).collect();
    Ok(report)
}

/// Can one be made that writes memory?
fn is_candidate(code: Code, arenas: &[Arena; 2], rng: &mut Rng) -> bool {
    (0..40).any(|draw| {
        let arena = &arenas[draw % 2];
        generate::generate(code, rng, arena, arena.end_of_code() - 64).is_some()
    })
}

impl Form {
    fn is_open(&self) -> bool {
        // What never worked is given up; what works is drawn again however often a draw is in vain.
        self.refused.is_none() && (self.compared > 0 || self.vain < 60)
    }
}

/// The outcome of one comparison.
enum Verdict {
    /// The processor itself would not run it.
    Vain,
    Refused(&'static str),
    Equal,
    Different(String),
}

struct Test {
    processor: Processor,
    arenas: [Arena; 2],
    job: Box<Job>,
    sample: Vec<u8>,
    has_header: bool,
    native: Vec<u8>,
    captured: Vec<u8>,
}

impl Test {
    /// Draws one instruction of a form, runs it twice, and compares.
    fn step(&mut self, form: &mut Form, rng: &mut Rng, draw: u64, report: &mut Report) {
        let arena = &mut self.arenas[rng.below(2) as usize];
        if draw % 256 < 2 {
            arena.refresh(rng);
        }
        let ip = arena.place_for_code(rng);
        let Some(case) = generate::generate(form.code, rng, arena, ip) else {
            form.vain += 1;
            return;
        };
        let start = &mut self.job.start;
        start.area.copy_from_slice(&self.sample);
        compare::randomize(&mut start.area, self.has_header, &self.processor, rng);
        if let Some(index) = case.index {
            compare::set_indices(&mut start.area, index, &self.processor, rng);
        }
        (start.registers, start.flags, start.rip) = (case.registers, case.flags, ip);
        arena.write_code(ip as usize, &case.bytes);
        let arena = arena_index(&self.arenas, ip);
        // A processor may at any time call a component used that is not, after an interrupt for example, and XSAVE
        // shows that. So those have three tries.
        let tries = if case.instruction.is_save_restore_instruction() { 3 } else { 1 };
        let mut verdict = Verdict::Vain;
        for _ in 0..tries {
            // Sometimes captured twice: the second time the site is known.
            verdict = self.attempt(&case, arena, if rng.one_in(4) { 2 } else { 1 });
            if !matches!(verdict, Verdict::Different(_)) {
                break;
            }
        }
        self.arenas[arena].write_code(ip as usize, &[0xcc; 16][..case.bytes.len()]);
        match verdict {
            Verdict::Vain => {
                form.vain += 1;
                form.illegal |= self.job.signal == libc::SIGILL || is_protected(form.code);
                return;
            }
            Verdict::Refused(reason) => {
                form.refused = Some(reason);
                return;
            }
            Verdict::Equal => {}
            Verdict::Different(difference) => {
                let text = describe(&case, ip, report.seed, draw);
                report.failures.push(format!("{text}\n{difference}"));
            }
        }
        form.compared += 1;
        report.compared += 1;
        report.trapped += u64::from(self.job.faults > 0);
        report.genuine += u64::from(self.job.genuine);
    }

    /// Runs the instruction natively, then captured, and compares.
    fn attempt(&mut self, case: &Case, index: usize, captures: u32) -> Verdict {
        let (arena, job) = (&self.arenas[index], &mut *self.job);
        arena.protect(true);
        arena.reset(case.poke);
        runner::run(job, arena);
        arena.contents(&mut self.native);
        if job.signal != 0 {
            return Verdict::Vain;
        }
        let native = job.end.clone();
        for _ in 0..captures {
            arena.protect(false);
            arena.reset(case.poke);
            runner::run(job, arena);
        }
        arena.contents(&mut self.captured);
        if let Some(refused) = &job.refused {
            return Verdict::Refused(refused.reason);
        }
        match self.judge(case, &native, index) {
            Some(difference) => Verdict::Different(difference),
            None => Verdict::Equal,
        }
    }

    /// What is wrong, if anything is.
    fn judge(&self, case: &Case, native: &runner::State, arena: usize) -> Option<String> {
        use fmt::Write;
        let (job, arena) = (&*self.job, &self.arenas[arena]);
        let (region, len) = arena.region();
        // The kernel carries these out itself, and reports where the operand begins, be it outside.
        if job.signal == libc::SIGSEGV && is_protected(case.instruction.code()) && case.target < region {
            return None;
        }
        if job.signal != 0 {
            return Some(format!("  captured, it ended with signal {} after {} faults\n", job.signal, job.faults));
        }
        let ignored = undefined_flags(case);
        let mut text = compare::differences(native, &job.end, ignored, self.has_header, &self.processor);
        let wrong = self.native.iter().zip(&self.captured).enumerate().filter(|(_, (left, right))| left != right);
        let wrong: Vec<_> = wrong.take(16).map(|(at, (left, right))| (arena.start() + at, left, right)).collect();
        if !wrong.is_empty() {
            let _ = writeln!(text, "  memory (address, natively, captured): {wrong:02x?}");
        }
        let stores = &job.stores[..job.count];
        if let Some(size) = one_store_of(case)
            && !job.genuine
            && job.faults > 0
            && !matches!(stores, [(_, stored)] if *stored == size)
        {
            let _ = writeln!(text, "  one store of {size} bytes was expected: {stores:x?}");
        }
        let inside = case.target >= region && case.target + 64 <= region + len;
        if job.genuine && inside && one_store_of(case).is_some_and(|size| size <= 64) {
            let _ = writeln!(text, "  it was handed on although its operand at {:#x} is in the region", case.target);
        }
        (!text.is_empty()).then_some(text)
    }
}

fn arena_index(arenas: &[Arena; 2], ip: u64) -> usize {
    usize::from(ip.abs_diff(arenas[0].end_of_code()) > ip.abs_diff(arenas[1].end_of_code()))
}

/// Instructions that a system may keep from programs by a general protection fault.
fn is_protected(code: Code) -> bool {
    use Mnemonic::{Insb, Insd, Insw, Sgdt, Sidt, Sldt, Smsw, Str};
    matches!(code.mnemonic(), Sgdt | Sidt | Sldt | Smsw | Str | Insb | Insw | Insd)
}

/// The flags that iced says are undefined after it, as bits of RFLAGS.
fn undefined_flags(case: &Case) -> u64 {
    use iced_x86::RflagsBits as R;
    let undefined = case.instruction.rflags_undefined();
    [(R::CF, 1), (R::PF, 4), (R::AF, 0x10), (R::ZF, 0x40), (R::SF, 0x80), (R::OF, 0x800)]
        .into_iter()
        .filter(|(bit, _)| undefined & bit != 0)
        .map(|(_, flag)| flag)
        .sum()
}

/// The size of the one store that the instruction makes, when it makes exactly one.
fn one_store_of(case: &Case) -> Option<usize> {
    use Mnemonic as M;
    let instruction = &case.instruction;
    let many = instruction.is_string_instruction()
        || instruction.op_mask() != Register::None
        || instruction.is_save_restore_instruction()
        || generate::writes_stack(instruction)
        || matches!(
            instruction.mnemonic(),
            M::Fnsave | M::Fnstenv | M::Fxsave | M::Fxsave64 | M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu
                | M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq | M::Clzero | M::Movdir64b
                // An unmasked x87 exception keeps these from storing.
                | M::Fst | M::Fstp | M::Fist | M::Fistp | M::Fisttp | M::Fbstp
        );
    let size = instruction.memory_size().size();
    (!many && size != 0).then_some(size)
}

fn describe(case: &Case, ip: u64, seed: u64, draw: u64) -> String {
    let mut text = String::new();
    IntelFormatter::new().format(&case.instruction, &mut text);
    let registers: Vec<String> =
        (0..16).map(|number| format!("{:?}={:#x}", generate::name(number), case.registers[number])).collect();
    format!(
        "{text}\n  {:?}, bytes {:02x?} at {ip:#x}, seed {seed}, draw {draw}, target {:#x}, flags {:#x}\n  {}",
        case.instruction.code(),
        case.bytes,
        case.target,
        case.flags,
        registers.join(" ")
    )
}
