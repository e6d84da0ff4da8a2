//! Handlers that do not return.

use super::*;

unsafe extern "C" {
    #[link_name = "__sigsetjmp"]
    fn sigsetjmp(buffer: *mut u64, save: i32) -> i32;
    fn siglongjmp(buffer: *mut u64, value: i32) -> !;
}

static JUMP: AtomicPtr<u64> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn jump(_: i32) {
    RUNNING.fetch_add(1, Relaxed);
    words().set(100, words().get(100) + 1);
    RUNNING.fetch_sub(1, Relaxed);
    let to = JUMP.swap(std::ptr::null_mut(), Strict);
    if !to.is_null() {
        // SAFETY: set right before by the thread that is interrupted, in a frame that has not returned.
        unsafe { siglongjmp(to, 1) };
    }
}

/// The frame that is jumped into; nothing with a destructor lives in what is jumped over.
#[inline(never)]
fn until_jump(round: u64) {
    let mut buffer = [0u64; 64];
    let buffer = buffer.as_mut_ptr();
    // SAFETY: the buffer is larger than libc's, and this frame lives until the jump or until JUMP is cleared.
    if unsafe { sigsetjmp(buffer, 1) } == 0 {
        // Handlers that were jumped over have not said that they ended.
        RUNNING.store(0, Relaxed);
        JUMP.store(buffer, Strict);
        for at in 0..200 {
            words().set(at % 7, round);
        }
        JUMP.store(std::ptr::null_mut(), Strict);
    }
}

/// A timer's signals interrupt stores, and the handler does not return.
pub(super) fn jumping() {
    handle(libc::SIGPROF, jump as *const () as usize, libc::SA_NODEFER);
    dsm::signals::adopt().unwrap();
    // SAFETY: takes nothing.
    let main = unsafe { libc::pthread_self() };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                if RUNNING.load(Relaxed) < DEPTH {
                    // SAFETY: the main thread lives until this scope ends.
                    unsafe { libc::pthread_kill(main, libc::SIGPROF) };
                }
                (0..2000).for_each(|_| std::hint::spin_loop());
            }
        });
        let _stop = Stop(&stop);
        let start = Instant::now();
        let mut round = 0;
        while start.elapsed() < WHILE {
            round += 1;
            until_jump(round);
        }
    });
    handle(libc::SIGPROF, libc::SIG_IGN, 0);
    // The replica lock is free: others of this host can store.
    words().atomic(5).fetch_add(1, SeqCst);
    plain(6, 7);
}

#[test]
fn a_handler_may_leave_by_a_jump() {
    succeeds("jumping", |bytes| assert!(bytes[100] > 0 && bytes[6] == 7));
}

extern "C" fn jump_only(_: i32) {
    let to = JUMP.swap(std::ptr::null_mut(), Strict);
    if !to.is_null() {
        // SAFETY: as in `jump`.
        unsafe { siglongjmp(to, 1) };
    }
}

/// As `until_jump`, in a store that waits for the lock.
#[inline(never)]
fn until_jump_out_of_wait() {
    let mut buffer = [0u64; 64];
    let buffer = buffer.as_mut_ptr();
    // SAFETY: as in `until_jump`.
    if unsafe { sigsetjmp(buffer, 1) } == 0 {
        JUMP.store(buffer, Strict);
        words().set(1, 1);
        JUMP.store(std::ptr::null_mut(), Strict);
    }
}

pub(super) fn jumping_out_of_wait() {
    handle(libc::SIGPROF, jump_only as *const () as usize, 0);
    dsm::signals::adopt().unwrap();
    let watch = Watch::at(&own_dir(), "signals");
    watch.lock_as(watch.process);
    // SAFETY: takes nothing.
    let main = unsafe { libc::pthread_self() };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                // SAFETY: the main thread lives until this scope ends.
                unsafe { libc::pthread_kill(main, libc::SIGPROF) };
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        });
        let _stop = Stop(&stop);
        (0..20).for_each(|_| until_jump_out_of_wait());
    });
    handle(libc::SIGPROF, libc::SIG_IGN, 0);
    let waiters = &watch.area().control.producer.lock_waiters;
    assert_eq!(waiters.load(Relaxed), 0, "somebody who has gone is counted as waiting");
    watch.unlock();
    plain(6, 7);
}

#[test]
fn a_handler_may_jump_out_of_a_store_that_waits() {
    if skipped_at_the_trap_door() {
        return;
    }
    succeeds("jumping-out-of-wait", |bytes| assert_eq!(bytes[6], 7));
}
