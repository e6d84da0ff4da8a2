//! Batches of cases: first all of them natively on private memory, then each one captured and compared.

use super::arena::Arena;
use super::compare::{self, Undecided};
use super::generate::{self, Case};
use super::ground::Ground;
use super::rng::Rng;
use super::runner::{self, End, Handlers, Job, Prepared, State};
use super::{Candidate, Coverage, Form, MOST_FAILURES, Options, Report, Stage, Verdict};
use crate::processor::Processor;
use iced_x86::{Code, Formatter, IntelFormatter, Mnemonic, Register};
use std::fmt::Write;
use std::io;
use std::ops::Range;

/// Cases in a batch.
const BATCH: u64 = 64;
/// Draws for one case before it is given up.
const DRAWS: u32 = 60;

/// With as many cases for each form, one that was never carried out is missing.
const ENOUGH: u64 = 100;

/// Where instructions are captured.
pub(super) enum Captured<'a> {
    /// On a region of our own, by our own handler.
    Here(&'a mut Arena),
    /// On somebody else's, by his.
    There(&'a mut dyn Stage),
}

impl Captured<'_> {
    fn stage(&mut self) -> &mut dyn Stage {
        match self {
            Self::Here(arena) => *arena,
            Self::There(stage) => *stage,
        }
    }

    fn arena(&self) -> Option<&Arena> {
        match self {
            Self::Here(arena) => Some(arena),
            Self::There(_) => None,
        }
    }

    fn write(&mut self, ground: &Ground, address: usize, bytes: &[u8]) -> io::Result<()> {
        if ground.in_region(address, bytes.len()) {
            return self.stage().write(address - ground.region().0, bytes);
        }
        ground.put(address, bytes);
        Ok(())
    }
}

/// A case, and what it did natively.
struct Expected {
    number: u64,
    form: usize,
    case: Case,
    ip: u64,
    start: State,
    end: State,
    ended: End,
    /// Offsets and new bytes of what it changed in memory.
    changes: Vec<(usize, Vec<u8>)>,
    /// What was there before.
    old: Vec<Vec<u8>>,
    /// It is captured twice: the second time its site is known.
    twice: bool,
}

/// A test under way.
pub(super) struct Test {
    processor: Processor,
    job: Box<Job>,
    sample: Vec<u8>,
    has_header: bool,
    open: Vec<Code>,
    compared: Vec<u64>,
    cases: u64,
    scratch: Vec<u8>,
    /// After the last case memory may be other than expected, and rightly so.
    stale: bool,
    report: Report,
}

impl Test {
    pub(super) fn new(processor: Processor, seed: u64, candidates: &[Candidate]) -> Self {
        let sample = runner::sample();
        let has_header = sample[464..468] == 0x4650_5853u32.to_le_bytes() && processor.xcr0 != 0;
        let open: Vec<Code> =
            candidates.iter().filter(|one| one.verdict == Verdict::Open).map(|one| one.code).collect();
        Self {
            processor,
            job: Job::new(Some(sample.len())),
            sample,
            has_header,
            compared: vec![0; open.len()],
            cases: 0,
            open,
            scratch: vec![],
            stale: false,
            report: Report { seed, ..Report::default() },
        }
    }

    /// Calls `batch` for every batch that has some of the wanted cases.
    pub(super) fn run_all(
        &mut self,
        options: Options,
        mut batch: impl FnMut(&mut Self, u64, Range<u64>) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = options.first.saturating_add(options.cases);
        let mut at = options.first;
        self.cases = options.cases;
        while at < end && self.report.failures.len() < MOST_FAILURES {
            let next = (at - at % BATCH).saturating_add(BATCH).min(end);
            batch(self, at / BATCH, at..next)?;
            at = next;
        }
        Ok(())
    }

