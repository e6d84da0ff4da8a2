//! The trap door: SIGSEGV on the view, carried out elsewhere.
//!
//! In the handler: no allocation, no lock but the replica lock, `errno` kept, all signals blocked, on a stack of our
//! own (a thread's alternate stack may be as small as one AVX-512 frame).

use crate::region::{Region, fatal};
use crate::{Error, Result, wait};
use dsm_capture::{Outcome, Sink};
use dsm_core::limits::SPACE;
use dsm_core::op::AtomicOp;
use dsm_core::sys::{futex, map};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Sessions that one process can be joined to at the same time.
const REGIONS: usize = 64;
/// Threads that can be inside the handler at the same time; more wait for their turn.
const STACKS: usize = 256;
/// Bytes of one stack, its guard page included.
const STACK: usize = 128 << 10;

/// A published region, and how many handlers are using it.
struct Entry {
    region: AtomicPtr<Region>,
    view: AtomicUsize,
    users: AtomicU32,
}

static ENTRIES: [Entry; REGIONS] =
    [const { Entry { region: AtomicPtr::new(null_mut()), view: AtomicUsize::new(0), users: AtomicU32::new(0) } };
        REGIONS];

/// Stacks for the handler: taken by one compare-exchange, given back when it returns.
static TAKEN: [AtomicU32; STACKS] = [const { AtomicU32::new(0) }; STACKS];
static STACK_BASE: AtomicUsize = AtomicUsize::new(0);

/// What handled SIGSEGV before us.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once.
pub(crate) fn install() -> Result<()> {
    static DONE: OnceLock<std::result::Result<(), (String, i32)>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        install_once().map_err(|error| match error {
            Error::System { what, source } => (what, source.raw_os_error().unwrap_or(0)),
            other => (other.to_string(), 0),
        })
    });
    done.clone().map_err(|(what, code)| Error::System { what, source: std::io::Error::from_raw_os_error(code) })
}

fn install_once() -> Result<()> {
    // Everything that allocates on first use does so now.
    dsm_capture::warm();
    crate::fork::install()?;
    let cannot = |what: &str| Error::system(format!("cannot prepare the trap door: {what}"));
    let stacks = map::Range::private(STACKS * STACK).map_err(cannot("no memory for stacks"))?;
    for stack in 0..STACKS {
        stacks.protect(stack * STACK, 4096, map::Access::None).map_err(cannot("no guard page"))?;
    }
    STACK_BASE.store(stacks.leak() as usize, Ordering::Release);
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    // SIGINFO: we need the context. ONSTACK: so that a stack overflow still reaches whoever reports it. RESTART: a
    // fault interrupts no system call, but it costs nothing to say so. Not NODEFER: nothing may interrupt.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // All signals, also the two that libc's `sigfillset` leaves out.
    // SAFETY: `sigset_t` is an array of words; all ones is valid, and the kernel ignores what cannot be blocked.
    unsafe { (&raw mut action.sa_mask).cast::<u8>().write_bytes(0xff, size_of::<libc::sigset_t>()) };
    // SAFETY: all zeros is a valid `sigaction`.
    let mut previous: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks.
    unsafe { libc::sigaction(libc::SIGSEGV, std::ptr::null(), &raw mut previous) };
    // Known before our handler can run.
    let _ = PREVIOUS.set(previous);
    // SAFETY: `on_fault` is async-signal-safe, as the module says.
    let result = unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, null_mut()) };
    if result != 0 {
        return Err(cannot("sigaction")(std::io::Error::last_os_error()));
    }
    Ok(())
}

/// From now on, faults in the view of `region` are its stores.
pub(crate) fn publish(region: &Region) -> Result<()> {
    let view = region.address(0) as usize;
    for entry in &ENTRIES {
        let pointer = std::ptr::from_ref(region).cast_mut();
        if entry.region.compare_exchange(null_mut(), pointer, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // Release: pairs with the Acquire in `find`; the region is complete.
            entry.view.store(view, Ordering::Release);
            return Ok(());
        }
    }
    Err(Error::TooLarge(format!("this process has joined {REGIONS} sessions already: leave one first")))
}

