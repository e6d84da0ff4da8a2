//! The trap door: SIGSEGV on the view, carried out elsewhere.
//!
//! In the handler: no allocation, no lock but the replica lock, `errno` kept, all signals blocked, on a stack of our
//! own (a thread's alternate stack may be as small as one AVX-512 frame).

use crate::hands::hands;
use crate::region::{Region, fatal};
use crate::{Error, Result, wait};
use dsm_capture::{Outcome, Sink};
use dsm_core::limits::SPACE;
use dsm_core::op::AtomicOp;
use dsm_core::sys::{futex, map};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Sessions that one process can be joined to at the same time.
const REGIONS: usize = 64;
/// Threads that can be inside the handler at the same time; more wait for their turn. The last place is for those whose
/// handlers interrupted a capture, for whose lock all others may be waiting; they themselves wait for nothing here.
const STACKS: usize = 256;
/// Bytes of one stack, its guard page included.
const STACK: usize = 128 << 10;

/// A published region. Handlers that use it say so where they took their stack.
struct Entry {
    region: AtomicPtr<Region>,
    view: AtomicUsize,
    /// How many others use it: see [`Pinned`].
    users: AtomicU32,
}

impl Entry {
    /// Does its view hold this address?
    fn holds(&self, address: usize, ordering: Ordering) -> bool {
        let view = self.view.load(ordering);
        view != 0 && address.wrapping_sub(view) < SPACE as usize
    }
}

static ENTRIES: [Entry; REGIONS] =
    [const { Entry { region: AtomicPtr::new(null_mut()), view: AtomicUsize::new(0), users: AtomicU32::new(0) } };
        REGIONS];

/// Stacks for the handler: taken by one compare-exchange, given back when it returns. 0: free; else the number of the
/// entry, plus one, whose region is used on it. (One locked instruction for both: each costs as much as the whole
/// decision.)
static TAKEN: [AtomicU32; STACKS] = [const { AtomicU32::new(0) }; STACKS];
static STACK_BASE: AtomicUsize = AtomicUsize::new(0);

/// What handled SIGSEGV before us, and what has displaced us since: the newest gets what is not ours, and may pass it
/// on to us as to the one before it, whereupon the next older one gets it.
static PREVIOUS: [OnceLock<libc::sigaction>; HANDLERS] = [const { OnceLock::new() }; HANDLERS];
static PREVIOUS_COUNT: AtomicUsize = AtomicUsize::new(0);
/// Handlers that may displace ours in the life of a process.
const HANDLERS: usize = 16;
/// In `uc_link` of a context, which the kernel leaves zero, together with a level: the fault has been passed on to the
/// handler of that level.
const PASSED: usize = 0x6473_6d00;

/// In a child of `fork` that was made in the middle of a store: see [`crate::fork`].
static TORN: AtomicBool = AtomicBool::new(false);

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
    reinstall()
}

/// Puts our handler in front, if it is not there. What was there gets what is not ours.
///
/// Called by one thread at a time.
pub(crate) fn reinstall() -> Result<()> {
    let found = crate::signals::action_of(libc::SIGSEGV);
    if found.sa_sigaction == on_fault as *const () as usize {
        return Ok(());
    }
    let count = PREVIOUS_COUNT.load(Ordering::Acquire);
    let newest = count.checked_sub(1).and_then(|at| PREVIOUS[at].get());
    let known =
        newest.is_some_and(|newest| (newest.sa_sigaction, newest.sa_flags) == (found.sa_sigaction, found.sa_flags));
    if !known {
        let Some(place) = PREVIOUS.get(count) else {
            let text = format!("the library's handler of SIGSEGV was displaced by {HANDLERS} others: no room for more");
            return Err(Error::TooLarge(text));
        };
        // Known before our handler can run.
        let _ = place.set(found);
        PREVIOUS_COUNT.store(count + 1, Ordering::Release);
    }
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    // SIGINFO: we need the context. ONSTACK: so that a stack overflow still reaches whoever reports it. RESTART: a
    // fault interrupts no system call, but it costs nothing to say so. Not NODEFER: nothing may interrupt.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // All signals, also the two that libc's `sigfillset` leaves out.
    // SAFETY: `sigset_t` is an array of words; all ones is valid, and the kernel ignores what cannot be blocked.
    unsafe { (&raw mut action.sa_mask).cast::<u8>().write_bytes(0xff, size_of::<libc::sigset_t>()) };
    // SAFETY: `on_fault` is async-signal-safe, as the module says.
    let result = unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, null_mut()) };
    if result != 0 {
        return Err(Error::system("cannot prepare the trap door: sigaction")(std::io::Error::last_os_error()));
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
    for (number, entry) in (1..).zip(&ENTRIES) {
        if std::ptr::eq(entry.region.load(Ordering::Acquire), region) {
            entry.view.store(0, Ordering::SeqCst);
            // SeqCst: either a handler has said that it uses it and we wait, or it sees that the view is gone.
            let used = || {
                let on = |taken: &AtomicU32| taken.load(Ordering::SeqCst) == number;
                entry.users.load(Ordering::SeqCst) != 0 || TAKEN.iter().any(on)
            };
            while used() {
                futex::give_way();
            }
            entry.region.store(null_mut(), Ordering::Release);
        }
    }
}

