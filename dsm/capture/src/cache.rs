//! Plans of sites seen before: a direct-mapped table without locks that anyone waits for.
//!
//! A plan that needs nothing but itself is copied from its entry ([`copy`]), which takes no locked instruction: whoever
//! writes the entry changes its version before and after. One that needs the executable copy which belongs to the entry
//! keeps it from being replaced for as long ([`find`]).
//!
//! An entry answers for a site only while the very bytes that it was made from stand there, so code that was
//! changed or replaced is decoded again.

use crate::decode::CodeBytes;
use crate::plan::Plan;
use std::arch::asm;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Sites that fit.
pub(crate) const ENTRIES: usize = 1024;
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

fn index(rip: u64) -> usize {
    // Neighbouring instructions go to different entries, and so do the same offsets of different pages.
    (rip.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % ENTRIES
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
    let entry = &TABLE[index(rip)];
    // Acquire; pairs with the Release in `insert` that ends writing.
    let version = entry.version.load(Ordering::Acquire);
    if entry.rip.load(Ordering::Relaxed) != rip || version & (UNSTABLE | BOUND) != 0 {
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
    (site.rip == rip && site.code.stand_at(rip, usize::from(site.plan.len))).then_some(site)
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
    let before = entry.version.load(Ordering::Relaxed) & !(UNSTABLE | BOUND);
    entry.version.store(before | UNSTABLE, Ordering::Relaxed);
    // Release; pairs with the fence in `copy`.
    fence(Ordering::Release);
    entry.stub.store(0, Ordering::Relaxed);
    entry.rip.store(site.rip, Ordering::Relaxed);
    // SAFETY: `WRITING` keeps users away, and the exchange above saw none; those who copy expect that.
    unsafe { copy_site(&MaybeUninit::new(site), entry.site.get()) };
    let bound = if site.plan.action.is_displaced() { BOUND } else { 0 };
    // Release; pairs with the Acquire in `copy`.
    entry.version.store(before.wrapping_add(VERSION) | bound, Ordering::Release);
    // One user, ourselves; those who came in vain meanwhile take back what they added. Release; pairs with `find`.
    entry.users.fetch_sub(WRITING - 1, Ordering::Release);
    Some(Held { entry, index })
}