/// The opposite; returns when no handler uses the region any more.
pub(crate) fn withdraw(region: &Region) {
    for entry in &ENTRIES {
        if std::ptr::eq(entry.region.load(Ordering::Acquire), region) {
            entry.view.store(0, Ordering::SeqCst);
            // SeqCst: either a handler has counted itself and we wait, or it sees that the view is gone.
            while entry.users.load(Ordering::SeqCst) != 0 {
                futex::give_way();
            }
            entry.region.store(null_mut(), Ordering::Release);
        }
    }
}

/// All published regions: for the child of a `fork`.
pub(crate) fn regions() -> impl Iterator<Item = &'static Region> {
    ENTRIES.iter().filter(|entry| entry.view.load(Ordering::Acquire) != 0).filter_map(|entry| {
        // SAFETY: published, so alive; a region is withdrawn before it is freed.
        unsafe { entry.region.load(Ordering::Acquire).as_ref() }
    })
}

/// The entry whose view holds this address, counted as used.
fn find(address: usize) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| {
        let inside = |view: usize| view != 0 && address.wrapping_sub(view) < SPACE as usize;
        if !inside(entry.view.load(Ordering::Acquire)) {
            return false;
        }
        entry.users.fetch_add(1, Ordering::SeqCst);
        let still = inside(entry.view.load(Ordering::SeqCst));
        if !still {
            entry.users.fetch_sub(1, Ordering::SeqCst);
        }
        still
    })
}

/// What the inner half of the handler is told.
struct Fault {
    region: *const Region,
    context: *mut libc::ucontext_t,
    address: usize,
    ours: bool,
}

/// The handler. Its outer half runs on whatever stack the kernel chose, and uses little of it.
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid siginfo to a handler with SA_SIGINFO.
    let info_here = unsafe { &*info };
    // One that somebody sent has no address: other fields lie in its place.
    if info_here.si_code <= 0 {
        return pass_on(signal, info, context);
    }
    // SAFETY: SIGSEGV fills in the address.
    let address = unsafe { info_here.si_addr() } as usize;
    let Some(entry) = find(address) else { return pass_on(signal, info, context) };
    // SAFETY: takes nothing.
    let errno_place = unsafe { libc::__errno_location() };
    // SAFETY: errno is this thread's.
    let errno = unsafe { errno_place.read() };
    let region = entry.region.load(Ordering::Acquire).cast_const();
    let mut fault = Fault { region, context: context.cast(), address, ours: false };
    let stack = take_stack();
    let top = STACK_BASE.load(Ordering::Acquire) + (stack + 1) * STACK;
    // The program may have alignment checks on (the flag AC), of which compiled code knows nothing; it gets its flags
    // back from the signal frame.
    // SAFETY: the stack is ours alone until it is given back, mapped and 16-byte aligned; `inner` returns; r12 is kept
    // by the calling convention, so the old stack pointer comes back.
    unsafe {
        std::arch::asm!(
            "mov r12, rsp",
            "mov rsp, {top}",
            "pushfq",
            "and dword ptr [rsp], ~0x40000",
            "popfq",
            "call {inner}",
            "mov rsp, r12",
            top = in(reg) top,
            inner = sym inner,
            in("rdi") &raw mut fault,
            out("r12") _,
            clobber_abi("C"),
        );
    }
    TAKEN[stack].store(0, Ordering::Release);
    entry.users.fetch_sub(1, Ordering::SeqCst);
    // SAFETY: as above.
    unsafe { errno_place.write(errno) };
    if !fault.ours {
        pass_on(signal, info, context);
    }
}

fn take_stack() -> usize {
    loop {
        for (at, taken) in TAKEN.iter().enumerate() {
            if taken.load(Ordering::Relaxed) == 0
                && taken.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return at;
            }
        }
        // All in use: each is given back when its store is done.
        futex::give_way();
    }
}