    /// `low`: 32 bits reached the memory.
    pub(super) fn report(self, candidates: &[Candidate], low: bool) -> Report {
        let mut report = self.report;
        let few = self.cases < ENOUGH * self.open.len() as u64;
        let mut compared = self.compared.iter();
        let coverage = |one: &Candidate, compared: &mut std::slice::Iter<'_, u64>| match one.verdict {
            Verdict::Open => match compared.next() {
                Some(count @ 1..) => Coverage::Covered(*count),
                _ if !low && generate::is_short(one.code) => Coverage::OutOfReach,
                _ if few => Coverage::NotDrawn,
                _ => Coverage::Missed,
            },
            Verdict::Illegal => Coverage::NotHere,
            Verdict::Refused(reason) => Coverage::Refused(reason),
            Verdict::Vain => Coverage::Missed,
        };
        report.forms = candidates.iter().map(|one| Form::new(one.code, coverage(one, &mut compared))).collect();
        report
    }

    /// Runs the `wanted` cases of a batch, and natively those before them.
    pub(super) fn batch(
        &mut self,
        ground: &mut Ground,
        mut captured: Captured<'_>,
        number: u64,
        wanted: Range<u64>,
    ) -> io::Result<()> {
        let mut rng = Rng::new(mix(self.report.seed, u64::MAX - number));
        ground.refresh(&mut rng);
        ground.draw_gs(&mut rng);
        let (gs_base, before) = (ground.gs_base, ground.image.clone());
        ground.show(true)?;
        ground.restore();
        // Whoever captures must not do so now, be it next to the region.
        let handlers = Handlers::install()?;
        let prepared = Prepared::new(gs_base)?;
        let expected: Vec<Expected> =
            (number * BATCH..wanted.end).filter_map(|case| self.expect(ground, case)).collect();
        drop((prepared, handlers));
        self.report.vain += wanted.end - number * BATCH - expected.len() as u64;
        ground.show(false)?;
        // What the cases that are not wanted did is done without them.
        ground.image = before;
        let (skipped, expected): (Vec<_>, Vec<_>) = expected.into_iter().partition(|one| one.number < wanted.start);
        skipped.iter().for_each(|one| apply(&mut ground.image, one));
        self.put_all(ground, &mut captured)?;
        let before = ground.image.clone();
        let prepared = Prepared::new(gs_base)?;
        for one in &expected {
            let difference = self.capture(ground, &mut captured, one)?;
            apply(&mut ground.image, one);
            if let Some(difference) = &difference {
                self.fail(ground, one, difference);
            }
            // Then memory is not, or need not be, what it should be.
            self.stale |= difference.is_some();
            self.refresh(ground, &mut captured)?;
        }
        drop(prepared);
        self.report.settled += 1;
        if let Some(difference) = settle(ground, &mut captured)? {
            ground.image = before;
            self.find(ground, &mut captured, &expected, &difference)?;
        }
        Ok(())
    }

    /// Makes the memory what it should be, if it may be something else.
    fn refresh(&mut self, ground: &mut Ground, captured: &mut Captured<'_>) -> io::Result<()> {
        if std::mem::take(&mut self.stale) { self.put_all(ground, captured) } else { Ok(()) }
    }

    /// Makes region and margins hold the image.
    fn put_all(&mut self, ground: &mut Ground, captured: &mut Captured<'_>) -> io::Result<()> {
        ground.restore();
        let (region, len) = ground.region();
        let at = region - ground.start();
        captured.stage().write(0, &ground.image[at..at + len])
    }

    /// Something else arrived elsewhere: finds the case, by settling after each one.
    fn find(
        &mut self,
        ground: &mut Ground,
        captured: &mut Captured<'_>,
        expected: &[Expected],
        difference: &str,
    ) -> io::Result<()> {
        self.put_all(ground, captured)?;
        for one in expected {
            let prepared = Prepared::new(ground.gs_base)?;
            self.capture(ground, captured, one)?;
            drop(prepared);
            apply(&mut ground.image, one);
            self.refresh(ground, captured)?;
            if let Some(difference) = settle(ground, captured)? {
                self.fail(ground, one, &difference);
                return self.put_all(ground, captured);
            }
        }
        let first = expected.first().map_or(0, |one| one.number);
        self.report.failures.push(format!("elsewhere, after the batch of case {first}, and not again: {difference}"));
        self.put_all(ground, captured)
    }

    /// Draws a case and runs it natively, as often as it takes.
    fn expect(&mut self, ground: &mut Ground, number: u64) -> Option<Expected> {
        let mut rng = Rng::new(mix(self.report.seed, number));
        let form = (rng.below(self.open.len().max(1) as u64)) as usize;
        let code = *self.open.get(form)?;
        (0..DRAWS).find_map(|draw| {
            let mut expected = self.draw(ground, code, &mut rng)?;
            // Signals are compared, too, but not always.
            let signal = self.job.ended.signal;
            if signal == libc::SIGILL || signal != 0 && (draw % 8 != 0 || may_fault_in_vain(&expected.case)) {
                ground.restore();
                return None;
            }
            apply(&mut ground.image, &expected);
            (expected.number, expected.form) = (number, form);
            Some(expected)
        })
    }

    /// Draws a case of a form, and runs it natively.
    fn draw(&mut self, ground: &mut Ground, code: Code, rng: &mut Rng) -> Option<Expected> {
        let ip = ground.place_for_code(rng);
        let case = generate::generate(code, rng, ground, ip)?;
        let mut start = State { registers: case.registers, rip: ip, flags: case.flags, area: self.sample.clone() };
        compare::randomize(&mut start.area, self.has_header, &self.processor, rng);
        if let Some(indices) = &case.indices {
            compare::set_indices(&mut start.area, indices, &self.processor, rng);
        }
        if let Some((address, word)) = poked(ground, &case) {
            ground.put(address, &word);
        }
        self.start(ground, &case, &start, None);
        self.scratch.resize(ground.image.len(), 0);
        ground.contents(&mut self.scratch);
        let changes = changed(&ground.image, &self.scratch);
        let old = changes.iter().map(|(at, bytes)| ground.image[*at..*at + bytes.len()].to_vec()).collect();
        let twice = rng.one_in(4);
        let (end, ended) = (self.job.end.clone(), self.job.ended);
        Some(Expected { number: 0, form: 0, case, ip, start, end, ended, changes, old, twice })
    }

    /// Runs a case from its start.
    fn start(&mut self, ground: &Ground, case: &Case, start: &State, arena: Option<&Arena>) {
        ground.write_code(start.rip as usize, &case.bytes);
        self.job.start.clone_from(start);
        runner::run(&mut self.job, arena);
        ground.write_code(start.rip as usize, &[0xcc; 16][..case.bytes.len()]);
    }

    /// Runs a case captured. What is wrong, if anything is.
    fn capture(&mut self, ground: &Ground, captured: &mut Captured<'_>, one: &Expected) -> io::Result<Option<String>> {
        let poked = poked(ground, &one.case);
        if let Some((address, word)) = &poked {
            captured.write(ground, *address, word)?;
        }
        if one.twice {
            self.start(ground, &one.case, &one.start, captured.arena());
            for (at, bytes) in &one.changes {
                captured.write_parts(ground, *at, &ground.image[*at..*at + bytes.len()])?;
            }
            if let Some((address, word)) = &poked {
                captured.write(ground, *address, word)?;
            }
            if let Some(arena) = captured.arena() {
                arena.protect(false);
            }
        }
        self.start(ground, &one.case, &one.start, captured.arena());
        if let Some(arena) = captured.arena() {
            arena.protect(false);
        }
        self.stale = one.ended.signal != 0 || self.job.ended.signal != 0;
        let difference = self.judge(ground, one, captured.arena().is_some());
        self.report.compared += 1;
        self.report.faulted += u64::from(one.ended.signal != 0);
        self.report.trapped += u64::from(self.job.faults > 0);
        self.report.genuine += u64::from(self.job.genuine);
        if one.ended.signal == 0 {
            self.compared[one.form] += 1;
        }
        Ok(difference)
    }

    /// What is wrong, if anything is.
    fn judge(&mut self, ground: &Ground, one: &Expected, here: bool) -> Option<String> {
        let (region, len) = ground.region();
        let case = &one.case;
        let mut text = String::new();
        if let Some(refused) = &self.job.refused {
            return Some(format!("  it was refused: {}\n", refused.reason));
        }
        // The kernel carries these out itself, and reports where the operand begins, be it outside.
        let emulated = is_protected(case.instruction.code()) && case.target < region;
        if self.job.ended.signal == libc::SIGSEGV && emulated {
            return None;
        }
        let (native, captured) = (one.ended, self.job.ended);
        if native != captured && (here || !astride(native, captured, ground, case)) {
            let _ = writeln!(text, "  natively {native:?}, captured {captured:?}, after {} faults", self.job.faults);
        }
        let ignored = undefined_flags(case);
        text += &compare::differences(&one.end, &self.job.end, ignored, self.has_header, &self.processor);
        self.scratch.resize(ground.image.len(), 0);
        ground.contents(&mut self.scratch);
        let mut expected = ground.image.clone();
        apply(&mut expected, one);
        if let Some(compact) = saves(case) {
            let at = case.target.wrapping_sub(ground.start());
            let undecided = Undecided::new(&one.start, compact, self.has_header, &self.processor);
            if let (Some(before), Some(native), Some(captured)) =
                (ground.image.get(at..), expected.get(at..), self.scratch.get_mut(at..))
                && native.len() >= 576
            {
                let woken = compare::woken_by_signal(native, captured);
                let undecided = undecided.settle(before, native, captured);
                self.report.woken += u64::from(undecided && woken);
                self.report.undecided += u64::from(undecided && !woken);
                self.stale |= undecided;
            }
        }
        let mut wrong = changed(&expected, &self.scratch);
        // What of such an instruction is done before its fault is the processor's own affair.
        let partial = native.signal != 0 && (saves(case).is_some() || is_protected(case.instruction.code()));
        if native.signal != 0 && stores_in_parts(case) {
            // The same, and what is not done leaves the old bytes.
            let undone = |(at, bytes): &(usize, Vec<u8>)| bytes[..] == ground.image[*at..*at + bytes.len()];
            wrong.retain(|change| !undone(change));
        }
        if !wrong.is_empty() && !partial {
            for (at, bytes) in wrong.iter().take(16) {
                let natively = &expected[*at..*at + bytes.len()];
                let _ = writeln!(text, "  memory at {:#x}: natively {natively:02x?}", ground.start() + at);
                let _ = writeln!(text, "      captured {bytes:02x?}");
            }
        }
        let stores = &self.job.stores[..self.job.count];
        if let Some(size) = one_store_of(case)
            && here
            && !self.job.genuine
            && self.job.faults > 0
            && native.signal == 0
            && !matches!(stores, [(_, stored)] if *stored == size)
        {
            let _ = writeln!(text, "  one store of {size} bytes was expected: {stores:x?}");
        }
        let inside = case.target >= region && case.target + 64 <= region + len;
        if self.job.genuine && inside && one_store_of(case).is_some_and(|size| size <= 64) {
            let _ = writeln!(text, "  it was handed on although its operand at {:#x} is in the region", case.target);
        }
        (!text.is_empty()).then_some(text)
    }

    fn fail(&mut self, ground: &Ground, one: &Expected, difference: &str) {
        if self.report.failures.len() < MOST_FAILURES {
            let text = self.describe(ground, one);
            self.report.failures.push(format!("{text}{difference}"));
        }
    }

    /// The case with its whole state. The image is as it is after the case.
    fn describe(&self, ground: &Ground, one: &Expected) -> String {
        let case = &one.case;
        let mut text = String::new();
        IntelFormatter::new().format(&case.instruction, &mut text);
        let _ = writeln!(text, "\n  case {} of seed {}: {:?}", one.number, self.report.seed, case.instruction.code());
        let _ = writeln!(text, "  bytes {:02x?} at {:#x}, operand at {:#x}", case.bytes, one.ip, case.target);
        let base = |gs| self.processor.segment_base(gs);
        let _ = writeln!(text, "  flags {:#x}, FS {:#x}, GS {:#x}", case.flags, base(false), ground.gs_base);
        let registers: Vec<String> =
            (0..16).map(|number| format!("{:?}={:#x}", generate::name(number), case.registers[number])).collect();
        let _ = writeln!(text, "  {}", registers.join(" "));
        text += &compare::shown(&one.start, self.has_header, &self.processor);
        if let Some((address, word)) = case.poke {
            let _ = writeln!(text, "  {word:#x} at {address:#x}");
        }
        let mut before = ground.image.clone();
        for ((at, _), old) in one.changes.iter().zip(&one.old) {
            before[*at..*at + old.len()].copy_from_slice(old);
        }
        for (what, from, len) in places(case) {
            let at = from.saturating_sub(ground.start());
            if let Some(bytes) = before.get(at..before.len().min(at + len)).filter(|bytes| !bytes.is_empty()) {
                let _ = writeln!(text, "  before it, memory at {what} ({:#x}) has {bytes:02x?}", ground.start() + at);
            }
        }
        for ((at, bytes), old) in one.changes.iter().zip(&one.old) {
            let _ =
                writeln!(text, "  it makes of memory at {:#x} {bytes:02x?}, which was {old:02x?}", ground.start() + at);
        }
        text
    }

    /// Finds out whether a form can be compared.
    pub(super) fn try_out(
        &mut self,
        code: Code,
        arenas: &mut [Arena; 2],
        grounds: &mut [Ground; 2],
        rng: &mut Rng,
    ) -> io::Result<Verdict> {
        let mut illegal = false;
        self.compared.resize(1, 0);
        for draw in 0..DRAWS as usize {
            let (arena, ground) = (&mut arenas[draw % 2], &mut grounds[draw % 2]);
            ground.show(true)?;
            let prepared = Prepared::new(ground.gs_base)?;
            let drawn = self.draw(ground, code, rng);
            ground.restore();
            ground.show(false)?;
            let Some(one) = drawn else { continue };
            if one.ended.signal != 0 {
                illegal |= one.ended.signal == libc::SIGILL || is_protected(code);
                continue;
            }
            let mut captured = Captured::Here(arena);
            self.put_all(ground, &mut captured)?;
            self.capture(ground, &mut captured, &one)?;
            drop(prepared);
            self.put_all(ground, &mut captured)?;
            if let Some(refused) = &self.job.refused {
                return Ok(Verdict::Refused(refused.reason));
            }
            if self.job.faults > 0 {
                return Ok(Verdict::Open);
            }
            // It ran and wrote nothing: where a processor lacks some, they do nothing.
            illegal |= one.changes.is_empty();
        }
        Ok(if illegal { Verdict::Illegal } else { Verdict::Vain })
    }
}

