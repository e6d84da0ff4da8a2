//! System calls made from inside a signal handler.
//!
//! They go to the kernel directly: libc's wrappers write `errno`, which belongs to the interrupted program.

use std::arch::asm;

/// Makes a system call and returns the kernel's answer (a negated errno on failure).
///
/// # Safety
/// As for the system call itself.
unsafe fn call(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let result: isize;
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the registers are those of the kernel's calling convention and both that it destroys are declared;
    // the caller answers for what the call does.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack))
    };
    result
}

/// Can the 8-byte word around `address` be read now?
///
/// The kernel is asked to read a signal set from there for an operation that does not exist: it answers EFAULT when
/// it cannot read it, and EINVAL, changing nothing, when it can.
pub(crate) fn readable(address: usize) -> bool {
    const SIGNAL_SET: usize = 8;
    let arguments = [usize::MAX, address & !7, 0, SIGNAL_SET, 0, 0];
    // SAFETY: with this `how` the call is refused after the read, so no state changes; the kernel checks the pointer.
    let answer = unsafe { call(libc::SYS_rt_sigprocmask, arguments) };
    answer != -(libc::EFAULT as isize)
}

/// Gives the processor to somebody else.
pub(crate) fn give_way() {
    // SAFETY: the call takes no arguments and has no effect on memory.
    unsafe { call(libc::SYS_sched_yield, [0; 6]) };
}

/// Would `signal` reach the program, or end it? (If not, it is ignored.)
pub(crate) fn delivers(signal: i32) -> bool {
    // The kernel's structure: handler, flags, restorer, mask.
    let mut action = [0usize; 4];
    // SAFETY: only asks; the structure has the kernel's size.
    let answer = unsafe { call(libc::SYS_rt_sigaction, [signal as usize, 0, (&raw mut action).addr(), 8, 0, 0]) };
    answer == 0 && action[0] != libc::SIG_IGN
}

/// Sends this thread a signal such as an instruction at `address` causes. It arrives when signals are let in again.
pub(crate) fn send_to_self(signal: i32, code: i32, address: u64) {
    // The kernel's record: number, errno, code, and, aligned to 8, what belongs to the signal.
    let mut record = [0u64; 16];
    record[0] = signal as u32 as u64;
    record[1] = code as u32 as u64;
    record[2] = address;
    // SAFETY: the call has no effect on memory.
    let process = unsafe { call(libc::SYS_getpid, [0; 6]) };
    // SAFETY: as above.
    let thread = unsafe { call(libc::SYS_gettid, [0; 6]) };
    let arguments = [process as usize, thread as usize, signal as usize, (&raw const record).addr(), 0, 0];
    // SAFETY: the record has the kernel's size of 128 bytes.
    unsafe { call(libc::SYS_rt_tgsigqueueinfo, arguments) };
}

/// The FS (`gs` false) or GS base of this thread, asked from the kernel.
pub(crate) fn segment_base(gs: bool) -> u64 {
    const ARCH_GET_FS: usize = 0x1003;
    const ARCH_GET_GS: usize = 0x1004;
    let mut base = 0u64;
    let arguments = [if gs { ARCH_GET_GS } else { ARCH_GET_FS }, (&raw mut base).addr(), 0, 0, 0, 0];
    // SAFETY: the kernel writes eight bytes to `base`, which lives until after the call.
    unsafe { call(libc::SYS_arch_prctl, arguments) };
    base
}

const MEMBARRIER_SYNC_CORE: usize = 1 << 5;
const MEMBARRIER_REGISTER_SYNC_CORE: usize = 1 << 6;

/// Asks for the right to use [`synchronize_cores`]; says whether the kernel granted it.
pub(crate) fn register_core_synchronization() -> bool {
    // SAFETY: the call only sets a flag of this process.
    unsafe { call(libc::SYS_membarrier, [MEMBARRIER_REGISTER_SYNC_CORE, 0, 0, 0, 0, 0]) == 0 }
}

/// Makes every processor that runs a thread of this process forget what it fetched of code before.
pub(crate) fn synchronize_cores() -> bool {
    // SAFETY: the call has no effect on memory.
    unsafe { call(libc::SYS_membarrier, [MEMBARRIER_SYNC_CORE, 0, 0, 0, 0, 0]) == 0 }
}

