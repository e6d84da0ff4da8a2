//! What was seen, against what the model allows.

use super::model::{Explored, Rules, explore};
use super::program::{Loc, Outcome, Program, VALUES};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// Violations that are described one by one.
const DESCRIBED: usize = 10;

/// How an outcome stands to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Sequential consistency allows it.
    Sequential,
    /// Only stores that are seen later elsewhere than here explain it.
    Relaxed,
    /// Nothing explains it.
    Forbidden,
}

/// An outcome, and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its values: registers, then final values; `?` and the machine word where that is no value (a torn one).
    pub outcome: String,
    /// How it stands to the model.
    pub class: Class,
    /// How often.
    pub count: u64,
}

/// Where something was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Where {
    /// The round.
    pub round: u64,
    /// The instance in it.
    pub instance: usize,
}

/// The machine words of an outcome.
pub type Words = [u64; VALUES];

/// What the explorer has said of programs: many variants and placements come to the same one.
#[derive(Debug, Default)]
pub struct Known(HashMap<Program, (Outcomes, Outcomes)>);

type Outcomes = Rc<BTreeSet<Outcome>>;

/// Collects what is seen of one test in one variant.
#[derive(Debug)]
pub struct Checker {
    program: Program,
    allowed: Outcomes,
    sequential: Outcomes,
    counts: HashMap<Words, (u64, Class)>,
    disagreements: u64,
    violations: Vec<String>,
}

impl Checker {
    /// Asks the explorer what is allowed.
    pub fn new(program: &Program, known: &mut Known) -> Self {
        let (allowed, sequential) = known.0.entry(program.clone()).or_insert_with(|| {
            let Explored { outcomes: allowed, .. } = explore(program, Rules::DESIGN);
            let Explored { outcomes: sequential, .. } = explore(program, Rules::SEQUENTIAL);
            (Rc::new(allowed), Rc::new(sequential))
        });
        let (allowed, sequential) = (allowed.clone(), sequential.clone());
        let (counts, violations) = (HashMap::new(), Vec::new());
        Self { program: program.clone(), allowed, sequential, counts, disagreements: 0, violations }
    }

    /// One instance came to this: its registers, and for each process all its words when all was done.
    pub fn observe(&mut self, registers: &[u64], processes: &[Words], at: Where) -> Class {
        let mut words = Words::default();
        words[..registers.len()].copy_from_slice(registers);
        for (word, loc) in words[registers.len()..].iter_mut().zip(&self.program.finals) {
            *word = part(processes[0][usize::from(loc.start / self.program.grain)], *loc, self.program.grain);
        }
        if let Some(other) = processes.iter().position(|last| *last != processes[0]) {
            self.disagreements += 1;
            let text = format!("hosts end up with different words: {:x?} and {:x?}", processes[0], processes[other]);
            self.describe(&text, registers, at);
        }
        if let Some((count, class)) = self.counts.get_mut(&words) {
            *count += 1;
            return *class;
        }
        let class = self.class(&words);
        self.counts.insert(words, (1, class));
        if class == Class::Forbidden {
            self.describe(&format!("forbidden: {}", self.show(&words)), registers, at);
        }
        class
    }

    fn describe(&mut self, what: &str, registers: &[u64], at: Where) {
        if self.violations.len() < DESCRIBED {
            let Where { round, instance } = at;
            self.violations.push(format!("{what}; registers {registers:x?}, round {round}, instance {instance}"));
        }
    }

    fn class(&self, words: &Words) -> Class {
        match self.outcome(words) {
            Some(outcome) if self.sequential.contains(&outcome) => Class::Sequential,
            Some(outcome) if self.allowed.contains(&outcome) => Class::Relaxed,
            _ => Class::Forbidden,
        }
    }