impl Captured<'_> {
    /// Bytes that may lie on both sides of the region's ends; `at` counts from the start of the image.
    fn write_parts(&mut self, ground: &Ground, at: usize, bytes: &[u8]) -> io::Result<()> {
        let (region, len) = ground.region();
        let (first, last) = (region - ground.start(), region - ground.start() + len);
        let mut from = 0;
        while from < bytes.len() {
            let here = at + from;
            let limit = [first, last].into_iter().find(|limit| *limit > here).unwrap_or(usize::MAX);
            let to = bytes.len().min(from + (limit - here));
            self.write(ground, ground.start() + here, &bytes[from..to])?;
            from = to;
        }
        Ok(())
    }
}

fn settle(ground: &Ground, captured: &mut Captured<'_>) -> io::Result<Option<String>> {
    let (region, len) = ground.region();
    let at = region - ground.start();
    captured.stage().settle(&ground.image[at..at + len])
}

/// Is the one fault natively outside of the region, and captured the other inside of it? On somebody else's region the
/// processor reports a store to it first, and whoever captures hands that on when the rest of the instruction faults: an
/// operand that is partly elsewhere, or the target of a call.
fn astride(native: End, captured: End, ground: &Ground, case: &Case) -> bool {
    let (region, len) = ground.region();
    let inside = |address: usize| address.wrapping_sub(region) < len;
    let target = native.code == SI_KERNEL && case.instruction.mnemonic() == Mnemonic::Call;
    captured.signal == libc::SIGSEGV
        && native.signal == captured.signal
        && captured.code == SEGV_ACCERR
        && inside(captured.address)
        && (target || native.code != SI_KERNEL && !inside(native.address))
}