/// What the inner half of the handler is told.
struct Fault {
    region: *const Region,
    context: *mut libc::ucontext_t,
    address: usize,
    ours: bool,
}

/// The handler: [`on_fault_at`] with the stack pointer that it was entered with.
#[unsafe(naked)]
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    std::arch::naked_asm!("mov rcx, rsp", "jmp {at}", at = sym on_fault_at)
}

extern "C" fn on_fault_at(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    entered_with: usize,
) {
    // The kernel puts the context right above the return address. Otherwise a handler that has displaced ours calls us,
    // with the signal mask that it asked for.
    let by_kernel = entered_with + 8 == context as usize;
    // SAFETY: a handler's arguments, from the kernel or from whom it gave them to.
    if !unsafe { carry_out(info, context, by_kernel) } {
        pass_on(signal, info, context, by_kernel);
    }
}

/// For a handler of the program's. Is it a store of ours? Then it is carried out.
///
/// # Safety
/// The arguments of a handler of SIGSEGV that is running now.
pub(crate) unsafe fn handle(info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    // SAFETY: the caller's contract is ours.
    unsafe { carry_out(info, context, false) }
}

/// Carries out what faulted, if it is a store of ours. This outer half runs on whatever stack the kernel chose, and
/// uses little of it. `blocked`: all signals are blocked.
///
/// # Safety
/// The arguments of a handler of SIGSEGV that is running now.
unsafe fn carry_out(info: *mut libc::siginfo_t, context: *mut libc::c_void, blocked: bool) -> bool {
    // SAFETY: by the contract a valid siginfo.
    let info_here = unsafe { &*info };
    // One that somebody sent has no address: other fields lie in its place.
    if info_here.si_code <= 0 {
        return false;
    }
    // SAFETY: SIGSEGV fills in the address.
    let address = unsafe { info_here.si_addr() } as usize;
    let holding = |entry: &Entry| entry.holds(address, Ordering::Acquire);
    let Some(at) = ENTRIES.iter().position(holding) else { return false };
    // SAFETY: takes nothing.
    let errno_place = unsafe { libc::__errno_location() };
    // SAFETY: errno is this thread's.
    let errno = unsafe { errno_place.read() };
    let mask = if blocked { 0 } else { crate::signals::set_mask(u64::MAX) };
    let stack = take_stack(at as u32 + 1);
    let entry = &ENTRIES[at];
    // SeqCst, behind what we just said: see `withdraw`.
    let ours = entry.holds(address, Ordering::SeqCst) && {
        let region = entry.region.load(Ordering::Acquire).cast_const();
        let mut fault = Fault { region, context: context.cast(), address, ours: false };
        on_stack(STACK_BASE.load(Ordering::Acquire) + (stack + 1) * STACK, &mut fault);
        fault.ours
    };
    // Release: pairs with the loads of `withdraw` and with the next one's compare-exchange.
    TAKEN[stack].store(0, Ordering::Release);
    if !blocked {
        crate::signals::set_mask(mask);
    }
    // SAFETY: as above.
    unsafe { errno_place.write(errno) };
    ours
}

