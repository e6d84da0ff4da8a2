//! SIGSEGV handlers of the program's own, threads that block the signal, and stacks.

use super::*;

static FAULTS: AtomicUsize = AtomicUsize::new(0);
/// A page that may not be touched, until the handler has been asked.
static PAGE: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());

pub(super) fn fault_of(info: Info) -> *mut libc::c_void {
    // SAFETY: the kernel's siginfo.
    let info = unsafe { &*info };
    // SAFETY: of a SIGSEGV.
    unsafe { info.si_addr() }
}

/// A fault on `PAGE` is dealt with as a garbage collector would; any other ends the process.
pub(super) extern "C" fn own_handler(_: i32, info: Info, _: Context) {
    let address = fault_of(info);
    let page = PAGE.load(Relaxed);
    if page.is_null() || address != page {
        // SAFETY: ends the process.
        unsafe { libc::_exit(13) };
    }
    FAULTS.fetch_add(1, Relaxed);
    // SAFETY: our own page.
    unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) };
}

/// A fault of the program's own.
pub(super) fn touch() {
    // SAFETY: a fresh mapping.
    let page = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    PAGE.store(page, Relaxed);
    let before = FAULTS.load(Relaxed);
    // SAFETY: faults; the handler makes the page writable.
    unsafe { page.cast::<u64>().write_volatile(5) };
    // SAFETY: mapped now.
    assert_eq!((unsafe { page.cast::<u64>().read_volatile() }, FAULTS.load(Relaxed)), (5, before + 1));
}

pub(super) fn both_work() {
    for round in 0..20 {
        plain(3, round);
        touch();
        words().set(4, round);
        // SAFETY: within the array; traps.
        unsafe { AtomicU64::from_ptr(words().as_ptr().wrapping_add(5)) }.fetch_add(1, Strict);
    }
    assert_eq!((words().get(3), words().get(4)), (19, 19));
}

pub(super) fn own_handler_before() {
    both_work();
}

pub(super) fn own_handler_after() {
    for flags in [libc::SA_SIGINFO, libc::SA_SIGINFO | libc::SA_NODEFER, libc::SA_SIGINFO | libc::SA_ONSTACK] {
        handle(libc::SIGSEGV, own_handler as *const () as usize, flags);
        dsm::signals::adopt().unwrap();
        both_work();
        // Noticed by itself when something is opened.
        handle(libc::SIGSEGV, own_handler as *const () as usize, flags);
        SESSION.get().unwrap().open::<u64>("another").unwrap();
        both_work();
    }
}

#[test]
fn a_program_with_a_handler_of_its_own_before_or_after_joining() {
    for name in ["own-handler-before", "own-handler-after"] {
        succeeds(name, |bytes| assert_eq!(bytes[3], 19));
    }
}

extern "C" fn asks_dsm(_: i32, info: Info, context: Context) {
    // SAFETY: this is a handler of SIGSEGV.
    if !unsafe { dsm::signals::handle_fault(info.cast(), context) } {
        own_handler(0, info, context);
    }
}

