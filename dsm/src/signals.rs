//! Signals, signal handlers, and programs that handle SIGSEGV themselves.
//!
//! # Handlers that use shared memory
//!
//! A handler may load and store through typed handles and plain pointers, use atomics, [`fence`](crate::Session::fence),
//! and semaphores and barriers that are open already, like any other code. (Opening things and holes allocate, which
//! handlers must not do.) It never deadlocks with what it interrupted.
//!
//! The library sees to it that a handler never runs in the middle of a store: handlers are **adopted**. The action of
//! an adopted handler is a function of this library, which calls the program's, at once in almost all cases; if the
//! thread is inside a capture (some ten nanoseconds, during which it may hold the host's replica lock) the signal is
//! sent again, and waits in the kernel, blocked, until that is done. A trapped store needs none of this: during it all
//! signals are blocked.
//! [`Session::join`](crate::Session::join), and opening a value, semaphore or barrier, adopt what handlers there are;
//! **after installing handlers later, call [`adopt`]**. What `sigaction` reports is then our function with the flags
//! and mask of the program's; it may be put back like any other. Not adopted are handlers of faults (SIGSEGV, SIGBUS,
//! SIGFPE, SIGILL, SIGTRAP, SIGSYS) and SIGABRT, those with `SA_RESETHAND`, and more than 64 different ones.
//!
//! A handler that is not adopted works too, within limits: a store of it that interrupts a capture of its own thread
//! is carried out when that is done (at most 64 lines of 64 bytes; more end the process with a message), so that the
//! handler itself does not see it yet; what has to wait (an atomic, a semaphore) ends the process with a message if it
//! interrupts a capture. The first such store adopts all handlers that are installed.
//!
//! **`SA_NODEFER`** and handlers that interrupt each other are fine: an adopted handler that interrupts a store comes when
//! that is done, as often as its signal was delivered (of one that is not a real-time signal, those that come meanwhile
//! are one, as while it is blocked). A handler with `SA_NODEFER` that interrupts itself between a load and a store of its
//! own loses counts, as on any memory: use atomics there. On SIGSEGV itself the flag is harmless for handlers that were
//! there before: they get it when a fault is passed on to them.
//!
//! A handler that leaves by `siglongjmp` is safe when it is adopted; one that is not may leave the host's replica lock
//! locked. Real-time signals that were held back go behind others of the same number that are waiting already.
//!
//! # SIGSEGV
//!
//! The first session that is joined installs a handler of SIGSEGV, with `SA_ONSTACK` and all signals blocked. Faults
//! that are not captured stores go to whoever handled SIGSEGV before, with the arguments and the signal mask that it
//! asked for: so Rust's message about an overflowed stack, crash reporters and garbage collectors work as before.
//! One thing is other than on ordinary memory: a store that is partly outside of its segment is reported (`si_code`,
//! `si_addr`) where it first meets the segment, as memory that may not be written, and not where it leaves it; so is a
//! call with its return address in a segment whose target faults.
//!
//! A program that installs a handler of its own *after* joining displaces ours: from then on captured stores arrive
//! there. Either
//! - call [`adopt`] afterwards (or open anything): ours is put in front again, and theirs gets what is not ours; or
//! - have that handler call [`handle_fault`], or chain to the handler that `sigaction` returned.
//!
//! **Blocked.** A store that traps while its thread blocks SIGSEGV ends the process: the kernel allows nothing else.
//! [`adopt`] unblocks it for the calling thread; a thread that blocks all signals (`sigfillset`) should take SIGSEGV
//! out of the set, or use typed accessors, which do not trap.
//!
//! **Stacks.** The kernel puts the frame of the signal (up to 4 KiB with AVX-512, 11 KiB with AMX) on the thread's
//! alternate stack if it has one, else below what the thread is using; there must be room for it. Only that frame and
//! a few hundred bytes: the work is done on a stack of our own. A handler that runs on an alternate stack and stores
//! to shared memory by plain pointers needs room there for a second frame. A thread whose stack itself lies in shared
//! memory (a coroutine, say) needs an alternate stack that does not: the kernel cannot write the frame of a signal to
//! memory that is read-only for the program, and ends the process without asking anybody.

use crate::hands::{Hands, hands};
use crate::{Result, trap};
use dsm_core::sys::futex;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};

/// Handlers of the program that can be adopted.
const MOST: usize = 64;
/// Signals of the kernel.
const SIGNALS: i32 = 64;

/// A handler of the program. Written once, by whoever has `ADOPTING`, before anybody can be told of it.
struct Adopted {
    /// 0: free.
    signal: AtomicI32,
    handler: AtomicUsize,
    with_info: AtomicBool,
}

