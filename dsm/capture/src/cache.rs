//! Plans of sites seen before: a direct-mapped table without locks that anyone waits for.
//!
//! An entry answers for a site only while the very bytes that it was made from stand there, so code that was
//! changed or replaced is decoded again.

use crate::decode::CodeBytes;
use crate::plan::Plan;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Sites that fit.
pub(crate) const ENTRIES: usize = 1024;
/// Set in `users` while an entry is being written.
const WRITING: u32 = 1 << 31;

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
    /// The state of the executable copy that belongs to this entry (see `execute::stubs`); 0: none.
    stub: AtomicU32,
    /// Which site this is; 0: none, which is no address of an instruction. Written only under `WRITING`; whoever
    /// reads it without being a user takes it for a hint.
    rip: AtomicU64,
    /// Written by whoever set `WRITING`, read by users; initialised when `rip` is not 0.
    site: UnsafeCell<MaybeUninit<Site>>,
}

// SAFETY: `site` is written only by the one thread that moved `users` from 0 to `WRITING`, and read only by threads
// that increased `users` while `WRITING` was not set.
unsafe impl Sync for Entry {}

static TABLE: [Entry; ENTRIES] = [const {
    Entry {
        users: AtomicU32::new(0),
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

fn index(rip: u64) -> usize {
    // Neighbouring instructions go to different entries, and so do the same offsets of different pages.
    (rip.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % ENTRIES
}

/// The plan of the instruction at `rip`, if it is known and the instruction is still the same.
pub(crate) fn find(rip: u64) -> Option<Held> {
    let index = index(rip);
    let entry = &TABLE[index];
    if entry.rip.load(Ordering::Relaxed) != rip {
        return None;
    }
    // Acquire; pairs with the Release in `insert` that ends writing.
    if entry.users.fetch_add(1, Ordering::Acquire) & WRITING != 0 {
        entry.users.fetch_sub(1, Ordering::Relaxed);
        return None;
    }
    let held = Held { entry, index };
    let same =
        entry.rip.load(Ordering::Relaxed) == rip && held.site().code.stand_at(rip, usize::from(held.site().plan.len));
    same.then_some(held)
}

/// Remembers a site. `None` when somebody uses the entry that it would replace.
pub(crate) fn insert(site: Site) -> Option<Held> {
    let index = index(site.rip);
    let entry = &TABLE[index];
    // Acquire; pairs with the Release in `Held::drop`.
    entry.users.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Relaxed).ok()?;
    entry.stub.store(0, Ordering::Relaxed);
    entry.rip.store(site.rip, Ordering::Relaxed);
    // SAFETY: `WRITING` keeps users away, and the exchange above saw none.
    let cell = unsafe { &mut *entry.site.get() };
    cell.write(site);
    // One user, ourselves; those who came in vain meanwhile take back what they added. Release; pairs with `find`.
    entry.users.fetch_sub(WRITING - 1, Ordering::Release);
    Some(Held { entry, index })
}