/// A general protection fault, which has no address.
const SI_KERNEL: i32 = 128;
/// Where an instruction may read, or not write all: a name, an address, and how many bytes.
fn places(case: &Case) -> Vec<(&'static str, usize, usize)> {
    // More than that are told by what it makes of them.
    const MOST: usize = 128;
    let instruction = &case.instruction;
    let mut places = vec![("its operand", case.target, instruction.memory_size().size().clamp(8, MOST))];
    // A string may go down.
    let mut around = |name, register: usize| {
        places.push((name, (case.registers[register] as usize).saturating_sub(MOST / 2), MOST));
    };
    if instruction.is_string_instruction() {
        around("RSI - 64", 6);
        around("RDI - 64", 7);
    }
    if instruction.is_stack_instruction() {
        around("RSP - 64", 4);
    }
    places
}

/// Memory that is there, but not for this access.
const SEGV_ACCERR: i32 = 2;

/// A number for the random numbers of one thing.
fn mix(seed: u64, number: u64) -> u64 {
    Rng::new(seed ^ Rng::new(number).next()).next()
}

/// The word that a case needs in memory.
fn poked(ground: &Ground, case: &Case) -> Option<(usize, [u8; 8])> {
    case.poke.filter(|(address, _)| ground.in_region(*address, 8)).map(|(address, word)| (address, word.to_le_bytes()))
}

