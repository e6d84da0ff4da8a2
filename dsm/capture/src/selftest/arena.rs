//! The memory of the test: a region between two ordinary pages, and pages for code.

use super::rng::Rng;
use crate::processor::Processor;
use iced_x86::Register;
use std::io;

pub(super) const PAGE: usize = 4096;
/// Pages of the region.
const REGION: usize = 3;
/// The region and the ordinary page on either side.
pub(super) const SIZE: usize = (REGION + 2) * PAGE;
const CODE: usize = 2 * PAGE;
/// The base that GS has during the test.
pub(super) const GS_BASE: u64 = 0x1_0000;

/// One arena. Nothing is ever unmapped: a test makes two.
pub(super) struct Arena {
    /// It lies below 2 GiB, where every kind of address can reach it.
    pub(super) low: bool,
    pub(super) amd: bool,
    /// 32 if the processor has AVX-512, else 16.
    pub(super) evex_registers: u64,
    start: usize,
    alias: usize,
    code: usize,
    code_alias: usize,
    /// What the memory holds before each run.
    template: Vec<u8>,
    fs_base: u64,
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// How a place is asked for.
enum At {
    /// There, if nothing is there.
    Free(usize),
    /// In the middle of new address space that stays empty on both sides.
    Guarded,
}

fn map(at: At, len: usize, protection: i32, file: usize) -> io::Result<usize> {
    let (place, fixed) = match at {
        At::Free(place) => (place, libc::MAP_FIXED_NOREPLACE),
        At::Guarded => (guarded(len)?, libc::MAP_FIXED),
    };
    let place = std::ptr::without_provenance_mut(place);
    // SAFETY: replaces nothing, or only what was reserved for this.
    let address = unsafe { libc::mmap(place, len, protection, libc::MAP_SHARED | fixed, file as i32, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(address.expose_provenance())
}

/// Reserves a place with nothing near it: string instructions may run far out of an arena on either side.
fn guarded(len: usize) -> io::Result<usize> {
    const GUARD: usize = 32 * PAGE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping that replaces nothing.
    let room = unsafe { libc::mmap(std::ptr::null_mut(), GUARD + len + GUARD, libc::PROT_NONE, kind, -1, 0) };
    if room == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(room.addr() + GUARD)
}

fn memory(len: usize) -> io::Result<usize> {
    // SAFETY: the name is a string that ends in a zero.
    let file = check(unsafe { libc::memfd_create(c"dsm-selftest".as_ptr(), libc::MFD_CLOEXEC) } as isize)?;
    // SAFETY: the file is our own.
    check(unsafe { libc::ftruncate(file as i32, len as i64) } as isize)?;
    Ok(file)
}

impl Arena {
    pub(super) fn new(low: bool, processor: &Processor) -> io::Result<Self> {
        const LOW: usize = 0x2a00_0000;
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        let file = memory(SIZE + CODE)?;
        // One mapping for both, so that code and data are near each other.
        let start = match low {
            // The first free place of some.
            true => (0..64).find_map(|step| map(At::Free(LOW + step * 0x10_0000), SIZE + CODE, read_write, file).ok()),
            false => Some(map(At::Guarded, SIZE + CODE, read_write, file)?),
        };
        let start = start.ok_or(io::ErrorKind::AddrInUse)?;
        let alias = map(At::Guarded, SIZE + CODE, read_write, file)?;
        // SAFETY: the descriptor is our own and not used again.
        unsafe { libc::close(file as i32) };
        let code = start + SIZE;
        let executable = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: our own pages.
        check(unsafe { libc::mprotect(std::ptr::with_exposed_provenance_mut(code), CODE, executable) } as isize)?;
        let wide = processor.xcr0 & 1 << crate::processor::component::ZMM_MORE != 0;
        let arena = Self {
            low,
            amd: processor.amd,
            evex_registers: if wide { 32 } else { 16 },
            start,
            alias,
            code,
            code_alias: alias + SIZE,
            template: vec![0; SIZE],
            fs_base: processor.segment_base(false),
        };
        // Wherever an instruction jumps to in here, it stops.
        arena.write_code(arena.code, &[0xcc; CODE]);
        Ok(arena)
    }

    /// Where the region lies.
    pub(super) fn region(&self) -> (usize, usize) {
        (self.start + PAGE, REGION * PAGE)
    }

    /// The address of the first byte that is compared.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// The middle of the region.
    pub(super) fn middle(&self) -> usize {
        self.start + SIZE / 2
    }

    /// The writable address of a place in the arena.
    pub(super) fn alias(&self, address: usize) -> usize {
        address - self.start + self.alias
    }

    /// An address in the code pages that stops.
    pub(super) fn end_of_code(&self) -> u64 {
        (self.code + CODE - 16) as u64
    }

    /// A place for an instruction of up to 15 bytes: sometimes across the pages, sometimes up to the end of one.
    pub(super) fn place_for_code(&self, rng: &mut Rng) -> u64 {
        let offset = match rng.below(4) {
            0 => PAGE as u64 - 1 - rng.below(15),
            _ => rng.below(2 * PAGE as u64 - 64),
        };
        self.code as u64 + offset
    }

    /// Segment and base of an override that reaches the arena.
    pub(super) fn segment(&self, rng: &mut Rng) -> (Register, u64) {
        // From a low arena FS is too far away: that is the one thing that the engine refuses.
        if self.low || rng.one_in(2) { (Register::GS, GS_BASE) } else { (Register::FS, self.fs_base) }
    }

    /// An address for an operand of `size` bytes, nearly always wholly in the region.
    pub(super) fn target(&self, rng: &mut Rng, size: usize) -> usize {
        let (region, len) = self.region();
        match rng.below(64) {
            0 => region + len - 1 - rng.below(size as u64) as usize,
            1 => region - rng.below(size as u64) as usize,
            2..=31 => region + rng.below(((len - size) / 64) as u64) as usize * 64,
            _ => region + rng.below((len - size) as u64) as usize,
        }
    }

    /// Two words of the template.
    pub(super) fn peek(&self, address: usize) -> [u64; 2] {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            if let Some(found) = self.template.get(at..at + 8) {
                bytes.copy_from_slice(found);
            }
            u64::from_le_bytes(bytes)
        };
        let at = address - self.start;
        [word(at), word(at + 8)]
    }

    /// New random contents for the runs that follow.
    pub(super) fn refresh(&mut self, rng: &mut Rng) {
        for word in self.template.chunks_exact_mut(8) {
            word.copy_from_slice(&rng.next().to_le_bytes());
        }
    }

    /// Puts the template back, with a word poked into it.
    pub(super) fn reset(&self, poke: Option<(usize, u64)>) {
        self.copy_in(self.alias, &self.template);
        let inside = |(address, _): &(usize, u64)| *address >= self.start && address + 8 <= self.start + SIZE;
        if let Some((address, word)) = poke.filter(inside) {
            self.copy_in(self.alias(address), &word.to_le_bytes());
        }
    }

    /// What the memory holds now.
    pub(super) fn contents(&self, into: &mut [u8]) {
        let from = std::ptr::with_exposed_provenance::<u8>(self.alias);
        // SAFETY: the alias is that long, and nobody writes it now.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), SIZE.min(into.len())) };
    }

    pub(super) fn write_code(&self, address: usize, bytes: &[u8]) {
        self.copy_in(address - self.code + self.code_alias, bytes);
    }

    fn copy_in(&self, to: usize, bytes: &[u8]) {
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to);
        // SAFETY: every caller stays inside the aliases.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Makes the region writable natively, or not.
    pub(super) fn protect(&self, writable: bool) {
        let (region, len) = self.region();
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: our own pages.
        unsafe { libc::mprotect(std::ptr::with_exposed_provenance_mut(region), len, protection) };
    }
}
