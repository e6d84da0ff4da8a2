//! Memory files and mappings.

use crate::limits::PAGE;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Rounds up to whole pages; `None` when that does not fit.
pub fn whole_pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE)
}

/// Bytes of memory that could be had now, as `/proc/meminfo` estimates it.
pub fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    kib.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(u64::MAX, |kib| kib.saturating_mul(1024))
}

/// A memory file of `len` bytes (whole pages), zeroed, its memory committed, sealed against shrinking.
///
/// # Errors
/// `OutOfMemory` when the machine does not have it: now, and not as a SIGBUS later.
pub fn memory_file(name: &str, len: u64) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    grow_memory_file(&file, 0, len)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// Makes a memory file of `old` bytes `len` bytes long (whole pages).
///
/// # Errors
/// As [`memory_file`].
pub fn grow_memory_file(file: &impl AsFd, old: u64, len: u64) -> io::Result<()> {
    let (more, free) = (len.saturating_sub(old), available());
    if more > free {
        let text = format!("{more} bytes asked for, about {free} bytes of memory are free on this machine");
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
    }
    // Also where an earlier attempt has made it long enough, but could not get the memory.
    if rustix::fs::fstat(file)?.st_size as u64 <= len {
        rustix::fs::ftruncate(file, len)?;
    }
    rustix::fs::fallocate(file, FallocateFlags::empty(), old, more)?;
    Ok(())
}