    /// Which cells a register or final value has.
    fn len(&self, value: usize) -> u8 {
        use super::program::Op;
        let ops = || self.program.threads.iter().flat_map(|thread| &thread.ops);
        let loaded = ops().find_map(|op| match op {
            Op::Load(at, register) | Op::Rmw(at, .., Some(register)) if usize::from(*register) == value => Some(at.len),
            _ => None,
        });
        loaded.unwrap_or_else(|| self.program.finals.get(value - self.program.registers).map_or(1, |at| at.len))
    }

    fn value(&self, word: u64, value: usize) -> Option<u16> {
        decode(word, self.len(value), self.program.grain)
    }

    fn outcome(&self, words: &Words) -> Option<Outcome> {
        let mut values = [0; VALUES];
        for (number, value) in values.iter_mut().enumerate().take(self.program.values()) {
            *value = self.value(words[number], number)?;
        }
        Some(Outcome(values))
    }

    fn show(&self, words: &Words) -> String {
        let values = (0..self.program.values()).map(|number| match self.value(words[number], number) {
            Some(value) => format!("{value:x}"),
            None => format!("?{:016x}", words[number]),
        });
        values.collect::<Vec<_>>().join(",")
    }

    /// How many different relaxed outcomes there can be.
    pub fn relaxed(&self) -> usize {
        self.allowed.difference(&self.sequential).count()
    }

    /// All outcomes that were seen, most frequent first, and the allowed ones that were not.
    pub fn finish(self) -> Finding {
        let mut seen: BTreeMap<(Class, String), u64> = BTreeMap::new();
        for (words, (count, class)) in &self.counts {
            *seen.entry((*class, self.show(words))).or_default() += count;
        }
        let mut seen: Vec<Seen> =
            seen.into_iter().map(|((class, outcome), count)| Seen { outcome, class, count }).collect();
        seen.sort_by_key(|seen| (std::cmp::Reverse(seen.class), std::cmp::Reverse(seen.count)));
        let found: BTreeSet<Outcome> = self.counts.keys().filter_map(|words| self.outcome(words)).collect();
        let text = |outcome: &Outcome| {
            outcome.0[..self.program.values()].iter().map(|value| format!("{value:x}")).collect::<Vec<_>>().join(",")
        };
        let unseen = |outcomes: &mut dyn Iterator<Item = &Outcome>| outcomes.map(text).collect();
        let missing: Vec<&Outcome> = self.allowed.difference(&found).collect();
        let (sequential, relaxed): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|outcome| self.sequential.contains(outcome));
        Finding {
            unseen: unseen(&mut sequential.into_iter()),
            unseen_relaxed: unseen(&mut relaxed.into_iter()),
            relaxed_allowed: self.relaxed(),
            forbidden: seen.iter().filter(|seen| seen.class == Class::Forbidden).map(|seen| seen.count).sum(),
            seen,
            disagreements: self.disagreements,
            violations: self.violations,
        }
    }
}

/// What came of a test in one variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Outcomes: forbidden ones first, then relaxed ones.
    pub seen: Vec<Seen>,
    /// Sequentially consistent ones that were not seen.
    pub unseen: Vec<String>,
    /// Relaxed ones that were not seen.
    pub unseen_relaxed: Vec<String>,
    /// How many relaxed outcomes the model allows.
    pub relaxed_allowed: usize,
    /// How often a forbidden outcome was seen.
    pub forbidden: u64,
    /// How often hosts had different final values.
    pub disagreements: u64,
    /// What is to be known about the first of those.
    pub violations: Vec<String>,
}

/// The machine word in which every byte says which cell it belongs to: a torn one has bytes that differ.
pub fn encode(value: u16, len: u8, grain: u8) -> u64 {
    let [low, high] = value.to_le_bytes().map(u64::from);
    match (len, grain) {
        (1, 1) => low * 0x0101_0101_0101_0101,
        (1, _) => low * 0x0101_0101,
        _ => (low * 0x0101_0101) | ((high * 0x0101_0101) << 32),
    }
}

/// The other way; `None` when it is torn.
fn decode(word: u64, len: u8, grain: u8) -> Option<u16> {
    let bytes = word.to_le_bytes();
    let value = u16::from_le_bytes([bytes[0], if len == 2 { bytes[4] } else { 0 }]);
    (encode(value, len, grain) == word).then_some(value)
}

