//! Executable copies of instructions.
//!
//! Each entry of the cache of sites owns one slot, whose contents stay while the entry does; a few more slots serve
//! instructions that found their entry in use. The slots are one memory file that is mapped twice, writable here and
//! executable there.
//!
//! A processor may have fetched the old contents of a slot: after writing, every processor of the process is made to
//! synchronise before the slot is announced, or, on a kernel that cannot do that, each use does so for itself.

use super::trampoline::EXIT_OFFSET;
use crate::cache::{ENTRIES, Held};
use crate::sys;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// Bytes of a slot: an instruction of 15 bytes and the jump back.
const SLOT: usize = 32;
/// Slots that belong to no entry.
const SPARE: usize = 64;
const SIZE: usize = ((ENTRIES + SPARE) * SLOT).next_multiple_of(4096);
const PAGE: usize = 4096;

static WRITABLE: AtomicUsize = AtomicUsize::new(0);
static EXECUTABLE: AtomicUsize = AtomicUsize::new(0);
/// The address of an [`AtomicU32`] in a page that a forked child finds zeroed: `MISSING`, `BUILDING` or `READY`. So
/// a child knows that the slots, which are shared memory, are its parent's.
static LIFE: AtomicUsize = AtomicUsize::new(0);
/// Counts the pools of this line of processes; a slot whose state names an earlier one is empty.
static GENERATION: AtomicU32 = AtomicU32::new(0);
static TAKEN: [AtomicBool; SPARE] = [const { AtomicBool::new(false) }; SPARE];
static SYNCHRONIZES: AtomicBool = AtomicBool::new(false);

const MISSING: u32 = 0;
const BUILDING: u32 = 1;
const READY: u32 = 2;

/// A slot being written (in [`Held::stub`]); larger values are generations shifted left.
const WRITING: u32 = 1;

/// An instruction prepared for a slot.
#[derive(Clone, Copy)]
pub(crate) struct Code {
    bytes: [u8; SLOT],
    len: usize,
}

impl Code {
    /// Bytes of the instruction itself.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The instruction whose `len` bytes are given with a GS prefix in place of its segment prefixes, and without LOCK and its
    /// hints. `None` when it would become too long.
    pub(crate) fn displaced(original: &[u8]) -> Option<Self> {
        const GS: u8 = 0x65;
        const LOCK: u8 = 0xf0;
        let is_prefix =
            |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
        let locked = original.iter().take_while(|byte| is_prefix(byte)).any(|byte| *byte == LOCK);
        let mut code = [0xccu8; SLOT];
        (code[0], code[1]) = (GS, 0);
        let (mut len, mut rest) = (1, original);
        let mut rex = None;
        while let [first, tail @ ..] = rest {
            let keep = match first {
                0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => false,
                // With LOCK these are its hints, without it they may select the instruction.
                0xf2 | 0xf3 => !locked,
                &LOCK => false,
                0x66 | 0x67 => true,
                // Only a REX directly before the opcode counts. One that is followed by another prefix must vanish,
                // lest it come to count when that prefix does.
                0x40..=0x4f => {
                    (rex, rest) = (Some(*first), tail);
                    continue;
                }
                _ => break,
            };
            (rex, rest) = (None, tail);
            if keep && !code[1..len].contains(first) {
                code[len] = *first;
                len += 1;
            } else if keep && matches!(first, 0xf2 | 0xf3) {
                // Of F2 and F3 the last one counts.
                let old = code[1..len].iter().position(|byte| byte == first)? + 1;
                code.copy_within(old + 1..len, old);
                code[len - 1] = *first;
            }
        }
        for byte in rex.iter().chain(rest) {
            *code.get_mut(len)? = *byte;
            len += 1;
        }
        if len > crate::decode::LONGEST {
            return None;
        }
        let mut back = [0x64, 0xff, 0x24, 0x25, 0, 0, 0, 0];
        back[4..].copy_from_slice(&EXIT_OFFSET.to_le_bytes());
        code[len..len + back.len()].copy_from_slice(&back);
        code[len + back.len()..].fill(0xcc);
        Some(Self { bytes: code, len })
    }
}