/// Checks what a peer handed us as a memory file: its length, and that it can never shrink under our mapping.
///
/// # Errors
/// `InvalidData` when it is shorter than `len` or could shrink.
pub fn check_memory_file(file: &impl AsFd, len: u64) -> io::Result<()> {
    let found = rustix::fs::fstat(file)?.st_size as u64;
    let sealed = rustix::fs::fcntl_get_seals(file)?.contains(SealFlags::SHRINK);
    if found < len || !sealed {
        let text = format!("memory file of {found} bytes (sealed: {sealed}), expected {len} bytes, sealed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(())
}

/// A range of address space that is ours, unmapped when dropped.
#[derive(Debug)]
pub struct Range {
    base: *mut u8,
    len: usize,
}

// SAFETY: a range is an address and a length; what may be done with the bytes is for their users to say.
unsafe impl Send for Range {}
// SAFETY: as above; every method takes `&self` without touching the bytes.
unsafe impl Sync for Range {}

/// What a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reserved: any access faults.
    None,
    /// Loads only.
    Read,
    /// Loads and stores.
    ReadWrite,
}

impl Access {
    fn flags(self) -> ProtFlags {
        match self {
            Access::None => ProtFlags::empty(),
            Access::Read => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        }
    }
}

impl Range {
    /// Reserves `len` bytes of addresses, at `wish` when that is free. Costs no memory.
    ///
    /// # Errors
    /// What the kernel says, for instance under a limit on address space.
    pub fn reserve(len: usize, wish: Option<usize>) -> io::Result<Self> {
        let plain = MapFlags::PRIVATE | MapFlags::NORESERVE;
        if let Some(wish) = wish {
            // SAFETY: NOREPLACE never touches an existing mapping.
            let result = unsafe {
                rustix::mm::mmap_anonymous(wish as *mut _, len, ProtFlags::empty(), plain | MapFlags::FIXED_NOREPLACE)
            };
            if let Ok(base) = result {
                return Ok(Self { base: base.cast(), len });
            }
        }
        // SAFETY: a fresh mapping where the kernel chooses.
        let base = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), plain) }?;
        Ok(Self { base: base.cast(), len })
    }

    /// Maps the whole of a memory file, shared and writable, where the kernel chooses.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of_file(file: &impl AsFd, len: usize) -> io::Result<Self> {
        let range = Self::reserve(len, None)?;
        range.map_file(0, len, Access::ReadWrite, file)?;
        Ok(range)
    }

    /// Private zeroed memory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn private(len: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping where the kernel chooses.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                Access::ReadWrite.flags(),
                // (Miri knows of no others.)
                if cfg!(miri) { MapFlags::PRIVATE } else { MapFlags::PRIVATE | MapFlags::NORESERVE },
            )
        }?;
        Ok(Self { base: base.cast(), len })
    }

    /// As [`Range::private`], but a child of `fork`, however it was made, finds zeros there (`MADV_WIPEONFORK`).
    ///
    /// # Errors
    /// What the kernel says; it has this since Linux 4.14.
    pub fn of_this_process(len: usize) -> io::Result<Self> {
        let range = Self::private(len)?;
        // SAFETY: a mapping of our own, just made; nothing is in it.
        unsafe { rustix::mm::madvise(range.base.cast(), len, rustix::mm::Advice::LinuxWipeOnFork) }?;
        Ok(range)
    }

    /// First address.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, offset: usize, len: usize) -> io::Result<*mut libc::c_void> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        if !inside || !offset.is_multiple_of(PAGE as usize) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "range outside the reservation"));
        }
        Ok(self.base.wrapping_add(offset).cast())
    }

    /// Maps the first `len` bytes of `file`, shared, at `offset` of this range, replacing what was there at once.
    ///
    /// # Errors
    /// `InvalidInput` outside the range, else what the kernel says.
    pub fn map_file(&self, offset: usize, len: usize, access: Access, file: &impl AsFd) -> io::Result<()> {
        self.map_file_part(offset, len, access, file, 0)
    }

    /// As [`Range::map_file`], from byte `from` of the file.
    ///
    /// # Errors
    /// `InvalidInput` outside the range, else what the kernel says.
    pub fn map_file_part(
        &self,
        offset: usize,
        len: usize,
        access: Access,
        file: &impl AsFd,
        from: u64,
    ) -> io::Result<()> {
        let address = self.at(offset, len)?;
        // SAFETY: `at` has checked that FIXED replaces only addresses that this range owns.
        unsafe { rustix::mm::mmap(address, len, access.flags(), MapFlags::SHARED | MapFlags::FIXED, file, from) }?;
        Ok(())
    }

    /// Moves the pages of `other` over `[offset, offset + other.len())` of this range in one step.
    ///
    /// # Errors
    /// `InvalidInput` outside the range, else what the kernel says.
    pub fn take_over(&self, offset: usize, other: Self) -> io::Result<()> {
        let address = self.at(offset, other.len)?;
        // SAFETY: source and target are both ours whole; the source is given up below.
        unsafe {
            rustix::mm::mremap_fixed(other.base.cast(), other.len, other.len, rustix::mm::MremapFlags::MAYMOVE, address)
        }?;
        std::mem::forget(other);
        Ok(())
    }

    /// Changes what `[offset, offset + len)` allows.
    ///
    /// # Errors
    /// `InvalidInput` outside the range, else what the kernel says.
    pub fn protect(&self, offset: usize, len: usize, access: Access) -> io::Result<()> {
        let address = self.at(offset, len)?;
        let flags = rustix::mm::MprotectFlags::from_bits_retain(access.flags().bits());
        // SAFETY: addresses of this range only; its users hold no references into it.
        unsafe { rustix::mm::mprotect(address, len, flags) }?;
        Ok(())
    }

    /// Puts `[offset, offset + len)` back to reserved and inaccessible.
    ///
    /// # Errors
    /// `InvalidInput` outside the range, else what the kernel says.
    pub fn release(&self, offset: usize, len: usize) -> io::Result<()> {
        let address = self.at(offset, len)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: `at` has checked that FIXED replaces only addresses that this range owns.
        unsafe { rustix::mm::mmap_anonymous(address, len, ProtFlags::empty(), flags) }?;
        Ok(())
    }

    /// Gives the range up without unmapping it.
    pub fn leak(self) -> *mut u8 {
        let base = self.base;
        std::mem::forget(self);
        base
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: the range is ours whole and nobody borrows from it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.cast(), self.len) };
    }
}
