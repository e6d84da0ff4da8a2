//! Plans of sites seen before: a table without locks that anyone waits for. A site has one of the few entries ([`WAYS`])
//! of its set, so that some hot sites that meet in one set do not take each other's place; which of them it tries first
//! depends on the site, and mostly it is the one.
//!
//! A plan that needs nothing but itself is copied from its entry ([`copy`]), which takes no locked instruction: whoever
//! writes the entry changes its version before and after. One that needs the executable copy which belongs to the entry
//! keeps it from being replaced for as long ([`find`]).
//!
//! An entry answers for a site only while the very bytes that it was made from stand there, so code that was
//! changed or replaced is decoded again. Two entries may name one site (threads that learn it at once need not see each
//! other), and one of them may be of older code: each answers for itself, and they go like others.

use crate::decode::CodeBytes;
use crate::plan::Plan;
use std::arch::asm;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Sites that fit.
pub(crate) const ENTRIES: usize = 4096;
/// Entries of a set.
const WAYS: usize = 4;
const _: () = assert!(ENTRIES.is_power_of_two() && WAYS.is_power_of_two() && WAYS > 1);
/// Set in `users` while an entry is being written.
const WRITING: u32 = 1 << 31;
/// In a version: the site is being written.
const UNSTABLE: u32 = 1;
/// In a version: what belongs to the site is more than its plan.
const BOUND: u32 = 2;
/// What is added to the rest of a version by every writing.
const VERSION: u32 = 4;

/// A site: where an instruction stands, its bytes, and what it does.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    pub(crate) rip: u64,
    pub(crate) code: CodeBytes,
    pub(crate) plan: Plan,
}

struct Entry {
    /// How many threads look at the entry, or `WRITING`.
    users: AtomicU32,
    /// Changes whenever `site` does; with `UNSTABLE` and `BOUND`.
    version: AtomicU32,
    /// The state of the executable copy that belongs to this entry (see `execute::stubs`); 0: none.
    stub: AtomicU32,
    /// Which site this is; 0: none, which is no address of an instruction. Written only under `WRITING`; whoever
    /// reads it without being a user takes it for a hint.
    rip: AtomicU64,
    /// Written by whoever set `WRITING`, read by users, and by anyone who finds the same version before and after;
    /// initialised when `rip` is not 0.
    site: UnsafeCell<MaybeUninit<Site>>,
}

// SAFETY: `site` is written only by the one thread that moved `users` from 0 to `WRITING`, and read only by threads
// that increased `users` while `WRITING` was not set, or by `copy_site`, which may read anything.
unsafe impl Sync for Entry {}

static TABLE: [Entry; ENTRIES] = [const {
    Entry {
        users: AtomicU32::new(0),
        version: AtomicU32::new(0),
        stub: AtomicU32::new(0),
        rip: AtomicU64::new(0),
        site: UnsafeCell::new(MaybeUninit::uninit()),
    }
}; ENTRIES];

/// An entry that nobody replaces while this lives.
pub(crate) struct Held {
    entry: &'static Entry,
    index: usize,
}

impl Held {
    /// What is known of the site.
    pub(crate) fn site(&self) -> &Site {
        // SAFETY: `users` counts this holder, so nobody writes the cell until it is dropped.
        let cell = unsafe { &*self.entry.site.get() };
        // SAFETY: a holder is made only from an entry whose `rip` is not 0, and such a cell is initialised.
        unsafe { cell.assume_init_ref() }
    }

    /// The number of the entry and the state of its executable copy.
    pub(crate) fn stub(&self) -> (usize, &AtomicU32) {
        (self.index, &self.entry.stub)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Release; pairs with the Acquire of the exchange in `insert`.
        self.entry.users.fetch_sub(1, Ordering::Release);
    }
}

/// The entry that is tried first for a site.
fn home(rip: u64) -> usize {
    // Neighbouring instructions go to different entries, and so do the same offsets of different pages.
    (rip.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - ENTRIES.trailing_zeros())) as usize
}

