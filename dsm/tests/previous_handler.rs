//! Faults that are not stores to the view reach whoever handled SIGSEGV before the session was joined.

mod common;

use common::{Cluster, Process, join_by_environment, role};
use std::os::unix::process::ExitStatusExt;

extern "C" fn leave(_signal: libc::c_int) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(42) };
}

fn load(from: *mut u64) {
    // SAFETY: it is not: this raises the fault that the test is about.
    unsafe { std::arch::asm!("mov {t}, [{p}]", p = in(reg) from, t = out(reg) _) };
}

fn store(to: *mut u64) {
    // SAFETY: as for `load`.
    unsafe { std::arch::asm!("mov [{p}], {p}", p = in(reg) to) };
}

fn status(mut process: Process) -> std::process::ExitStatus {
    process.0.wait().unwrap()
}

#[test]
fn faults_outside_of_segments_go_to_the_handler_before() {
    let cluster = Cluster::new();
    for fault in ["null-load", "null-store", "behind-the-segment", "load-behind-the-segment"] {
        let handled = cluster.spawn(0, "faulter", &[("FAULT", fault), ("HANDLER", "1")]);
        assert_eq!(status(handled).code(), Some(42), "{fault}");
        // Without a handler of the program's own: the runtime's, which ends it by the signal.
        let unhandled = cluster.spawn(0, "faulter", &[("FAULT", fault)]);
        assert_eq!(status(unhandled).signal(), Some(libc::SIGSEGV), "{fault}");
    }
}

/// Sends this thread a SIGSEGV whose record has, where a fault has its address, one in the view.
fn send(address: *mut u64) {
    let mut record = [0u64; 16];
    let [number, code] = [libc::SIGSEGV, libc::SI_QUEUE].map(|word| u64::from(word as u32));
    (record[0], record[1], record[2]) = (number, code, address.addr() as u64);
    let (process, signal) = (std::process::id(), libc::SIGSEGV);
    // SAFETY: takes nothing.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    // SAFETY: the record has the kernel's 128 bytes.
    unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, record.as_ptr()) };
}

#[test]
fn a_signal_that_was_sent_is_no_store() {
    let cluster = Cluster::new();
    let handled = cluster.spawn(0, "faulter", &[("FAULT", "sent"), ("HANDLER", "1")]);
    assert_eq!(status(handled).code(), Some(42));
    let default = cluster.spawn(0, "faulter", &[("FAULT", "sent"), ("HANDLER", "default")]);
    assert_eq!(status(default).signal(), Some(libc::SIGSEGV));
    let ignored = cluster.spawn(0, "faulter", &[("FAULT", "sent"), ("HANDLER", "ignore")]);
    assert_eq!(status(ignored).code(), Some(7));
}

#[test]
fn faulter() {
    if !role("faulter") {
        return;
    }
    let handler = match std::env::var("HANDLER").as_deref() {
        Ok("default") => Some(libc::SIG_DFL),
        Ok("ignore") => Some(libc::SIG_IGN),
        Ok(_) => Some(leave as *const () as usize),
        Err(_) => None,
    };
    if let Some(handler) = handler {
        // SAFETY: the handler, if it is one, ends the process and does nothing else.
        unsafe { libc::signal(libc::SIGSEGV, handler) };
    }
    let session = join_by_environment("fault");
    let words = session.array::<u64>("w", 512).unwrap();
    words.set(0, 1);
    // SAFETY: within the array; traps, and is carried out.
    unsafe { words.as_ptr().wrapping_add(1).write_volatile(2) };
    assert_eq!((words.get(0), words.get(1)), (1, 2));
    let behind = words.as_ptr().wrapping_add(512);
    match std::env::var("FAULT").unwrap().as_str() {
        "null-load" => load(std::ptr::without_provenance_mut(8)),
        "null-store" => store(std::ptr::without_provenance_mut(8)),
        "behind-the-segment" => store(behind),
        "sent" => {
            send(words.as_ptr());
            // SAFETY: ends the process.
            unsafe { libc::_exit(7) };
        }
        _ => load(behind),
    }
    unreachable!("nothing faulted");
}
