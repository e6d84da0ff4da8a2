//! What crosses from one host to another, at both doors: whole, exact, in order.
#![allow(missing_docs, reason = "test types")]

mod common;

use common::{Cluster, eventually, join_by_environment, role};
use dsm::prelude::*;
use std::arch::asm;

#[dsm::shared]
pub struct Board {
    pub turn: u32,
    pub phase: u32,
    pub scores: [u64; 64],
}

#[dsm::shared]
pub struct Bytes {
    pub bytes: [u8; 4096],
    pub seen: u64,
}

/// Two hosts in one process, with the same bytes on both.
fn with_bytes(test: impl FnOnce(&Session, Shared<'_, Bytes>, Shared<'_, Bytes>)) {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "bytes"), cluster.join(1, "bytes"));
    assert_ne!(a.host(), b.host());
    let (here, there) = (a.open::<Bytes>("b").unwrap(), b.open::<Bytes>("b").unwrap());
    test(&a, here, there);
    drop((a, b));
}

/// Waits until all that was stored before is on the other host, and compares every byte.
#[track_caller]
fn same(here: Shared<'_, Bytes>, there: Shared<'_, Bytes>) {
    here.set_seen(here.seen() + 1);
    eventually("the last store arrives", || there.seen() == here.seen());
    assert!(here.bytes().to_vec() == there.bytes().to_vec(), "the other host has other bytes");
}

#[test]
fn the_program_of_the_front_page() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "game"), cluster.join(1, "game"));
    let (here, there) = (a.open::<Board>("board").unwrap(), b.open::<Board>("board").unwrap());
    here.set_turn(7);
    eventually("turn", || there.turn() == 7);
    // SAFETY: a plain store through the view's pointer is what the trap door is for.
    unsafe { (*here.as_ptr()).phase = 9 };
    eventually("phase", || there.phase() == 9);
    there.scores().set(3, 42);
    eventually("score", || here.scores().get(3) == 42);
    assert_eq!(here.phase_atomic().fetch_add(1, SeqCst), 9);
    assert_eq!(there.phase_atomic().fetch_add(1, SeqCst), 10);
    a.fence().unwrap();
    assert_eq!(here.phase(), 11);
    {
        let _g = a.semaphore("s", 1).unwrap().lock().unwrap();
        here.set_turn(8);
    }
    {
        let _g = b.semaphore("s", 1).unwrap().lock().unwrap();
        // No waiting: the grant came after the store.
        assert_eq!(there.turn(), 8);
    }
    let mut hole = there.hole().unwrap();
    hole.scores.iter_mut().for_each(|score| *score += 1);
    hole.fill().unwrap();
    eventually("hole", || here.scores().get(3) == 43 && here.scores().get(63) == 1);
    drop((a, b));
}

#[test]
fn vector_stores_arrive_whole() {
    with_bytes(|_, here, there| {
        let to = here.bytes().as_ptr();
        let pattern: Vec<u8> = (1..=64).collect();
        for offset in [0usize, 64, 200, 1000, 1023, 2047] {
            // SAFETY: within the 4096 bytes; the store traps.
            unsafe {
                asm!("movdqu {t}, [{from}]", "movdqu [{to}], {t}",
                    t = out(xmm_reg) _, from = in(reg) pattern.as_ptr(), to = in(reg) to.wrapping_add(offset), options(nostack));
            }
            same(here, there);
            assert_eq!(there.bytes().range(offset..offset + 16).to_vec(), pattern[..16]);
            if is_x86_feature_detected!("avx") {
                // SAFETY: as above, and the processor has AVX.
                unsafe {
                    asm!("vmovdqu ymm0, [{from}]", "vmovdqu [{to}], ymm0", "vzeroupper",
                        out("xmm0") _, from = in(reg) pattern.as_ptr(), to = in(reg) to.wrapping_add(offset), options(nostack));
                }
                same(here, there);
                assert_eq!(there.bytes().range(offset..offset + 32).to_vec(), pattern[..32]);
            }
        }
    });
}

#[test]
fn a_byte_is_a_byte() {
    with_bytes(|_, here, there| {
        here.bytes().fill(0xee);
        same(here, there);
        // What the other host writes beside it meanwhile must survive: no stale neighbours travel along.
        there.bytes().set(99, 1);
        // SAFETY: within the array; the store traps.
        unsafe { here.bytes().as_ptr().wrapping_add(100).write_volatile(7) };
        there.bytes().set(101, 2);
        eventually("the neighbours arrive", || here.bytes().get(99) == 1 && here.bytes().get(101) == 2);
        same(here, there);
        assert_eq!(there.bytes().range(98..103).to_vec(), [0xee, 1, 7, 2, 0xee]);
    });
}

