//! A store to a session that cannot be carried out ends the process with one line that says which, and nobody else is
//! harmed.

mod common;

use common::{Cluster, eventually, join_by_environment, role};
use std::arch::asm;
use std::os::unix::process::ExitStatusExt;

/// `add qword ptr [rax+rcx*4+0x40], 0x01020304`, with prefixes that mean nothing here but are kept: 15 bytes, the most
/// that the processor takes, so that its copy, which has one more, would be too long.
const BYTES: &str = "66 f2 f3 48 81 84 88 40 00 00 00 04 03 02 01";
const ADDED: u64 = 0x0102_0304;

/// Executes it for the word at `rax + 0x40`; where it stands.
#[inline(never)]
fn add(word: *mut u64, before: impl FnOnce(u64)) {
    let at: u64;
    // SAFETY: asks where the instruction is.
    unsafe { asm!("lea {}, [rip + {}]", out(reg) at, sym instruction) };
    before(at);
    // SAFETY: calls the instruction, which adds to the word.
    unsafe {
        asm!("call {}", sym instruction, in("rax") word.wrapping_byte_sub(0x40), in("rcx") 0u64);
    }
}

#[unsafe(naked)]
extern "C" fn instruction() {
    std::arch::naked_asm!(".byte 0x66,0xf2,0xf3,0x48,0x81,0x84,0x88,0x40,0,0,0,4,3,2,1", "ret")
}

#[test]
fn it_ends_the_process_with_a_line_that_says_which_instruction_and_where() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "refused"), cluster.join(1, "refused"));
    let (here, there) = (a.array::<u64>("w", 8).unwrap(), b.array::<u64>("w", 8).unwrap());
    here.set(1, 5);
    let said = cluster.command(0, "adds", &[]).stdout(std::process::Stdio::piped()).output().unwrap();
    let (out, err) = (String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap());
    assert_eq!(said.status.signal(), Some(libc::SIGABRT), "{out}{err}");
    let (_, at) = out.split_once("the instruction stands at ").unwrap_or_else(|| panic!("{out}{err}"));
    let at = at.lines().next().unwrap();
    let what = "add qword ptr [rax+rcx*4+40h],1020304h";
    let why = "with another prefix it would be too long";
    assert_eq!(err, format!("dsm: the instruction at {at} ({BYTES}) cannot be carried out: {why}: {what}\n"));
    // Nothing was stored, the lock is free, and stores go on.
    there.set(2, 6);
    here.set(3, 7);
    eventually("stores go on", || there.get(3) == 7 && here.get(2) == 6);
    assert_eq!((here.get(1), there.get(1)), (5, 5));
    drop((a, b));
}

#[test]
fn adds() {
    if !role("adds") {
        return;
    }
    let session = join_by_environment("refused");
    let words = session.array::<u64>("w", 8).unwrap();
    // The processor has nothing against it.
    let mut own = 1;
    add(&raw mut own, |_| ());
    assert_eq!(own, 1 + ADDED);
    assert_eq!(words.get(1), 5);
    add(words.as_ptr().wrapping_add(1), |at| println!("the instruction stands at {at:#x}"));
    panic!("it was carried out: {}", words.get(1));
}