/// The entries of a site's set, in the order in which they are tried.
#[inline(always)]
fn set(rip: u64) -> impl Iterator<Item = (usize, &'static Entry)> {
    let home = home(rip);
    (0..WAYS).map(move |way| (home ^ way, &TABLE[home ^ way]))
}

const CHUNK: usize = 16;
const _: () = assert!(size_of::<Site>().is_multiple_of(CHUNK));

/// Copies a site, whatever others do to either meanwhile: then what arrives is anything.
///
/// # Safety
/// `from` can be read and `to` written.
#[inline(always)]
unsafe fn copy_site(from: *const MaybeUninit<Site>, to: *mut MaybeUninit<Site>) {
    for at in (0..size_of::<Site>()).step_by(CHUNK) {
        let (from, to) = (from.wrapping_byte_add(at), to.wrapping_byte_add(at));
        // Not by the language, for which such a race would be undefined, but by the processor, for which it is not.
        // SAFETY: the caller's word.
        unsafe {
            asm!("movups {chunk}, [{from}]", "movups [{to}], {chunk}", chunk = out(xmm_reg) _, from = in(reg) from,
                to = in(reg) to, options(nostack, preserves_flags))
        };
    }
}

/// The plan of the instruction at `rip`, if it is known, needs nothing but itself, and the instruction is still the same.
#[inline(always)]
pub(crate) fn copy(rip: u64) -> Option<Site> {
    for (_, entry) in set(rip) {
        // Acquire; pairs with the Release in `insert` that ends writing.
        let version = entry.version.load(Ordering::Acquire);
        if entry.rip.load(Ordering::Relaxed) != rip {
            continue;
        }
        if version & (UNSTABLE | BOUND) != 0 {
            return None;
        }
        let mut site = MaybeUninit::uninit();
        // SAFETY: the entry is static, the other ours.
        unsafe { copy_site(entry.site.get(), &raw mut site) };
        // Pairs with the fence in `insert` that begins writing: had we read something of it, we would see its version.
        fence(Ordering::Acquire);
        if entry.version.load(Ordering::Relaxed) != version {
            return None;
        }
        // SAFETY: `rip` was not 0, so some site had been written, and none since.
        let site: Site = unsafe { site.assume_init() };
        // One of other code is `find`'s to pass by.
        return (site.rip == rip && site.code.stand_at(rip, usize::from(site.plan.len))).then_some(site);
    }
    None
}

