//! Sites are decoded once, and again when their code is another.

mod common;

use common::{PAGE, Region};
use std::arch::asm;

/// Executable memory.
struct Code {
    start: usize,
    len: usize,
}

impl Code {
    fn new(len: usize) -> Self {
        Self { start: Self::map(0, len, 0), len }
    }

    fn map(at: usize, len: usize, fixed: i32) -> usize {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
        common::map(at, len, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, kind, -1)
    }

    /// What `dlclose` and `dlopen` of something else do; in one step, lest another thread be given the place between.
    fn replace(&self) {
        assert_eq!(Self::map(self.start, self.len, libc::MAP_FIXED), self.start);
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(self.start + at + index);
            // SAFETY: inside the mapping.
            unsafe { place.write_volatile(*byte) };
        }
    }

    /// Calls the code at `at`, which stores to `[rdi]`, uses RSI, and returns.
    fn call(&self, at: usize, to: *mut u64, value: u64) {
        // SAFETY: every test writes such code there.
        unsafe {
            asm!("call {c}", c = in(reg) self.start + at, in("rdi") to, in("rsi") value, out("xmm0") _, clobber_abi("C"))
        };
    }
}

/// Tests count what the whole process decodes, so that they take turns.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_site_is_decoded_once() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let region = Region::new(1);
    let code = Code::new(PAGE);
    // mov [rdi], rsi; add [rdi], rsi; lock add [rdi], rsi; movq xmm0, rsi; movq [rdi], xmm0; fnstcw [rdi]; ret
    let stores = [
        0x48, 0x89, 0x37, 0x48, 0x01, 0x37, 0xf0, 0x48, 0x01, 0x37, 0x66, 0x48, 0x0f, 0x6e, 0xc6, 0x66, 0x0f, 0xd6,
        0x07, 0xd9, 0x3f, 0xc3,
    ];
    code.write(0, &stores);
    code.call(0, region.at(0), 1);
    let before = dsm_capture::decoded();
    for round in 0..1000 {
        code.call(0, region.at(8 * (round % 64)), round as u64);
    }
    assert_eq!(dsm_capture::decoded(), before, "a known site was decoded again");
    assert_eq!(region.count(), 5 * 1001);
}

#[test]
fn other_code_at_the_same_place_is_other_code() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let region = Region::new(1);
    let code = Code::new(PAGE);
    // Of the same and of other lengths, plans and ways to be carried out.
    let add = [0x48, 0x01, 0x37, 0xc3];
    let sub = [0x48, 0x29, 0x37, 0xc3];
    let locked_or = [0xf0, 0x48, 0x09, 0x37, 0xc3];
    let mov = [0x48, 0x89, 0x37, 0xc3];
    let narrow = [0x40, 0x88, 0x37, 0xc3];
    let not = [0x48, 0xf7, 0x17, 0xc3];
    type Effect = fn(u64, u64) -> u64;
    let kinds: [(&[u8], Effect); 6] = [
        (&add, |old, value| old.wrapping_add(value)),
        (&sub, |old, value| old.wrapping_sub(value)),
        (&locked_or, |old, value| old | value),
        (&mov, |_, value| value),
        (&narrow, |old, value| old & !0xff | value & 0xff),
        (&not, |old, _| !old),
    ];
    let mut expected = 0x1234_5678_9abc_def0u64;
    region.fill(0, &expected.to_le_bytes());
    for round in 0..600usize {
        let (bytes, effect) = kinds[(round * 7 + round / 5) % kinds.len()];
        if round % 3 == 0 {
            code.replace();
        }
        code.write(64, bytes);
        for value in [round as u64 * 0x0101, 77] {
            code.call(64, region.at(0), value);
            expected = effect(expected, value);
            assert_eq!(region.word(0), expected, "round {round}: {bytes:02x?}");
        }
    }
}

#[test]
fn sites_that_take_each_others_place_keep_their_plans() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    const THREADS: usize = 2;
    // Several times what the cache holds, so that each finds others in its place.
    const SITES: usize = 16384;
    const STRIDE: usize = 8;
    let region = Region::new(1);
    let code = Code::new(SITES * STRIDE);
    // mov [rdi], rsi; mov [rdi], esi; mov [rdi], si; mov [rdi+8], rsi; and ret
    let kinds: [&[u8]; 4] =
        [&[0x48, 0x89, 0x37, 0xc3], &[0x89, 0x37, 0xc3], &[0x66, 0x89, 0x37, 0xc3], &[0x48, 0x89, 0x77, 0x08, 0xc3]];
    for site in 0..SITES {
        code.write(site * STRIDE, kinds[site % 4]);
    }
    let body = |thread: usize| {
        common::prepare_thread();
        let mut expected = [0u64; 2];
        // In strides of their own, so that the two meet ever other sites.
        for round in 1..20_000usize {
            let site = round * (1021 + 6 * thread) % SITES;
            let value = (round as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            code.call(site * STRIDE, region.at(64 * thread), value);
            let kept = [0, u64::MAX << 32, u64::MAX << 16, 0][site % 4];
            let word = &mut expected[site % 4 / 3];
            *word = *word & kept | value & !kept;
            assert_eq!([0, 8].map(|at| region.word(64 * thread + at)), expected, "round {round}, site {site}");
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || body(thread));
        }
    });
    assert_eq!(region.count(), THREADS * 19_999);
}

#[test]
fn threads_and_signals_share_a_site() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    const THREADS: usize = 4;
    const ROUNDS: u64 = 20_000;
    let region = Region::new(2);
    let code = Code::new(PAGE);
    // add [rdi], rsi; ret — displaced, by the same copy for all.
    code.write(128, &[0x48, 0x01, 0x37, 0xc3]);
    extern "C" fn nothing(_signal: i32) {
        // Thread-local storage is where it should be, whatever was interrupted.
        SEEN.with(|seen| seen.set(seen.get() + 1));
    }
    std::thread_local!(static SEEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
    // SAFETY: zeros are valid in this C structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize;
    action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler touches only its thread's counter.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) }, 0);
    let ended = std::sync::atomic::AtomicUsize::new(0);
    let ids = std::sync::Mutex::new(Vec::new());
    let body = |thread: usize| {
        common::prepare_thread();
        // SAFETY: asks for our own name.
        ids.lock().expect("no panic").push(unsafe { libc::pthread_self() });
        for round in 1..=ROUNDS {
            code.call(128, region.at(64 * thread), round);
        }
        ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Until nobody sends any more.
        while ended.load(std::sync::atomic::Ordering::Relaxed) <= THREADS {
            std::thread::yield_now();
        }
        SEEN.with(std::cell::Cell::get)
    };
    let seen: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || body(thread))).collect();
        while ended.load(std::sync::atomic::Ordering::Relaxed) < THREADS {
            for id in ids.lock().expect("no panic").iter() {
                // SAFETY: the threads stay until `ended` says that all of them and we have ended.
                unsafe { libc::pthread_kill(*id, libc::SIGUSR1) };
            }
            std::thread::yield_now();
        }
        ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert!(seen > 0, "no signal came");
    for thread in 0..THREADS {
        assert_eq!(region.word(64 * thread), ROUNDS * (ROUNDS + 1) / 2);
    }
    assert_eq!(region.count(), THREADS * ROUNDS as usize);
}