#[test]
fn string_instructions_and_libc_arrive_whole() {
    with_bytes(|_, here, there| {
        let to = here.bytes().as_ptr();
        // SAFETY: stores 1000 bytes within the array; all trap.
        unsafe {
            asm!("rep stosb", inout("rdi") to.wrapping_add(13) => _, inout("rcx") 1000usize => _, in("al") 0x5au8, options(nostack));
        }
        same(here, there);
        assert!(there.bytes().range(13..1013).iter().all(|byte| byte == 0x5a));
        assert_eq!((there.bytes().get(12), there.bytes().get(1013)), (0, 0));
        // SAFETY: within the array.
        unsafe { libc::memset(to.wrapping_add(2000).cast(), 3, 777) };
        same(here, there);
        assert_eq!(there.bytes().iter().filter(|byte| *byte == 3).count(), 777);
        let text = c"no messages, no explicit synchronisation for words up to 8 bytes";
        // SAFETY: within the array.
        unsafe { libc::strcpy(to.wrapping_add(3001).cast(), text.as_ptr()) };
        same(here, there);
        let bytes = text.to_bytes_with_nul();
        assert_eq!(there.bytes().range(3001..3001 + bytes.len()).to_vec(), bytes);
        let source: Vec<u8> = (0..4096).map(|i| (i * 7) as u8).collect();
        // SAFETY: within the array.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), to, 4096) };
        same(here, there);
        assert_eq!(there.bytes().to_vec(), source);
    });
}

#[test]
fn every_byte_of_a_hole_arrives() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "hole"), cluster.join(1, "hole"));
    let (here, there) = (a.array::<u8>("h", 64 << 10).unwrap(), b.array::<u8>("h", 64 << 10).unwrap());
    let trapped = a.status().unwrap().trapped;
    let mut hole = here.hole().unwrap();
    let pattern: Vec<u8> = (0..64u32 << 10).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    hole.copy_from_slice(&pattern);
    // What others write to bytes that this hole does not change survives.
    let untouched = pattern.iter().position(|byte| *byte == 0).unwrap();
    there.set(untouched, 0xaa);
    eventually("the other host's byte is here", || here.get(untouched) == 0xaa);
    hole.fill().unwrap();
    let mut expected = pattern;
    expected[untouched] = 0xaa;
    eventually("the hole arrives", || there.to_vec() == expected);
    assert!(here.to_vec() == expected);
    assert_eq!(a.status().unwrap().trapped, trapped, "stores in a hole do not trap");
    drop((a, b));
}

#[test]
fn a_raw_hole_takes_native_stores_and_the_kernels() {
    use std::io::{Read, Write};
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "raw"), cluster.join(1, "raw"));
    let (here, there) = (a.array::<u8>("r", 16384).unwrap(), b.array::<u8>("r", 16384).unwrap());
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"written by the kernel").unwrap();
    // SAFETY: asks the kernel to write to a read-only mapping: it refuses, and writes nothing.
    let refused = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(&reader), here.as_ptr().cast(), 21) };
    assert_eq!((refused, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EFAULT)));
    let trapped = a.status().unwrap().trapped;
    let hole = a.raw_hole(here.as_ptr().wrapping_add(5000), 21).unwrap();
    assert!(matches!(a.raw_hole(here.as_ptr().wrapping_add(4999), 1), Err(Error::HolesOverlap { .. })));
    // SAFETY: the pages under the hole are this process's own, and writable; no other reference is made.
    let bytes = unsafe { std::slice::from_raw_parts_mut(here.as_ptr().wrapping_add(5000), 21) };
    reader.read_exact(bytes).unwrap();
    // SAFETY: as above.
    unsafe { here.as_ptr().wrapping_add(5021).write_volatile(b'!') };
    there.set(4200, 9);
    hole.fill().unwrap();
    eventually("the bytes arrive", || there.range(5000..5022).to_vec() == b"written by the kernel!");
    eventually("the other host's byte survives", || here.get(4200) == 9);
    assert_eq!(a.status().unwrap().trapped, trapped, "stores in a hole do not trap");
    here.set(5000, b'W');
    eventually("the view is shared again", || there.get(5000) == b'W');
    drop((a, b));
}

#[test]
fn threads_store_at_once() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "threads"), cluster.join(1, "threads"));
    let (here, there) = (a.array::<u64>("t", 1024).unwrap(), b.array::<u64>("t", 1024).unwrap());
    std::thread::scope(|scope| {
        for (handle, parity) in [(here, 0u64), (there, 1)] {
            for thread in 0..4usize {
                scope.spawn(move || {
                    for round in 1..=500u64 {
                        for at in (thread..256).step_by(4) {
                            let at = at * 4 + parity as usize * 2;
                            if round % 2 == 0 {
                                handle.set(at, round);
                            } else {
                                // SAFETY: within the array; traps.
                                unsafe { handle.as_ptr().wrapping_add(at).write_volatile(round) };
                            }
                        }
                        // All to the same word.
                        handle.atomic(1).fetch_add(1, SeqCst);
                    }
                });
            }
        }
    });
    a.fence().unwrap();
    b.fence().unwrap();
    assert_eq!(here.atomic(1).fetch_add(0, SeqCst), 8 * 500);
    eventually("both hosts have the same", || here.to_vec() == there.to_vec());
    assert!(here.to_vec().iter().enumerate().all(|(at, word)| match at {
        1 => *word == 4000,
        at if at % 2 == 0 => *word == 500,
        _ => *word == 0,
    }));
    drop((a, b));
}