/// What `loc` has of the machine word that it lies in.
fn part(word: u64, loc: Loc, grain: u8) -> u64 {
    if loc.len == grain { word } else { word >> (32 * (loc.start % grain)) & 0xffff_ffff }
}

#[cfg(test)]
mod tests {
    use super::super::variant::plan;
    use super::*;

    fn checker(name: &str) -> Checker {
        Checker::new(&plan(&[name.to_owned()], 1).unwrap()[0].program(), &mut Known::default())
    }

    fn word(value: u16) -> u64 {
        encode(value, 1, 1)
    }

    /// What a host has when all is done.
    fn last(x: u16, y: u16) -> Words {
        let mut words = Words::default();
        (words[0], words[1]) = (word(x), word(y));
        words
    }

    const HERE: Where = Where { round: 3, instance: 5 };

    #[test]
    fn outcomes_are_told_apart() {
        let mut checker = checker("SB/plain/0,1");
        let same = [last(1, 1); 2];
        assert_eq!(checker.observe(&[0, 0], &same, HERE), Class::Relaxed);
        assert_eq!(checker.observe(&[0, word(1)], &same, HERE), Class::Sequential);
        assert_eq!(checker.observe(&[0, word(1)], &same, HERE), Class::Sequential);
        let finding = checker.finish();
        let shown: Vec<_> = finding.seen.iter().map(|seen| (seen.outcome.as_str(), seen.class, seen.count)).collect();
        assert_eq!(shown, [("0,0", Class::Relaxed, 1), ("0,1", Class::Sequential, 2)]);
        assert_eq!((finding.unseen, finding.unseen_relaxed), (vec!["1,0".to_owned(), "1,1".to_owned()], vec![]));
        assert_eq!((finding.forbidden, finding.disagreements, finding.relaxed_allowed), (0, 0, 1));
    }

    #[test]
    fn a_forbidden_outcome_is_found_and_described() {
        let mut checker = checker("SB/plain+fence/0,1");
        checker.observe(&[0, 0], &[last(1, 1)], HERE);
        checker.observe(&[0, 0], &[last(1, 1)], HERE);
        let finding = checker.finish();
        assert_eq!((finding.forbidden, finding.violations.len()), (2, 1));
        let text = &finding.violations[0];
        assert!(text.contains("forbidden: 0,0") && text.contains("round 3, instance 5"), "{text}");
    }

    #[test]
    fn a_torn_word_is_forbidden() {
        let mut checker = checker("MP/plain/0,1");
        checker.observe(&[0, 0x0000_0000_0101_0101], &[last(1, 1)], HERE);
        let finding = checker.finish();
        assert_eq!(finding.forbidden, 1);
        assert_eq!(finding.seen[0].outcome, "0,?0000000001010101");
    }

    #[test]
    fn hosts_that_disagree_are_found() {
        let mut checker = checker("CoWW/plain/0,1");
        // One host has lost the second store.
        checker.observe(&[word(1)], &[last(2, 0), last(1, 0)], HERE);
        // All have: they agree on what cannot be.
        checker.observe(&[word(1)], &[last(1, 0); 2], HERE);
        let finding = checker.finish();
        assert_eq!((finding.disagreements, finding.forbidden, finding.violations.len()), (1, 1, 2));
    }

    #[test]
    fn machine_words_say_their_value() {
        for (value, len, grain) in [(0, 1, 1), (3, 1, 1), (2, 1, 2), (0x0102, 2, 2), (0x0100, 2, 2)] {
            assert_eq!(decode(encode(value, len, grain), len, grain), Some(value));
        }
        assert_eq!(decode(0x0101_0101_0101_0100, 1, 1), None);
        assert_eq!(decode(0x0000_0000_0001_0101, 1, 2), None);
        assert_eq!(part(0x0404_0404_0303_0303, Loc::cell(3), 2), 0x0404_0404);
    }
}