/// Makes the pool. Called once, before the first fault.
pub(crate) fn warm() {
    let private = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping wherever there is room.
    if let Some(page) = unsafe { sys::map(None, PAGE, private, None) }
        && sys::wipe_on_fork(page, PAGE)
    {
        LIFE.store(page, Ordering::Release);
        ready();
    }
}

/// Is there a pool? In a child just forked this makes one.
pub(crate) fn ready() -> bool {
    let page = LIFE.load(Ordering::Acquire);
    if page == 0 {
        return false;
    }
    // SAFETY: `warm` mapped the page for this, it is never unmapped, and it is used only as this atomic.
    let life = unsafe { AtomicU32::from_ptr(std::ptr::with_exposed_provenance_mut(page)) };
    loop {
        // Acquire; pairs with the Release at the end of building.
        match life.load(Ordering::Acquire) {
            READY => return EXECUTABLE.load(Ordering::Relaxed) != 0,
            MISSING if life.compare_exchange(MISSING, BUILDING, Ordering::Relaxed, Ordering::Relaxed).is_ok() => {
                build();
                life.store(READY, Ordering::Release);
            }
            _ => sys::give_way(),
        }
    }
}

fn build() {
    // After a fork the places are known, and sites in the cache may still name them, so they are kept.
    let old = |place: &AtomicUsize| Some(place.load(Ordering::Relaxed)).filter(|address| *address != 0);
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for taken in &TAKEN {
        taken.store(false, Ordering::Relaxed);
    }
    SYNCHRONIZES.store(sys::register_core_synchronization(), Ordering::Relaxed);
    let Some(file) = sys::memory_file(SIZE) else {
        EXECUTABLE.store(0, Ordering::Relaxed);
        return;
    };
    let (read_write, read_execute) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_READ | libc::PROT_EXEC);
    // SAFETY: the old place is the pool of the parent process, which this process does not use.
    let writable = unsafe { sys::map(old(&WRITABLE), SIZE, read_write, Some(file)) };
    // SAFETY: as above.
    let executable = unsafe { sys::map(old(&EXECUTABLE), SIZE, read_execute, Some(file)) };
    WRITABLE.store(writable.unwrap_or(0), Ordering::Relaxed);
    EXECUTABLE.store(executable.filter(|_| writable.is_some()).unwrap_or(0), Ordering::Relaxed);
    sys::close(file);
}

/// A slot of our own or of an entry of the cache, filled.
pub(crate) struct Stub {
    /// Where the copy can be executed.
    pub(crate) address: u64,
    spare: Option<usize>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        if let Some(index) = self.spare {
            // Release; pairs with the Acquire in `spare`.
            TAKEN[index].store(false, Ordering::Release);
        }
    }
}

/// A slot with `code` in it. [`ready`] was true.
pub(crate) fn stub(held: Option<&Held>, code: &Code) -> Stub {
    let stub = match held {
        Some(held) => of_entry(held, code),
        None => spare(code),
    };
    if !SYNCHRONIZES.load(Ordering::Relaxed) {
        // CPUID serialises: what this processor executes next it has fetched anew.
        std::hint::black_box(crate::processor::cpuid(0, 0));
    }
    stub
}

