//! A stage without a session: a region between two ordinary pages, and the engine told directly what faults in it.

use super::Stage;
use super::ground::{Ground, PAGE, check, code_near, copy_in, map, memory_file};
use crate::processor::Processor;
use std::io;

/// Pages of the region.
const REGION: usize = 3;
/// Ordinary pages on either side: a page of string instructions and more.
const MARGIN: usize = 1;
/// Nothing, on either side: string instructions may run far out of an arena.
const GUARD: usize = 32 * PAGE;
const SIZE: usize = (MARGIN + REGION + MARGIN) * PAGE;

/// One arena.
pub(super) struct Arena {
    start: usize,
    alias: usize,
}

impl Arena {
    /// `low`: below 2 GiB.
    pub(super) fn new(low: bool) -> io::Result<Self> {
        const LOW: usize = 0x2a00_0000;
        const STEP: usize = 0x10_0000;
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        let file = memory_file(SIZE)?;
        let room = |at| map(at, GUARD + SIZE + GUARD, libc::PROT_NONE, None);
        let room = match low {
            // The first free place of some.
            true => (0..64).find_map(|step| room(Some(LOW + step * STEP)).ok()).ok_or(io::ErrorKind::AddrInUse)?,
            false => room(None)?,
        };
        let start = room + GUARD;
        // SAFETY: the place was just reserved for this.
        check(unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(start), SIZE) } as isize)?;
        map(Some(start), SIZE, read_write, Some(file))?;
        let alias = map(None, SIZE, read_write, Some(file))?;
        crate::sys::close(file);
        let arena = Self { start, alias };
        arena.protect(false);
        Ok(arena)
    }

    /// Its addresses.
    pub(super) fn ground(&self, processor: &Processor) -> io::Result<Ground> {
        // From a low arena FS is too far away: the engine refuses that.
        let fs = self.start >> 32 != 0;
        Ground::new(self.place(), MARGIN * PAGE, code_near(self.start)?, fs, processor)
    }

    pub(super) fn place(&self) -> (usize, usize) {
        (self.start + MARGIN * PAGE, REGION * PAGE)
    }

    /// The writable address of a place in the region.
    pub(super) fn alias(&self, address: usize) -> usize {
        address - self.start + self.alias
    }

    /// Makes the region writable natively, or not.
    pub(super) fn protect(&self, writable: bool) {
        let (region, len) = self.place();
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: our own pages.
        unsafe { libc::mprotect(std::ptr::with_exposed_provenance_mut(region), len, protection) };
    }
}

impl Stage for Arena {
    fn region(&self) -> (usize, usize) {
        self.place()
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        copy_in(self.alias(self.place().0 + offset), bytes);
        Ok(())
    }

    fn settle(&mut self, _expected: &[u8]) -> io::Result<Option<String>> {
        // There is no second host, and the region itself was compared.
        Ok(None)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for (start, len) in [(self.start - GUARD, GUARD + SIZE + GUARD), (self.alias, SIZE)] {
            // SAFETY: mapped by `new`, and nobody uses it any more.
            unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(start), len) };
        }
    }
}