static ADOPTED: [Adopted; MOST] =
    [const { Adopted { signal: AtomicI32::new(0), handler: AtomicUsize::new(0), with_info: AtomicBool::new(false) } };
        MOST];

/// The thread that is at it; 0 for nobody.
static ADOPTING: AtomicI32 = AtomicI32::new(0);

type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// A function for each place in `ADOPTED`, so that one that the program has put aside still means the same handler.
macro_rules! actions {
    ($($a:literal)*) => { [$(
        deliver::<{ $a * 8 }> as Action, deliver::<{ $a * 8 + 1 }>, deliver::<{ $a * 8 + 2 }>, deliver::<{ $a * 8 + 3 }>,
        deliver::<{ $a * 8 + 4 }>, deliver::<{ $a * 8 + 5 }>, deliver::<{ $a * 8 + 6 }>, deliver::<{ $a * 8 + 7 }>,
    )*] };
}
static ACTIONS: [Action; MOST] = actions!(0 1 2 3 4 5 6 7);

/// Adopts the signal handlers that the program has installed, puts the library's handler of SIGSEGV back in front if
/// it was displaced, and unblocks SIGSEGV for the calling thread. See the module's text for when to call it.
///
/// # Errors
/// [`Error::TooLarge`](crate::Error::TooLarge) when the program has displaced our handler by more different ones than
/// can be kept (16); [`Error::System`](crate::Error::System).
pub fn adopt() -> Result<()> {
    trap::install()?;
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: adds a signal to a set of ours.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGSEGV) };
    // SAFETY: a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), null_mut()) };
    // Another thread that is at it will have seen what was installed before we came, or not: wait, and look again.
    let Some(_turn) = Turn::wait() else { return Ok(()) };
    let result = trap::reinstall();
    adopt_all();
    result
}

/// The right to adopt, which one thread has at a time.
#[derive(Debug)]
pub(crate) struct Turn(());

impl Turn {
    /// Waits for it; `None` when a handler has interrupted this very thread in its turn.
    pub(crate) fn wait() -> Option<Self> {
        // SAFETY: no arguments.
        let me = unsafe { libc::gettid() };
        while ADOPTING.compare_exchange(0, me, Acquire, Relaxed).is_err() {
            if ADOPTING.load(Relaxed) == me {
                return None;
            }
            futex::give_way();
        }
        Some(Self(()))
    }
}

/// In a child of `fork` whose thread was at it: the turn goes on, under the child's number.
pub(crate) fn keep_turn() {
    // SAFETY: no arguments.
    ADOPTING.store(unsafe { libc::gettid() }, Relaxed);
}

impl Drop for Turn {
    fn drop(&mut self) {
        ADOPTING.store(0, Release);
    }
}

/// As [`adopt`], in a handler. Whoever is at it already may be what the handler interrupted.
#[cold]
pub(crate) fn adopt_from_handler() {
    // SAFETY: no arguments.
    let me = unsafe { libc::gettid() };
    if ADOPTING.compare_exchange(0, me, Acquire, Relaxed).is_ok() {
        let _turn = Turn(());
        // Meanwhile more would come of those that are not adopted yet, and what they store must be kept.
        let before = keep_away();
        adopt_all();
        set_mask(before);
    }
}

/// Handles a fault for a SIGSEGV handler of the program's that was installed after joining (with `SA_SIGINFO`): if it
/// was a store to shared memory, carries it out and returns true, and the handler should return at once.
///
/// # Safety
/// `info` and `context` are the second and third argument of a handler of SIGSEGV that is running now for this fault.
#[must_use]
pub unsafe fn handle_fault(info: *mut libc::c_void, context: *mut libc::c_void) -> bool {
    // SAFETY: the caller's contract is that of the function.
    unsafe { trap::handle(info.cast(), context) }
}

/// All signals that need not be delivered at once, as a set of the kernel's.
pub(crate) const EVERYTHING: u64 = {
    let (mut set, mut signal) = (0, 1);
    while signal <= SIGNALS {
        if !immediate(signal) {
            set |= 1 << (signal - 1);
        }
        signal += 1;
    }
    set
};

/// Must this signal be delivered at once, because what it interrupts cannot go on, or should not?
const fn immediate(signal: i32) -> bool {
    use libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP, SIGSYS, SIGTRAP};
    // 32 and 33 belong to libc.
    matches!(signal, SIGSEGV | SIGBUS | SIGFPE | SIGILL | SIGTRAP | SIGSYS | SIGABRT | SIGKILL | SIGSTOP | 32 | 33)
}