pub(super) fn passes_on() {
    handle(libc::SIGSEGV, asks_dsm as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
    both_work();
    words().set(300, 1);
}

static BEFORE: AtomicUsize = AtomicUsize::new(0);

/// Deals with its own page, and passes on what is not its own to whoever was there before: to the library.
extern "C" fn chained(signal: i32, info: Info, context: Context) {
    if fault_of(info) == PAGE.load(Relaxed) {
        return own_handler(signal, info, context);
    }
    // SAFETY: what `sigaction` returned, installed with SA_SIGINFO.
    let before: extern "C" fn(i32, Info, Context) = unsafe { std::mem::transmute(BEFORE.load(Relaxed)) };
    before(signal, info, context);
}

pub(super) fn chains() {
    // SAFETY: all zeros is a valid `sigaction`.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks.
    unsafe { libc::sigaction(libc::SIGSEGV, std::ptr::null(), &raw mut before) };
    BEFORE.store(before.sa_sigaction, Relaxed);
    handle(libc::SIGSEGV, chained as *const () as usize, libc::SA_SIGINFO);
    // In front of ours.
    both_work();
    // Behind ours, to which it passes on what is not its own.
    dsm::signals::adopt().unwrap();
    both_work();
    words().set(300, 1);
    // A fault that is nobody's goes around, and ends at the handler that was there at first: Rust's, which gives up.
    PAGE.store(std::ptr::null_mut(), Relaxed);
    // SAFETY: it is not: this raises the fault that the test is about.
    unsafe { std::arch::asm!("mov {t}, [{p}]", p = in(reg) 64usize, t = out(reg) _) };
}

#[test]
fn a_handler_that_asks_and_one_that_chains() {
    succeeds("passes-on", |bytes| assert_eq!((bytes[3], bytes[300]), (19, 1)));
    let status = in_child("chains", |bytes| assert_eq!((bytes[3], bytes[300]), (19, 1)));
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
}

static WHICH: AtomicUsize = AtomicUsize::new(0);

extern "C" fn first(_: i32) {
    WHICH.store(1, Relaxed);
}

extern "C" fn second(_: i32) {
    WHICH.store(2, Relaxed);
}

/// What `sigaction` returned, put back, is the handler that it was.
pub(super) fn put_back() {
    let raised = || {
        WHICH.store(0, Relaxed);
        // SAFETY: a handler is installed.
        unsafe { libc::raise(libc::SIGUSR1) };
        WHICH.load(Relaxed)
    };
    handle(libc::SIGUSR1, first as *const () as usize, 0);
    dsm::signals::adopt().unwrap();
    assert_eq!(raised(), 1);
    // SAFETY: all zeros is a valid `sigaction`.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks.
    unsafe { libc::sigaction(libc::SIGUSR1, std::ptr::null(), &raw mut before) };
    handle(libc::SIGUSR1, second as *const () as usize, 0);
    dsm::signals::adopt().unwrap();
    assert_eq!(raised(), 2);
    // SAFETY: what was there.
    unsafe { libc::sigaction(libc::SIGUSR1, &raw const before, std::ptr::null_mut()) };
    dsm::signals::adopt().unwrap();
    assert_eq!(raised(), 1);
    // Adopting again and again takes no more places.
    for round in 0..300 {
        let handler = [first as *const () as usize, second as *const () as usize][round % 2];
        handle(libc::SIGUSR1, handler, 0);
        dsm::signals::adopt().unwrap();
        assert_eq!(raised(), round % 2 + 1);
    }
}

#[test]
fn handlers_can_be_exchanged_and_put_back() {
    succeeds("put-back", |_| ());
}

// Blocked SIGSEGV.

pub(super) fn block_all() {
    // SAFETY: all zeros is a valid set.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set of ours.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
}

pub(super) fn blocked() {
    block_all();
    words().set(300, 1);
    plain(301, 1);
}

pub(super) fn unblocked() {
    block_all();
    dsm::signals::adopt().unwrap();
    plain(300, 1);
    // In a thread that inherits what its maker blocks.
    std::thread::spawn(|| plain(301, 1)).join().unwrap();
}

#[test]
fn a_thread_that_blocks_sigsegv() {
    let status = in_child("blocked", |bytes| assert_eq!(bytes[301], 0));
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
    succeeds("unblocked", |bytes| assert_eq!(bytes[300..302], [1, 1]));
}

// Stacks.

#[expect(unconditional_recursion, reason = "it is about that")]
pub(super) fn overflow(frame: &mut [u64; 4096]) {
    plain(300, 1);
    let mut deeper = *frame;
    deeper[0] += 1;
    overflow(std::hint::black_box(&mut deeper));
    std::hint::black_box(&mut deeper);
}

#[test]
fn rust_still_reports_an_overflowed_stack() {
    for part in ["overflow", "overflow-in-thread"] {
        let cluster = Cluster::new();
        let a = cluster.join(0, "signals");
        let words = a.array::<u64>("w", 512).unwrap();
        let output = cluster.command(0, "child", &[("PART", part)]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("has overflowed its stack"), "{part}: {said}");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        assert_eq!(words.get(300), 1);
        drop(a);
    }
}

/// Traps on alternate stacks of the program's own, no larger than they must be, and on none.
pub(super) fn own_stack(joined: bool) {
    // SAFETY: asks for a number.
    let least = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) }.max(2048) as usize;
    let set = move || {
        let memory = vec![0u8; least + 2048].leak();
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
        // SAFETY: memory that is never freed.
        assert_eq!(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) }, 0);
    };
    let none = || {
        let stack = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: no memory.
        assert_eq!(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) }, 0);
    };
    let store = || {
        for round in 0..50 {
            plain(300, round);
            // SAFETY: within the array; traps, and is carried out displaced.
            unsafe { AtomicU64::from_ptr(words().as_ptr().wrapping_add(301)) }.fetch_add(1, Strict);
        }
    };
    static GO: AtomicBool = AtomicBool::new(false);
    static DONE: AtomicUsize = AtomicUsize::new(0);
    if !joined {
        set();
        // Threads that are there before the session is joined, with a stack of their own and without.
        for thread in 0..2 {
            std::thread::spawn(move || {
                if thread == 0 {
                    set()
                } else {
                    none()
                }
                while !GO.load(Strict) {
                    std::thread::yield_now();
                }
                store();
                DONE.fetch_add(1, Strict);
            });
        }
        return;
    }
    store();
    none();
    store();
    set();
    store();
    std::thread::spawn(move || {
        set();
        store();
        none();
        store();
    })
    .join()
    .unwrap();
    GO.store(true, Strict);
    eventually("the threads have stored", || DONE.load(Strict) == 2);
}

#[test]
fn alternate_stacks_of_the_programs_own() {
    succeeds("own-stack", |bytes| assert_eq!(bytes[300..302], [49, 7 * 50]));
}