/// Calls [`inner`] on the stack that ends at `top`.
fn on_stack(top: usize, fault: &mut Fault) {
    // The program may have alignment checks on (the flag AC), of which compiled code knows nothing; it gets its flags
    // back from the signal frame. (Taking them off is slow, and nearly nobody has them on.)
    // SAFETY: the stack is ours alone until it is given back, mapped and 16-byte aligned; `inner` returns; r12 is kept
    // by the calling convention, so the old stack pointer comes back.
    unsafe {
        std::arch::asm!(
            "mov r12, rsp",
            "mov rsp, {top}",
            "pushfq",
            "pop rax",
            "test eax, 0x40000",
            "jz 2f",
            "and eax, ~0x40000",
            "push rax",
            "popfq",
            "2:",
            "call {inner}",
            "mov rsp, r12",
            top = in(reg) top,
            inner = sym inner,
            in("rdi") std::ptr::from_mut(fault),
            out("r12") _,
            clobber_abi("C"),
        );
    }
}

/// Takes a stack on which the region of entry `user` - 1 is used.
fn take_stack(user: u32) -> usize {
    let places = if hands().busy() { STACKS } else { STACKS - 1 };
    loop {
        for (at, taken) in TAKEN[..places].iter().enumerate() {
            if taken.load(Ordering::Relaxed) == 0
                && taken.compare_exchange(0, user, Ordering::SeqCst, Ordering::Relaxed).is_ok()
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
    let outcome = hands().in_trap(|| {
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
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void, by_kernel: bool) {
    if TORN.load(Ordering::Relaxed) {
        fatal(&[b"dsm: fork was called in a signal handler that interrupted a store: the child may exec, or exit"]);
    }
    let context_pointer = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel's context is valid as long as the handler runs; no reference is made.
    let link = unsafe { &raw mut (*context_pointer).uc_link }.cast::<usize>();
    // SAFETY: as above.
    let linked = unsafe { link.read() };
    let level = match linked ^ PASSED {
        level if level < HANDLERS => level,
        _ => PREVIOUS_COUNT.load(Ordering::Acquire),
    };
    let before = level.checked_sub(1).and_then(|at| PREVIOUS[at].get());
    let Some(previous) = before.filter(|p| !matches!(p.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN)) else {
        // Takes effect when the instruction faults again; ignoring a fault is not possible either.
        // SAFETY: all zeros is the default action.
        let default: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: as for every handler with SA_SIGINFO.
        let sent = unsafe { (*info).si_code } <= 0;
        if sent && before.is_some_and(|before| before.sa_sigaction == libc::SIG_IGN) {
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
    };
    // SAFETY: as above.
    unsafe { link.write(PASSED | (level - 1)) };
    if by_kernel {
        // With the signal mask that it would have had.
        // SAFETY: as above; no reference is made.
        let blocked = unsafe { &raw const (*context_pointer).uc_sigmask }.cast::<u64>();
        // SAFETY: the kernel's signal set has 64 bits.
        let mut mask = unsafe { blocked.read() };
        // SAFETY: a set has at least 64 bits.
        mask |= unsafe { (&raw const previous.sa_mask).cast::<u64>().read() };
        if previous.sa_flags & libc::SA_NODEFER == 0 {
            mask |= 1 << (signal - 1);
        }
        crate::signals::set_mask(mask);
    }
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
    // SAFETY: as above.
    unsafe { link.write(linked) };
}

/// In the child of a `fork`: nobody but its one thread uses entries and stacks, and that one is here.
pub(crate) fn after_fork() {
    ENTRIES.iter().for_each(|entry| entry.users.store(0, Ordering::SeqCst));
    TAKEN.iter().for_each(|taken| taken.store(0, Ordering::Release));
}

/// From now on a fault that is nobody's means that a child of `fork` goes on with its parent's store.
pub(crate) fn tear() {
    TORN.store(true, Ordering::Relaxed);
}

/// A published region that is not withdrawn while this lives.
pub(crate) struct Pinned(&'static Entry);

impl Pinned {
    /// The region.
    pub(crate) fn region(&self) -> &'static Region {
        // SAFETY: published, and counted as used: a region is withdrawn before it is freed.
        unsafe { &*self.0.region.load(Ordering::Acquire) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::SeqCst);
    }
}

/// All published regions.
pub(crate) fn pin() -> impl Iterator<Item = Pinned> {
    ENTRIES.iter().filter_map(|entry| {
        entry.users.fetch_add(1, Ordering::SeqCst);
        let pinned = Pinned(entry);
        (entry.view.load(Ordering::SeqCst) != 0).then_some(pinned)
    })
}