fn adopt_all() {
    for signal in (1..=SIGNALS).filter(|signal| !immediate(*signal)) {
        let found = action_of(signal);
        let ignored = matches!(found.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
        let ours = ACTIONS.iter().any(|action| *action as usize == found.sa_sigaction);
        if ignored || ours || found.sa_flags & libc::SA_RESETHAND != 0 {
            continue;
        }
        let with_info = found.sa_flags & libc::SA_SIGINFO != 0;
        let known = |adopted: &Adopted| {
            let it = (adopted.signal.load(Relaxed), adopted.handler.load(Relaxed), adopted.with_info.load(Relaxed));
            it == (signal, found.sa_sigaction, with_info)
        };
        let free = |adopted: &Adopted| adopted.signal.load(Relaxed) == 0;
        let place = ADOPTED.iter().position(known).or_else(|| ADOPTED.iter().position(free));
        let Some(at) = place else { return };
        let adopted = &ADOPTED[at];
        adopted.handler.store(found.sa_sigaction, Relaxed);
        adopted.with_info.store(with_info, Relaxed);
        adopted.signal.store(signal, Release);
        let mut action = found;
        action.sa_sigaction = ACTIONS[at] as usize;
        action.sa_flags |= libc::SA_SIGINFO;
        // SAFETY: all zeros is a valid `sigaction`.
        let mut replaced: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: `deliver` is async-signal-safe as far as the program's handler is.
        unsafe { libc::sigaction(signal, &raw const action, &raw mut replaced) };
        if replaced.sa_sigaction != found.sa_sigaction {
            // Another thread has installed something meanwhile.
            // SAFETY: puts back what was there.
            unsafe { libc::sigaction(signal, &raw const replaced, null_mut()) };
        }
    }
}

/// What the process does on a signal.
pub(crate) fn action_of(signal: i32) -> libc::sigaction {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks.
    unsafe { libc::sigaction(signal, null(), &raw mut action) };
    action
}

/// The action of an adopted handler.
extern "C" fn deliver<const PLACE: usize>(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if hands().busy() && hold_back(hands(), info, context) {
        return;
    }
    let adopted = &ADOPTED[PLACE];
    let handler = adopted.handler.load(Relaxed);
    if adopted.with_info.load(Relaxed) {
        // SAFETY: whoever installed it said so with SA_SIGINFO.
        let handler: Action = unsafe { std::mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: installed without SA_SIGINFO, and neither default nor ignore.
        let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
        handler(signal);
    }
}

/// Keeps a signal for later, and all others away until then. False when that cannot be done.
#[cold]
fn hold_back(hands: &Hands, info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    let context = context.cast::<libc::ucontext_t>();
    // The kernel's signal set has 64 bits, libc's has room for more.
    // SAFETY: the kernel's context is valid as long as the handler runs; no reference is made.
    let mask = unsafe { &raw mut (*context).uc_sigmask }.cast::<u64>();
    // SAFETY: as above.
    let blocked = unsafe { mask.read() };
    let Some(then) = hands.hold(blocked, || send_again(info)) else { return false };
    // Takes effect when this handler returns.
    // SAFETY: as above.
    unsafe { mask.write(then) };
    true
}

/// Sends a signal that is being handled to this thread once more; false when the kernel has no room for it.
fn send_again(info: *mut libc::siginfo_t) -> bool {
    // SAFETY: takes nothing.
    let process = unsafe { libc::getpid() };
    // SAFETY: as above.
    let thread = unsafe { libc::gettid() };
    // SAFETY: the kernel gives a valid siginfo to a handler with SA_SIGINFO.
    let signal = unsafe { (*info).si_signo };
    // SAFETY: takes nothing.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: errno is this thread's.
    let kept = unsafe { errno.read() };
    // SAFETY: the kernel copies the siginfo, which it gave us itself. To one's own process any may be sent.
    let sent = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info) } == 0;
    // SAFETY: as above.
    unsafe { errno.write(kept) };
    sent
}

/// Sets this thread's signal mask, all 64 bits of it, and returns what it was. Leaves `errno` alone.
pub(crate) fn set_mask(mask: u64) -> u64 {
    change_mask(libc::SIG_SETMASK, mask)
}

/// Blocks what need not be delivered at once, and returns what was blocked before.
pub(crate) fn keep_away() -> u64 {
    change_mask(libc::SIG_BLOCK, EVERYTHING)
}

fn change_mask(how: libc::c_int, mask: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: takes nothing.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: errno is this thread's.
    let kept = unsafe { errno.read() };
    // SAFETY: both sets are ours, of the size that is given.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask, &raw mut before, size_of::<u64>());
    }
    // SAFETY: as above.
    unsafe { errno.write(kept) };
    before
}
