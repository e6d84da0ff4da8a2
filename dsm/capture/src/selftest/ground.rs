//! The addresses of a test: a region, perhaps ordinary pages around it, pages for code, and private memory that takes
//! the region's place while instructions run natively.

use super::rng::Rng;
use crate::processor::{Processor, component};
use crate::sys;
use iced_x86::Register;
use std::io;

pub(super) const PAGE: usize = 4096;
const LINE: u64 = 64;
/// Bytes of code: two pages.
pub(super) const CODE: usize = 2 * PAGE;
/// A base for GS that is far from everything.
const SMALL_BASE: u64 = 0x1_0000;

/// Where a stage's memory lies, and what is in it.
pub(super) struct Ground {
    /// The region lies below 2 GiB, where every kind of address can reach it.
    pub(super) low: bool,
    pub(super) amd: bool,
    /// 32 if the processor has AVX-512, else 16.
    pub(super) evex_registers: u64,
    /// Bytes of what XSAVE writes at most.
    pub(super) save_area: usize,
    /// The base that GS has.
    pub(super) gs_base: u64,
    /// FS, if a store relative to it can be carried out.
    fs_base: Option<u64>,
    region: usize,
    region_len: usize,
    /// Bytes of ordinary memory before and behind the region.
    margin: usize,
    code: usize,
    code_alias: usize,
    /// What the region and its margins hold before the next instruction.
    pub(super) image: Vec<u8>,
    /// Where the memory is that the region's addresses do not show: the private one, or, while instructions run
    /// natively, the shared one.
    parked: usize,
    native: bool,
}