/// The inner half, on a stack of our own.
extern "C" fn inner(fault: *mut Fault) {
    // SAFETY: `on_fault` gives a pointer to its own variable, and waits for us.
    let fault = unsafe { &mut *fault };
    // SAFETY: the entry is counted as used, so the region is alive.
    let region = unsafe { &*fault.region };
    let mut door = TrapDoor { region };
    let outcome = Region::trapped(|| {
        // SAFETY: the context of the SIGSEGV that is being handled, on a stack of more than 32 KiB, with all signals
        // blocked by `sa_mask`; `writable` is true only of mapped segments.
        unsafe { dsm_capture::carry_out(fault.context, fault.address, &mut door) }
    });
    match outcome {
        Ok(Outcome::Done) => fault.ours = true,
        Ok(Outcome::NotOurs) => {}
        Err(unsupported) => {
            // The process is about to end, so that it may allocate now.
            let text = format!("dsm: {unsupported}: {}", unsupported.describe());
            fatal(&[text.as_bytes()]);
        }
    }
}

/// Where trapped stores go.
struct TrapDoor<'a> {
    region: &'a Region,
}

impl Sink for TrapDoor<'_> {
    fn writable(&self, address: usize, len: usize) -> bool {
        self.region.offset_of(address).is_some_and(|offset| self.region.contains(offset, len))
    }

    fn store(&mut self, address: usize, bytes: &[u8]) {
        if let Some(offset) = self.region.offset_of(address) {
            self.region.store_trapped(offset, bytes);
        }
    }

    fn atomic(&mut self, address: usize, op: AtomicOp) -> u128 {
        match self.region.offset_of(address) {
            Some(offset) => wait::atomic(self.region, offset, op),
            None => fatal(&[b"dsm: an atomic outside of the view was taken for one inside"]),
        }
    }
}

/// Not ours: as if we were not there.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(previous) = PREVIOUS.get() else { fatal(&[b"dsm: a fault before the handler was set up"]) };
    if matches!(previous.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
        // Takes effect when the instruction faults again; ignoring a fault is not possible either.
        // SAFETY: all zeros is the default action.
        let default: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: as for every handler with SA_SIGINFO.
        let sent = unsafe { (*info).si_code } <= 0;
        if sent && previous.sa_sigaction == libc::SIG_IGN {
            return;
        }
        // SAFETY: restores the default action.
        unsafe { libc::sigaction(signal, &raw const default, null_mut()) };
        if sent {
            // No instruction will fault again. It arrives when the handler returns.
            // SAFETY: sends a signal to this thread.
            unsafe { libc::raise(signal) };
        }
        return;
    }
    // With the signal mask that it would have had.
    let context_pointer = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel's context is valid as long as the handler runs.
    let mut mask = unsafe { (*context_pointer).uc_sigmask };
    for number in 1..=64 {
        // SAFETY: asks about a signal number in range.
        let blocked = unsafe { libc::sigismember(&raw const previous.sa_mask, number) } == 1;
        let own = number == signal && previous.sa_flags & libc::SA_NODEFER == 0;
        if blocked || own {
            // SAFETY: adds a signal number in range to a set of ours.
            unsafe { libc::sigaddset(&raw mut mask, number) };
        }
    }
    // SAFETY: a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, null_mut()) };
    if previous.sa_flags & libc::SA_SIGINFO != 0 {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: whoever installed it said so with SA_SIGINFO.
        let handler: Handler = unsafe { std::mem::transmute(previous.sa_sigaction) };
        handler(signal, info, context);
    } else {
        type Handler = extern "C" fn(libc::c_int);
        // SAFETY: installed without SA_SIGINFO, and neither default nor ignore.
        let handler: Handler = unsafe { std::mem::transmute(previous.sa_sigaction) };
        handler(signal);
    }
}