#[test]
fn an_instruction_at_the_end_of_a_code_page_is_carried_out() {
    with_bytes(|_, here, there| {
        // mov [rdi], rsi; ret: so placed that the store's last byte is the page's last, and the next page is missing.
        let code = [0xc3u8, 0x48, 0x89, 0x37];
        // SAFETY: a fresh mapping of two pages.
        let pages = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                8192,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(pages, libc::MAP_FAILED);
        let page = pages.cast::<u8>();
        // jmp back from the second page is not possible when it is missing: the store is followed by a two-byte jump
        // that straddles the pages in a first run, and by nothing at all in the decoder's view of the first page.
        let run = |bytes: &[u8], start: usize| {
            // SAFETY: within the two pages.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), page.wrapping_add(start), bytes.len()) };
            // SAFETY: our pages.
            assert_eq!(unsafe { libc::mprotect(pages, 8192, libc::PROT_READ | libc::PROT_EXEC) }, 0);
            // SAFETY: the code above, with the C calling convention.
            let function: extern "C" fn(*mut u8, u64) = unsafe { std::mem::transmute(page.wrapping_add(start)) };
            function(here.bytes().as_ptr(), 0x0102_0304_0506_0708);
            // SAFETY: our pages.
            assert_eq!(unsafe { libc::mprotect(pages, 8192, libc::PROT_READ | libc::PROT_WRITE) }, 0);
        };
        // The store ends the first page; `ret` begins the second.
        run(&[code[1], code[2], code[3], code[0]], 4096 - 3);
        same(here, there);
        assert_eq!(there.bytes().range(0..8).to_vec(), 0x0102_0304_0506_0708u64.to_le_bytes());
        // The store itself straddles the pages.
        here.bytes().fill(0);
        run(&[code[1], code[2], code[3], code[0]], 4096 - 1);
        same(here, there);
        assert_eq!(there.bytes().get(0), 8);
        // SAFETY: our pages, not used any more.
        unsafe { libc::munmap(pages, 8192) };
    });
}

#[test]
fn a_forked_child_stores_too_and_harms_nobody() {
    with_bytes(|a, here, there| {
        let lock = a.semaphore("fork", 1).unwrap();
        let guard = lock.lock().unwrap();
        // SAFETY: the child stores, and ends without returning to the test harness.
        let child = unsafe { libc::fork() };
        if child == 0 {
            here.bytes().set(5, 55);
            // SAFETY: within the array; traps.
            unsafe { here.bytes().as_ptr().wrapping_add(6).write_volatile(66) };
            let counted = here.seen_atomic().fetch_add(1, SeqCst);
            // The parent's guard is not the child's to give back.
            drop(guard);
            // SAFETY: ends the child.
            unsafe { libc::_exit(if counted == 0 { 0 } else { 1 }) };
        }
        assert!(child > 0);
        let mut status = 0;
        // SAFETY: waits for our child.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        eventually("the child's stores arrive", || there.bytes().get(5) == 55 && there.bytes().get(6) == 66);
        assert_eq!(here.seen_atomic().fetch_add(0, SeqCst), 1);
        assert!(lock.try_lock().unwrap().is_none(), "the parent still has it");
        drop(guard);
        here.bytes().set(7, 77);
        same(here, there);
    });
}

#[test]
fn late_joiners_have_everything() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "late");
    let here = a.array::<u64>("data", 100_000).unwrap();
    let mut hole = here.hole().unwrap();
    hole.iter_mut().enumerate().for_each(|(at, word)| *word = at as u64 + 1);
    hole.fill().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Stores go on while the others come.
            for round in 0u64.. {
                here.set((round * 7919 % 1000) as usize, round);
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        });
        for host in 1..=3 {
            let late = cluster.join(host, "late");
            let there = late.array::<u64>("data", 100_000).unwrap();
            assert!((1000..100_000).all(|at| there.get(at) == at as u64 + 1), "host {host} lacks something");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let last = cluster.join(4, "late");
    let there = last.array::<u64>("data", 100_000).unwrap();
    a.fence().unwrap();
    eventually("the last host has the same", || there.to_vec() == here.to_vec());
    drop((a, last));
}

#[test]
fn processes_of_one_host_share_through_memory() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "one-host");
    let words = a.array::<u64>("w", 8).unwrap();
    let children: Vec<_> = (0..3).map(|_| cluster.spawn(0, "one_host_worker", &[])).collect();
    children.into_iter().for_each(common::Process::succeeds);
    assert_eq!(words.atomic(0).fetch_add(0, SeqCst), 3000);
    assert_eq!(words.get(1), 3000);
    drop(a);
}

#[test]
fn one_host_worker() {
    if !role("one_host_worker") {
        return;
    }
    let session = join_by_environment("one-host");
    let words = session.array::<u64>("w", 8).unwrap();
    let lock = session.semaphore("l", 1).unwrap();
    for _ in 0..1000 {
        words.atomic(0).fetch_add(1, SeqCst);
        let _g = lock.lock().unwrap();
        words.set(1, words.get(1) + 1);
    }
}