pub(super) fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Maps memory: of a file and shared, or anonymous and private. `at`: there, if nothing is there.
pub(super) fn map(at: Option<usize>, len: usize, protection: i32, file: Option<usize>) -> io::Result<usize> {
    let kind = if file.is_some() { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS };
    let place = if at.is_some() { libc::MAP_FIXED_NOREPLACE } else { 0 };
    let (at, file) = (std::ptr::without_provenance_mut(at.unwrap_or(0)), file.map_or(-1, |file| file as i32));
    // SAFETY: a new mapping that replaces nothing.
    let address = unsafe { libc::mmap(at, len, protection, kind | place | libc::MAP_NORESERVE, file, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(address.expose_provenance())
}

/// A new memory file.
pub(super) fn memory_file(len: usize) -> io::Result<usize> {
    sys::memory_file(len).ok_or_else(|| io::Error::other("no memory file can be had"))
}

const EXECUTABLE: i32 = libc::PROT_READ | libc::PROT_EXEC;
const WRITABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Pages for code, executable at the one address and writable at the other; the first one near `region` if there is
/// room, so that an address can be relative to RIP.
pub(super) fn code_near(region: usize) -> io::Result<(usize, usize)> {
    const STEP: usize = 64 << 20;
    let file = memory_file(CODE)?;
    let near = (1..16).find_map(|step| map(Some(region.checked_sub(step * STEP)?), CODE, EXECUTABLE, Some(file)).ok());
    let code = match near {
        Some(code) => code,
        None => map(None, CODE, EXECUTABLE, Some(file))?,
    };
    let alias = map(None, CODE, WRITABLE, Some(file))?;
    sys::close(file);
    Ok((code, alias))
}

impl Ground {
    /// On a region of `len` bytes with `margin` bytes of ordinary memory on both sides. `code`: [`CODE`] bytes, where
    /// they are executable and where they are writable.
    pub(super) fn new(
        (region, len): (usize, usize),
        margin: usize,
        (code, code_alias): (usize, usize),
        fs: bool,
        processor: &Processor,
    ) -> io::Result<Self> {
        let wide = processor.xcr0 & 1 << component::ZMM_MORE != 0;
        let ground = Self {
            low: region + len < 1 << 31,
            amd: processor.amd,
            evex_registers: if wide { 32 } else { 16 },
            save_area: processor.area,
            gs_base: SMALL_BASE,
            fs_base: fs.then(|| processor.segment_base(false)),
            region,
            region_len: len,
            margin,
            code,
            code_alias,
            image: vec![0; margin + len + margin],
            parked: map(None, len, WRITABLE, None)?,
            native: false,
        };
        // Wherever an instruction jumps to in here, it stops.
        ground.write_code(ground.code, &[0xcc; CODE]);
        Ok(ground)
    }

    /// Where the region lies, and its length.
    pub(super) fn region(&self) -> (usize, usize) {
        (self.region, self.region_len)
    }

    /// Is all of this in the region?
    pub(super) fn in_region(&self, address: usize, len: usize) -> bool {
        address >= self.region && address.checked_add(len).is_some_and(|end| end <= self.region + self.region_len)
    }

    /// The address of the first byte of the image.
    pub(super) fn start(&self) -> usize {
        self.region - self.margin
    }

    /// The middle of the region.
    pub(super) fn middle(&self) -> usize {
        self.region + self.region_len / 2
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

    pub(super) fn write_code(&self, address: usize, bytes: &[u8]) {
        copy_in(address - self.code + self.code_alias, bytes);
    }

    /// Another base for GS: a small number, or one near the region, from where 32 bits reach it.
    pub(super) fn draw_gs(&mut self, rng: &mut Rng) {
        self.gs_base = if rng.one_in(2) { SMALL_BASE } else { self.start() as u64 - SMALL_BASE };
    }

    /// Segment and base of an override that reaches the region.
    pub(super) fn segment(&self, rng: &mut Rng) -> (Register, u64) {
        match self.fs_base {
            Some(base) if rng.one_in(2) => (Register::FS, base),
            _ => (Register::GS, self.gs_base),
        }
    }

    /// Does an address relative to `base` fit 31 bits?
    pub(super) fn is_low(&self, base: u64) -> bool {
        (self.start() as u64).checked_sub(base).is_some_and(|offset| offset < 1 << 30)
    }

    /// An address for an operand of `size` bytes, nearly always wholly in the region; often it crosses the end of a
    /// line or of a page, now and then an end of the region.
    pub(super) fn target(&self, rng: &mut Rng, size: usize) -> usize {
        let (region, len) = self.region();
        let (size, room) = (size as u64, (len - size) as u64);
        let across = |rng: &mut Rng, unit: u64| {
            let boundary = (1 + rng.below(len as u64 / unit - 1)) * unit;
            boundary.saturating_sub(rng.below(size + 1)).min(room)
        };
        let offset = match rng.below(64) {
            0 => return region + len - 1 - rng.below(size) as usize,
            1 => return region - rng.below(size) as usize,
            2 => room,
            3 => 0,
            4..=7 => across(rng, PAGE as u64),
            8..=15 => across(rng, LINE),
            16..=39 => rng.below(room / LINE + 1) * LINE,
            _ => rng.below(room + 1),
        };
        region + offset as usize
    }

    /// Two words of the image.
    pub(super) fn peek(&self, address: usize) -> [u64; 2] {
        let word = |address: usize| {
            let mut bytes = [0; 8];
            let at = address.wrapping_sub(self.start());
            if let Some(found) = self.image.get(at..at.wrapping_add(8)) {
                bytes.copy_from_slice(found);
            }
            u64::from_le_bytes(bytes)
        };
        [word(address), word(address.wrapping_add(8))]
    }

    /// Random contents.
    pub(super) fn refresh(&mut self, rng: &mut Rng) {
        for word in self.image.chunks_exact_mut(8) {
            word.copy_from_slice(&rng.next().to_le_bytes());
        }
    }

    /// What the memory holds now.
    pub(super) fn contents(&self, into: &mut [u8]) {
        let from = std::ptr::with_exposed_provenance::<u8>(self.start());
        // SAFETY: region and margins are that long and can always be read; nobody writes them now.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), self.image.len().min(into.len())) };
    }

    /// Writes memory that is ordinary: a margin, or anything while instructions run natively.
    pub(super) fn put(&self, address: usize, bytes: &[u8]) {
        debug_assert!(self.native || !self.in_region(address, 1));
        copy_in(address, bytes);
    }

    /// Makes memory that is ordinary hold the image again.
    pub(super) fn restore(&self) {
        let (before, rest) = self.image.split_at(self.margin);
        let (region, behind) = rest.split_at(self.region_len);
        copy_in(self.start(), before);
        copy_in(self.region + self.region_len, behind);
        if self.native {
            copy_in(self.region, region);
        }
    }

    /// Has the region's addresses show private memory (`native`), or the shared memory that belongs there.
    pub(super) fn show(&mut self, native: bool) -> io::Result<()> {
        if self.native == native {
            return Ok(());
        }
        let kept = map(None, self.region_len, libc::PROT_NONE, None)?;
        let other = self.parked;
        self.shift(self.region, kept)?;
        self.shift(other, self.region)?;
        (self.parked, self.native) = (kept, native);
        Ok(())
    }

    /// Moves a mapping of the region's length onto another.
    fn shift(&self, from: usize, to: usize) -> io::Result<()> {
        let place = std::ptr::with_exposed_provenance_mut::<libc::c_void>(from);
        let target = std::ptr::with_exposed_provenance_mut::<libc::c_void>(to);
        let (len, flags) = (self.region_len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
        // SAFETY: both places are the region's or our own, and nobody uses them meanwhile.
        let moved = unsafe { libc::mremap(place, len, len, flags, target) };
        if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Ground {
    /// What belongs there is put back. (Whoever does not manage to do that has no way to say so.)
    fn drop(&mut self) {
        let _ = self.show(false);
        let parked = std::ptr::with_exposed_provenance_mut::<libc::c_void>(self.parked);
        // SAFETY: our own memory.
        unsafe { libc::munmap(parked, self.region_len) };
        // SAFETY: our own code.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.code), CODE) };
        // SAFETY: our own memory.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.code_alias), CODE) };
    }
}

pub(super) fn copy_in(to: usize, bytes: &[u8]) {
    let to = std::ptr::with_exposed_provenance_mut::<u8>(to);
    // SAFETY: every caller stays inside memory of the test.
    unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}
