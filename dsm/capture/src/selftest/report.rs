//! What a run found, and how it is shown.

use iced_x86::Code;
use std::collections::BTreeMap;
use std::fmt;

/// How a form of instruction fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coverage {
    /// It was run natively and captured this many times, with equal results.
    Covered(u64),
    /// The processor does not have it, or does not let programs use it.
    NotHere,
    /// The engine refuses it, and says so.
    Refused(&'static str),
    /// It has addresses of 32 bits alone, and the region lies higher.
    OutOfReach,
    /// No case of it that runs to its end was drawn, in a run that is too short to expect one.
    NotDrawn,
    /// The generator could not make one that both could run.
    Missed,
}

/// One form of instruction that writes memory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Form {
    /// Its name in iced's enumeration.
    pub name: String,
    /// Its mnemonic.
    pub mnemonic: String,
    /// Its syntax.
    pub syntax: &'static str,
    /// The features of a processor that it belongs to.
    pub features: String,
    /// How it fared.
    pub coverage: Coverage,
}

impl Form {
    pub(super) fn new(code: Code, coverage: Coverage) -> Self {
        let features: Vec<String> = code.cpuid_features().iter().map(|feature| format!("{feature:?}")).collect();
        Self {
            name: format!("{code:?}"),
            mnemonic: format!("{:?}", code.mnemonic()).to_lowercase(),
            syntax: code.op_code().instruction_string(),
            features: features.join("+"),
            coverage,
        }
    }
}

/// What a run found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The seed, to repeat the run with.
    pub seed: u64,
    /// Instructions that were compared.
    pub compared: u64,
    /// Of these, those that the processor itself ended with a signal: then the captured one did, too.
    pub faulted: u64,
    /// Of these, those that did trap (one whose mask is empty, say, does not), where that is known.
    pub trapped: u64,
    /// Of these, faults that were handed on because the operand was not wholly in the region, where that is known.
    pub genuine: u64,
    /// Instructions of XSAVE's kind after which a component in its initial state was in use by the one and not by the
    /// other, which is the processor's own affair.
    pub undecided: u64,
    /// Others of XSAVE's kind that had x87 or SSE state in use, as every signal leaves it, that was initial natively.
    pub woken: u64,
    /// Cases for which the generator made nothing that the processor would run.
    pub vain: u64,
    /// How often what was stored was compared with what arrived elsewhere.
    pub settled: u64,
    /// Every form of instruction that writes memory.
    pub forms: Vec<Form>,
    /// Differences, at most twenty, each with the instruction, the seed and all that differed.
    pub failures: Vec<String>,
}

impl Report {
    /// How many forms satisfy `condition`.
    pub fn count(&self, condition: impl Fn(&Coverage) -> bool) -> usize {
        self.forms.iter().filter(|form| condition(&form.coverage)).count()
    }

    /// Every form, a line each: how often it was compared or why not, its features, its syntax.
    pub fn table(&self) -> String {
        let row = |form: &Form| {
            let fared = match form.coverage {
                Coverage::Covered(count) => count.to_string(),
                Coverage::NotHere => "not here".into(),
                Coverage::Refused(_) => "refused".into(),
                Coverage::OutOfReach => "no reach".into(),
                Coverage::NotDrawn => "not drawn".into(),
                Coverage::Missed => "missed".into(),
            };
            format!("{fared:>9}  {:<24}  {}\n", form.features, form.syntax)
        };
        self.forms.iter().map(row).collect()
    }
}

fn add<'a>(names: &mut Vec<&'a str>, form: &'a Form) {
    if !names.contains(&form.mnemonic.as_str()) {
        names.push(&form.mnemonic);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} instructions compared; the processor ended {} of them with a signal",
            self.seed, self.compared, self.faulted
        )?;
        writeln!(
            f,
            "forms that write memory: {} covered, {} not on this processor, {} refused, {} out of reach, \
             {} not drawn in this run, {} missed",
            self.count(|coverage| matches!(coverage, Coverage::Covered(_))),
            self.count(|coverage| *coverage == Coverage::NotHere),
            self.count(|coverage| matches!(coverage, Coverage::Refused(_))),
            self.count(|coverage| *coverage == Coverage::OutOfReach),
            self.count(|coverage| *coverage == Coverage::NotDrawn),
            self.count(|coverage| *coverage == Coverage::Missed),
        )?;
        let mut covered: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
        let [mut absent, mut refused]: [BTreeMap<&str, Vec<&str>>; 2] = Default::default();
        for form in &self.forms {
            match form.coverage {
                Coverage::Covered(count) => {
                    let sum = covered.entry(&form.features).or_default();
                    *sum = (sum.0 + 1, sum.1 + count);
                }
                Coverage::NotHere => add(absent.entry(&form.features).or_default(), form),
                Coverage::Refused(reason) => add(refused.entry(reason).or_default(), form),
                Coverage::OutOfReach | Coverage::NotDrawn | Coverage::Missed => {}
            }
        }
        for (features, (forms, instructions)) in covered {
            writeln!(f, "  covered: {features:<24} {forms:>4} forms {instructions:>9} instructions")?;
        }
        for (features, names) in absent {
            writeln!(f, "  not here: {features:<24} {}", names.join(" "))?;
        }
        for (reason, names) in refused {
            writeln!(f, "  refused: {}: {reason}", names.join(" "))?;
        }
        for form in self.forms.iter().filter(|form| form.coverage == Coverage::OutOfReach) {
            writeln!(f, "  out of reach of 32 bits: {}", form.syntax)?;
        }
        for form in self.forms.iter().filter(|form| form.coverage == Coverage::Missed) {
            writeln!(f, "  missed: {} [{}]", form.syntax, form.name)?;
        }
        self.failures.iter().try_for_each(|failure| writeln!(f, "{failure}"))
    }
}