fn apply(image: &mut [u8], one: &Expected) {
    for (at, bytes) in &one.changes {
        image[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Offsets and new bytes of what differs.
fn changed(old: &[u8], new: &[u8]) -> Vec<(usize, Vec<u8>)> {
    const PIECE: usize = 64;
    let mut changes: Vec<(usize, Vec<u8>)> = vec![];
    for (piece, (left, right)) in old.chunks(PIECE).zip(new.chunks(PIECE)).enumerate().filter(|(_, (a, b))| a != b) {
        for (at, byte) in (piece * PIECE..).zip(right).filter(|(at, byte)| left[at % PIECE] != **byte) {
            match changes.last_mut() {
                Some((start, bytes)) if *start + bytes.len() == at => bytes.push(*byte),
                _ => changes.push((at, vec![*byte])),
            }
        }
    }
    changes
}

/// Instructions that a system may keep from programs by a general protection fault.
fn is_protected(code: Code) -> bool {
    use Mnemonic::{Insb, Insd, Insw, Sgdt, Sidt, Sldt, Smsw, Str};
    matches!(code.mnemonic(), Sgdt | Sidt | Sldt | Smsw | Str | Insb | Insw | Insd)
}

/// XSAVE and its like: does it write the compacted format?
fn saves(case: &Case) -> Option<bool> {
    use Mnemonic::{Xsave, Xsave64, Xsavec, Xsavec64, Xsaveopt, Xsaveopt64};
    match case.instruction.mnemonic() {
        Xsave | Xsave64 | Xsaveopt | Xsaveopt64 => Some(false),
        Xsavec | Xsavec64 => Some(true),
        _ => None,
    }
}

/// Instructions that may fault on bytes that they would not write: which ones do is up to the processor.
fn may_fault_in_vain(case: &Case) -> bool {
    use Mnemonic as M;
    let leaves_out = matches!(case.instruction.mnemonic(), M::Maskmovdqu | M::Maskmovq | M::Vmaskmovdqu);
    // These do not write components in their initial state.
    let saves = matches!(case.instruction.mnemonic(), M::Xsaveopt | M::Xsaveopt64 | M::Xsavec | M::Xsavec64);
    leaves_out || saves
}

/// Instructions that are several stores, of which a fault may leave some done although the registers say nothing of it.
/// (So Intel's manual says of x87 stores of more than eight bytes, and its processors do make two of ten.)
fn stores_in_parts(case: &Case) -> bool {
    use Mnemonic as M;
    let ten = case.instruction.memory_size().size() == 10;
    matches!(case.instruction.mnemonic(), M::Enter | M::Fxsave | M::Fxsave64 | M::Fnsave | M::Fnstenv) || ten
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