/// The plan of the instruction at `rip`, if it is known and the instruction is still the same.
pub(crate) fn find(rip: u64) -> Option<Held> {
    set(rip).find_map(|(index, entry)| {
        if entry.rip.load(Ordering::Relaxed) != rip {
            return None;
        }
        // Acquire; pairs with the Release in `insert` that ends writing.
        if entry.users.fetch_add(1, Ordering::Acquire) & WRITING != 0 {
            entry.users.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let held = Held { entry, index };
        let same = entry.rip.load(Ordering::Relaxed) == rip
            && held.site().code.stand_at(rip, usize::from(held.site().plan.len));
        same.then_some(held)
    })
}

/// Remembers a site. `None` when somebody uses the entries that it could replace.
pub(crate) fn insert(site: Site) -> Option<Held> {
    let (index, entry) = claim(site.rip)?;
    let before = entry.version.load(Ordering::Relaxed) & !(UNSTABLE | BOUND);
    entry.version.store(before | UNSTABLE, Ordering::Relaxed);
    // Release; pairs with the fence in `copy`.
    fence(Ordering::Release);
    entry.stub.store(0, Ordering::Relaxed);
    entry.rip.store(site.rip, Ordering::Relaxed);
    // SAFETY: `WRITING` keeps users away, and the exchange in `claim` saw none; those who copy expect that.
    unsafe { copy_site(&MaybeUninit::new(site), entry.site.get()) };
    let bound = if site.plan.action.is_displaced() { BOUND } else { 0 };
    // Release; pairs with the Acquire in `copy`.
    entry.version.store(before.wrapping_add(VERSION) | bound, Ordering::Release);
    // One user, ourselves; those who came in vain meanwhile take back what they added. Release; pairs with `find`.
    entry.users.fetch_sub(WRITING - 1, Ordering::Release);
    Some(Held { entry, index })
}

/// An entry of the set to write a site into, with `WRITING` set.
fn claim(rip: u64) -> Option<(usize, &'static Entry)> {
    // Acquire; pairs with the Release in `Held::drop`.
    let take = |(_, entry): &(usize, &Entry)| {
        entry.users.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    };
    let named = |name: u64| set(rip).filter(move |(_, entry)| entry.rip.load(Ordering::Relaxed) == name);
    // Whoever uses the site's own entry has mostly just learned it, too: one is enough.
    if let Some(own) = named(rip).next() {
        return Some(own).filter(take);
    }
    // Of two that learn a site at once, the second may go on to the next.
    if let Some(free) = named(0).find(take) {
        return Some(free);
    }
    // Hits leave no trace, for that would cost them a store to a line that others read; so nobody knows which one is
    // needed least. By chance, since any order would lose every one of a few more sites than fit that take turns.
    let first = CHANCE.fetch_add(0x9e37_79b9, Ordering::Relaxed);
    let first = (first ^ (first >> 15)).wrapping_mul(0x2c1b_3c6d) >> 16;
    let others: [_; WAYS] = std::array::from_fn(|way| home(rip) ^ ((way ^ first as usize) % WAYS));
    others.map(|index| (index, &TABLE[index])).into_iter().find(take)
}

/// Where the next search for an entry to replace begins.
static CHANCE: AtomicU32 = AtomicU32::new(0);

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::plan::{Writes, plan};
    use crate::processor::Processor;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// `mov [rdi], rsi`: its plan is all it needs; and `add [rdi], rsi`, which has a copy.
    const MOVE: [u8; 3] = [0x48, 0x89, 0x37];
    const ADD: [u8; 3] = [0x48, 0x01, 0x37];

    /// Sites that are all in one set, where instructions stand that nobody executes. Tests take turns with the table.
    struct Sites {
        code: Vec<u8>,
        at: Vec<usize>,
        writes: Writes,
        _alone: MutexGuard<'static, ()>,
    }

    impl Sites {
        fn new(count: usize, instruction: [u8; 3]) -> Self {
            static ALONE: Mutex<()> = Mutex::new(());
            let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            let code = instruction.repeat(4 * ENTRIES * count);
            let start = code.as_ptr().expose_provenance();
            let set_of = |at: usize| home((start + at) as u64) / WAYS;
            let at: Vec<usize> = (0..code.len()).step_by(3).filter(|at| set_of(*at) == set_of(0)).take(count).collect();
            assert_eq!(at.len(), count, "enough that meet");
            let sites = Self { code, at, writes: Writes::new(), _alone };
            // Of earlier tests.
            for (_, entry) in set(sites.rip(0)) {
                assert_eq!(entry.users.load(Ordering::Relaxed), 0, "an entry stays in use");
                entry.rip.store(0, Ordering::Relaxed);
            }
            sites
        }

        fn rip(&self, site: usize) -> u64 {
            (self.code.as_ptr().expose_provenance() + self.at[site]) as u64
        }

        /// Other code stands where the first one is.
        fn becomes(&mut self, instruction: [u8; 3]) {
            let at = self.at[0];
            self.code[at..at + 3].copy_from_slice(&instruction);
        }

        fn learn(&self, site: usize) -> Site {
            let (instruction, code) = crate::decode::decode(self.rip(site), Processor::detect().amd);
            let plan = plan(&instruction, &self.writes);
            Site { rip: self.rip(site), code: CodeBytes::new(code, instruction.len()), plan }
        }

        /// As for a trap: is the site known? Then it is.
        fn visit(&self, site: usize) -> bool {
            let rip = self.rip(site);
            if let Some(copied) = copy(rip) {
                assert_eq!(copied.rip, rip);
                return true;
            }
            if let Some(held) = find(rip) {
                assert_eq!(held.site().rip, rip);
                return true;
            }
            assert!(insert(self.learn(site)).is_some_and(|held| held.site().rip == rip), "nobody uses any");
            false
        }
    }

    #[test]
    fn as_many_sites_as_a_set_has_entries_are_learned_once() {
        for instruction in [MOVE, ADD] {
            let sites = Sites::new(WAYS, instruction);
            for round in 0..100 {
                for site in 0..WAYS {
                    assert_eq!(sites.visit(site), round > 0, "round {round}, site {site}");
                }
            }
        }
    }

    #[test]
    fn of_more_sites_than_fit_some_are_known() {
        for instruction in [MOVE, ADD] {
            let sites = Sites::new(WAYS + 1, instruction);
            const VISITS: usize = 10_000;
            let known = (0..VISITS).filter(|visit| sites.visit(visit % sites.at.len())).count();
            // Taking turns: the worst for whoever replaces the oldest, who would know none.
            assert!((VISITS / 4..VISITS).contains(&known), "{known}");
        }
    }

    #[test]
    fn entries_in_use_are_not_replaced() {
        let sites = Sites::new(WAYS + 2, ADD);
        let held: Vec<Held> = (0..WAYS).map(|site| insert(sites.learn(site)).expect("room")).collect();
        assert!(insert(sites.learn(WAYS)).is_none());
        let mut stubs: Vec<usize> = held.iter().map(|held| held.stub().0).collect();
        stubs.sort_unstable();
        stubs.dedup();
        assert_eq!(stubs.len(), WAYS, "each has a copy of its own");
        for (site, held) in held.iter().enumerate() {
            assert_eq!(held.site().rip, sites.rip(site));
        }
        // Also not by their own, which somebody has just learned.
        assert!(insert(sites.learn(2)).is_none());
        let mut held = held;
        let free = held.remove(1).index;
        let next = insert(sites.learn(WAYS)).expect("one is free");
        assert_eq!(next.index, free);
        drop((held, next));
        assert!(insert(sites.learn(WAYS + 1)).is_some());
    }

    #[test]
    fn an_entry_of_other_code_is_replaced() {
        for (old, new) in [(MOVE, ADD), (ADD, MOVE), (MOVE, [0x48, 0x89, 0x3e])] {
            let mut sites = Sites::new(1, old);
            let stale = insert(sites.learn(0)).expect("room").index;
            sites.becomes(new);
            assert!(copy(sites.rip(0)).is_none() && find(sites.rip(0)).is_none());
            let written = insert(sites.learn(0)).expect("room");
            assert_eq!((written.index, written.site().rip), (stale, sites.rip(0)));
            drop(written);
            assert!(sites.visit(0));
        }
    }

    #[test]
    fn an_entry_of_other_code_is_passed_by() {
        for (old, new) in [(MOVE, ADD), (ADD, MOVE)] {
            let mut sites = Sites::new(1, old);
            let stale = insert(sites.learn(0)).expect("room");
            // As a thread sees it that learns the site at the same time.
            stale.entry.rip.store(0, Ordering::Relaxed);
            sites.becomes(new);
            let fresh = insert(sites.learn(0)).expect("room");
            stale.entry.rip.store(sites.rip(0), Ordering::Relaxed);
            assert_ne!(stale.index, fresh.index);
            let found = find(sites.rip(0)).expect("one of the two is right");
            assert_eq!(found.index, fresh.index);
            drop((found, stale, fresh));
            assert!(sites.visit(0));
        }
    }
}
