//! How a round is run: where the words lie, and who waits for how long. Random at first; what has shown many
//! different outcomes is tried again, with changes.

use super::random::Random;
use super::side::{INSTANCES, THREADS};

/// Words of a line.
const LINE: usize = 8;
/// Words of the session that all instances of a round together take at most.
pub const WORDS: usize = INSTANCES * LINE * LINE;
/// The longest delay before an instance, in turns of an empty loop: some tens of microseconds.
const SKEW: u64 = 1 << 15;
/// The longest delay between two accesses.
const GAP: u64 = 1 << 15;

/// Where the words of an instance lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Each on a line of its own.
    Spread,
    /// All on one line, which has nothing else.
    SameLine,
    /// One behind the other, and behind those of other instances.
    Packed,
    /// Pages apart.
    Apart,
}

const LAYOUTS: [Layout; 4] = [Layout::Spread, Layout::SameLine, Layout::Packed, Layout::Apart];

/// The settings of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The longest delay of each thread before an instance.
    pub skew: [u64; THREADS],
    /// The longest delay between two accesses.
    pub gap: u64,
    /// How many instances a thread may be ahead of another.
    pub window: u64,
    layout: Layout,
    /// What number 0 of the words is.
    shift: usize,
}

impl Settings {
    /// Random ones.
    pub fn random(random: &mut Random) -> Self {
        let mut skew = [0; THREADS];
        // Mostly about alike: what is to be seen is seen when all are there at about the same time.
        let most = random.scale(SKEW);
        skew.iter_mut().for_each(|skew| *skew = if random.below(4) == 0 { random.scale(SKEW) } else { most });
        Self {
            skew,
            gap: if random.below(2) == 0 { 0 } else { random.scale(GAP) },
            window: [0, 0, 1, 4, 32, u64::MAX][random.below(6) as usize],
            layout: LAYOUTS[random.below(4) as usize],
            shift: random.below(LINE as u64) as usize,
        }
    }

    /// One thing changed.
    pub fn changed(self, random: &mut Random) -> Self {
        let other = Self::random(random);
        let thread = random.below(THREADS as u64) as usize;
        let mut this = self;
        match random.below(5) {
            0 => this.skew[thread] = other.skew[thread],
            1 => this.gap = other.gap,
            2 => this.window = other.window,
            3 => (this.layout, this.shift) = (other.layout, other.shift),
            _ => {}
        }
        this
    }

    /// With the words of an instance close to each other: for a hole over all of them.
    pub fn near(self) -> Self {
        let layout = if self.layout == Layout::Apart { Layout::Spread } else { self.layout };
        Self { layout, ..self }
    }

    /// As words that another process can read.
    pub fn to_words(self) -> [u64; LINE] {
        let [a, b, c, d] = self.skew;
        [a, b, c, d, self.gap, self.window, self.layout as u64, self.shift as u64]
    }

    /// The other way.
    pub fn from_words([a, b, c, d, gap, window, layout, shift]: [u64; LINE]) -> Self {
        let layout = LAYOUTS[layout as usize % LAYOUTS.len()];
        Self { skew: [a, b, c, d], gap, window, layout, shift: shift as usize }
    }

    /// Which word of the session is word `word` of an instance, of `words` each and `instances` in all.
    pub fn place(&self, instance: usize, word: usize, words: usize, instances: usize) -> usize {
        let word = (word + self.shift) % words;
        match self.layout {
            Layout::Spread => (instance * words + word) * LINE,
            Layout::SameLine => instance * LINE + word,
            Layout::Packed => instance * words + word,
            Layout::Apart => (word * instances + instance) * LINE,
        }
    }
}

/// Chooses the settings of each round by what the last one has shown.
#[derive(Debug)]
pub struct Tuner {
    random: Random,
    now: Settings,
    best: Option<(f64, Settings)>,
}

impl Tuner {
    /// The first settings are random.
    pub fn new(mut random: Random) -> Self {
        let now = Settings::random(&mut random);
        Self { random, now, best: None }
    }

    /// What to run the next round with.
    pub fn settings(&self) -> Settings {
        self.now
    }

    /// How much there was to be seen in the last round.
    pub fn learn(&mut self, score: f64) {
        // What was good once may have been luck, another load of the machine, or another test.
        let best = self.best.map_or(0.0, |(best, _)| best * 0.9);
        self.best = if score > best { Some((score, self.now)) } else { self.best.map(|(_, of)| (best, of)) };
        self.now = match self.best {
            Some((_, best)) if self.random.below(2) == 0 => best.changed(&mut self.random),
            _ => Settings::random(&mut self.random),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_words_lie_in_the_same_place() {
        let mut random = Random::new(&[1]);
        for _ in 0..200 {
            let settings = Settings::random(&mut random);
            let words = 1 + random.below(LINE as u64) as usize;
            let instances = 1 + random.below(INSTANCES as u64) as usize;
            let places: HashSet<usize> = (0..instances)
                .flat_map(|instance| (0..words).map(move |word| (instance, word)))
                .map(|(instance, word)| settings.place(instance, word, words, instances))
                .collect();
            assert_eq!(places.len(), words * instances, "{settings:?}");
            assert!(places.iter().all(|place| *place < WORDS), "{settings:?}");
        }
    }

    #[test]
    fn settings_survive_the_way() {
        let mut random = Random::new(&[2]);
        for _ in 0..100 {
            let settings = Settings::random(&mut random);
            assert_eq!(Settings::from_words(settings.to_words()), settings);
        }
    }
}