fn of_entry(held: &Held, code: &Code) -> Stub {
    let (index, state) = held.stub();
    let filled = GENERATION.load(Ordering::Relaxed) << 1;
    let found = state.load(Ordering::Acquire);
    if found != filled {
        // Who loses the race, or finds the slot being written, takes another one for this time.
        let won =
            found != WRITING && state.compare_exchange(found, WRITING, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !won {
            return spare(code);
        }
        fill(index, code);
        // Release; pairs with the Acquire above.
        state.store(filled, Ordering::Release);
    }
    Stub { address: address(index), spare: None }
}

fn spare(code: &Code) -> Stub {
    loop {
        // Acquire; pairs with the Release in `Stub::drop`.
        let free = |taken: &AtomicBool| {
            !taken.load(Ordering::Relaxed)
                && taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        if let Some(index) = TAKEN.iter().position(free) {
            fill(ENTRIES + index, code);
            return Stub { address: address(ENTRIES + index), spare: Some(index) };
        }
        // Holders run one instruction and wait for nothing.
        sys::give_way();
    }
}

fn address(index: usize) -> u64 {
    (EXECUTABLE.load(Ordering::Relaxed) + index * SLOT) as u64
}

fn fill(index: usize, code: &Code) {
    let slot = WRITABLE.load(Ordering::Relaxed) + index * SLOT;
    let slot = std::ptr::with_exposed_provenance_mut::<[u8; SLOT]>(slot);
    // SAFETY: the slot lies in the writable mapping, whoever calls holds it exclusively, and nobody executes it.
    unsafe { slot.write_volatile(code.bytes) };
    if SYNCHRONIZES.load(Ordering::Relaxed) {
        sys::synchronize_cores();
    }
}

/// Has every use serialise for itself, as on a kernel that cannot make processors synchronise.
#[cfg(test)]
pub(super) fn pretend_to_be_an_old_kernel() {
    SYNCHRONIZES.store(false, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn displaced(original: &[u8]) -> Vec<u8> {
        let code = Code::displaced(original).expect("short enough");
        code.bytes[..code.len()].to_vec()
    }

    #[test]
    fn a_prefix_is_inserted_and_others_go() {
        assert_eq!(displaced(&[0x48, 0x01, 0x08]), [0x65, 0x48, 0x01, 0x08]);
        assert_eq!(displaced(&[0x64, 0x48, 0x01, 0x08]), [0x65, 0x48, 0x01, 0x08]);
        assert_eq!(displaced(&[0x66, 0x2e, 0x67, 0x01, 0x08]), [0x65, 0x66, 0x67, 0x01, 0x08]);
        assert_eq!(displaced(&[0xf0, 0x48, 0x01, 0x08]), [0x65, 0x48, 0x01, 0x08]);
        assert_eq!(displaced(&[0xf2, 0xf0, 0x01, 0x08]), [0x65, 0x01, 0x08]);
        assert_eq!(displaced(&[0xc5, 0xfc, 0x11, 0x00]), [0x65, 0xc5, 0xfc, 0x11, 0x00]);
    }

    #[test]
    fn a_rex_that_does_not_count_stays_without_effect() {
        assert_eq!(displaced(&[0x48, 0x64, 0x01, 0x08]), [0x65, 0x01, 0x08]);
        assert_eq!(displaced(&[0x48, 0x41, 0x01, 0x08]), [0x65, 0x41, 0x01, 0x08]);
    }

    #[test]
    fn repeated_prefixes_make_room() {
        let mut long = vec![0x66; 12];
        long.extend([0x01, 0x48, 0x7f]);
        assert_eq!(displaced(&long), [0x65, 0x66, 0x01, 0x48, 0x7f]);
        assert_eq!(displaced(&[0xf3, 0xf2, 0xf3, 0x0f, 0x11, 0x00]), [0x65, 0xf2, 0xf3, 0x0f, 0x11, 0x00]);
        let longest = [0x48, 0x81, 0x84, 0x88, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        assert!(Code::displaced(&longest).is_none());
    }

    #[test]
    fn the_way_back_follows() {
        let code = Code::displaced(&[0x01, 0x08]).expect("short");
        assert_eq!(code.bytes[3..11], [0x64, 0xff, 0x24, 0x25, 152, 0, 0, 0]);
    }
}