/// A new memory file of `size` bytes that may be mapped executable.
pub(crate) fn memory_file(size: usize) -> Option<usize> {
    const MFD_CLOEXEC: usize = 1;
    const MFD_EXEC: usize = 0x10;
    let name = c"dsm-stubs".as_ptr().addr();
    // SAFETY: the name is a static string that ends in a zero.
    let mut file = unsafe { call(libc::SYS_memfd_create, [name, MFD_CLOEXEC | MFD_EXEC, 0, 0, 0, 0]) };
    if file < 0 {
        // Kernels before 6.3 do not know the second flag and need none.
        // SAFETY: as above.
        file = unsafe { call(libc::SYS_memfd_create, [name, MFD_CLOEXEC, 0, 0, 0, 0]) };
    }
    let file = usize::try_from(file).ok()?;
    // SAFETY: the file was made here.
    let sized = unsafe { call(libc::SYS_ftruncate, [file, size, 0, 0, 0, 0]) };
    if sized == 0 {
        return Some(file);
    }
    close(file);
    None
}

/// Closes a file that [`memory_file`] made.
pub(crate) fn close(file: usize) {
    // SAFETY: the caller owns the descriptor and does not use it again.
    unsafe { call(libc::SYS_close, [file, 0, 0, 0, 0, 0]) };
}

/// Maps `size` bytes: of `file` and shared, or anonymous and private. `at`: exactly there, replacing what is there.
///
/// # Safety
/// What lies at `at` must belong to the caller, and nobody may depend on its contents.
pub(crate) unsafe fn map(at: Option<usize>, size: usize, protection: i32, file: Option<usize>) -> Option<usize> {
    let kind = if file.is_some() { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS };
    let place = if at.is_some() { libc::MAP_FIXED } else { 0 };
    let arguments =
        [at.unwrap_or(0), size, protection as usize, (kind | place) as usize, file.unwrap_or(usize::MAX), 0];
    // SAFETY: without MAP_FIXED a mapping disturbs no other; with it, the caller owns the place.
    let address = unsafe { call(libc::SYS_mmap, arguments) };
    usize::try_from(address).ok()
}

/// Do programs have addresses of more than 48 bits? (A processor may know such and the system not use them.)
pub(crate) fn has_wide_addresses() -> bool {
    const PAGE: usize = 4096;
    // The system gives such an address only to those who wish for one, and another where it has none.
    const WISH: usize = 1 << 48;
    let kind = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    // SAFETY: the mapping disturbs no other.
    let given = unsafe { call(libc::SYS_mmap, [WISH, PAGE, libc::PROT_NONE as usize, kind, usize::MAX, 0]) };
    let Ok(given) = usize::try_from(given) else { return false };
    // SAFETY: just mapped here.
    unsafe { call(libc::SYS_munmap, [given, PAGE, 0, 0, 0, 0]) };
    given >= WISH
}

/// Has a forked child see zeros in these pages.
pub(crate) fn wipe_on_fork(address: usize, size: usize) -> bool {
    // SAFETY: the advice changes only what a child sees.
    unsafe { call(libc::SYS_madvise, [address, size, libc::MADV_WIPEONFORK as usize, 0, 0, 0]) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "assembly")]
    fn readable_tells_mapped_from_unmapped() {
        let local = 5u8;
        assert!(readable((&raw const local).addr()));
        assert!(!readable(8));
        // SAFETY: no address is asked for.
        let hole = unsafe { map(None, 4096, libc::PROT_NONE, None) }.expect("address space");
        assert!(!readable(hole + 100));
    }

    #[test]
    #[cfg_attr(miri, ignore = "assembly")]
    fn the_base_of_fs_points_to_itself() {
        let base = segment_base(false);
        let own: u64;
        // SAFETY: the ABI puts the thread pointer at offset 0 of the FS segment.
        unsafe { asm!("mov {}, fs:[0]", out(reg) own, options(nostack, readonly)) };
        assert_eq!(base, own);
    }
}
