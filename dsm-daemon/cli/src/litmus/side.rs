//! Memory that the processes of a run share natively, beside the session: what the threads have seen is passed on
//! through it, and they keep pace by it. The session that is tested has no part in that, and the model knows nothing
//! of it: real time is no order between hosts.

use super::program::VALUES;
use crate::failure::{Failure, Result};
use dsm_core::sys::map::Range;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Most instances of a round.
pub const INSTANCES: usize = 1024;
/// Most threads, and most processes.
pub const THREADS: usize = 4;
/// Words of a line.
const LINE: usize = 8;

const PACE: usize = 0;
const SETTINGS: usize = PACE + THREADS * LINE;
const SEEN: usize = SETTINGS + LINE;
const FINALS: usize = SEEN + INSTANCES * VALUES;
const WORDS: usize = FINALS + THREADS * INSTANCES * VALUES;

/// The memory.
#[derive(Debug)]
pub struct Side {
    range: Range,
}

impl Side {
    /// Maps the file at `path`, which is made if there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let cannot = || Failure::system(format!("cannot share {}", path.display()));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(cannot())?;
        let len = (WORDS * 8).next_multiple_of(4096);
        file.set_len(len as u64).map_err(cannot())?;
        Ok(Self { range: Range::of_file(&file, len).map_err(cannot())? })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < WORDS, "word {at} of the memory beside the session");
        let word = self.range.base().cast::<AtomicU64>().wrapping_add(at);
        // SAFETY: one of the mapped words, aligned as the mapping is; all who have mapped it use it as atomics.
        unsafe { &*word }
    }

    /// Thread `thread` has come to its instance number `step` of all.
    pub fn come(&self, thread: usize, step: u64) {
        self.word(PACE + thread * LINE).store(step, Relaxed);
    }

    /// How far a thread has come.
    pub fn pace(&self, thread: usize) -> u64 {
        self.word(PACE + thread * LINE).load(Relaxed)
    }

    /// What the round is to be run with; between this and `settings` is a barrier.
    pub fn set(&self, settings: [u64; LINE]) {
        settings.iter().enumerate().for_each(|(at, word)| self.word(SETTINGS + at).store(*word, Release));
    }

    /// What the round is to be run with.
    pub fn settings(&self) -> [u64; LINE] {
        std::array::from_fn(|at| self.word(SETTINGS + at).load(Acquire))
    }

    /// Word of a register. Who reads it and who has written it have a barrier in between.
    pub fn register(&self, instance: usize, register: usize) -> &AtomicU64 {
        self.word(SEEN + instance * VALUES + register)
    }

    /// Word of a final value, as process number `process` has it. As for registers.
    pub fn last(&self, process: usize, instance: usize, which: usize) -> &AtomicU64 {
        self.word(FINALS + (process * INSTANCES + instance) * VALUES + which)
    }
}
