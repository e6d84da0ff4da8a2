//! The differential test on somebody else's region, and that it finds what is wrong there.

mod common;

use dsm_capture::selftest::{Coverage, Options, Ready, Report, Stage, prepare};
use dsm_capture::{Outcome, Sink, carry_out};
use dsm_core::op::AtomicOp;
use std::ffi::c_void;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

const LEN: usize = 3 * 4096;
static VIEW: AtomicUsize = AtomicUsize::new(0);
static ALIAS: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// What the sink does wrong.
static WRONG: AtomicU32 = AtomicU32::new(NOTHING);
const NOTHING: u32 = 0;
/// Stores of ten bytes lose a bit.
const TEN: u32 = 1;
/// Locked instructions return something else.
const LOCKED: u32 = 2;
/// The second host gets another byte than the first.
const ELSEWHERE: u32 = 3;
/// Nothing is carried out.
const DEAF: u32 = 4;
/// What is handed on is not what came.
const FORGED: u32 = 5;

struct Memory;

impl Memory {
    fn write(address: usize, bytes: &[u8]) {
        let to = address - VIEW.load(Ordering::Relaxed) + ALIAS.load(Ordering::Relaxed);
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to);
        // SAFETY: `writable` was true of these bytes.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn read(address: usize, into: &mut [u8]) {
        let from = std::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: as above.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
    }
}

impl Sink for Memory {
    fn writable(&self, address: usize, len: usize) -> bool {
        let view = VIEW.load(Ordering::Relaxed);
        let deaf = WRONG.load(Ordering::Relaxed) == DEAF;
        !deaf && address >= view && address.checked_add(len).is_some_and(|end| end <= view + LEN)
    }

    fn store(&mut self, address: usize, bytes: &[u8]) {
        Self::write(address, bytes);
        if bytes.len() == 10 && WRONG.load(Ordering::Relaxed) == TEN {
            Self::write(address + 3, &[bytes[3] ^ 4]);
        }
    }

    fn atomic(&mut self, address: usize, op: AtomicOp) -> u128 {
        let mut old = [0; 16];
        Self::read(address, &mut old[..op.width.into()]);
        let old = u128::from_le_bytes(old);
        Self::write(address, &op.apply(old).to_le_bytes()[..op.width.into()]);
        old ^ u128::from(WRONG.load(Ordering::Relaxed) == LOCKED)
    }
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's record of the signal.
    let record = unsafe { &*info };
    // SAFETY: SIGSEGV has an address.
    let fault = unsafe { record.si_addr() }.addr();
    if fault.wrapping_sub(VIEW.load(Ordering::Relaxed)) < LEN {
        // SAFETY: this is the handler, with all signals blocked, on the large stack of the test.
        if let Ok(Outcome::Done) = unsafe { carry_out(context.cast(), fault, &mut Memory) } {
            return;
        }
    }
    if WRONG.load(Ordering::Relaxed) == FORGED {
        // SAFETY: the kernel's record, to which there is no reference any more; none is made.
        let code = unsafe { &raw mut (*info).si_code };
        // SAFETY: as above. It lies in the frame of this handler.
        unsafe { code.write(1) };
    }
    let Some(previous) = PREVIOUS.get() else { std::process::abort() };
    type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void);
    // SAFETY: the handler of the test was installed with SA_SIGINFO.
    let next: Handler = unsafe { std::mem::transmute(previous.sa_sigaction) };
    next(signal, info, context);
}

/// The test's handlers, and ours on top of them.
fn ready() -> Ready {
    common::watch();
    let ready = prepare().expect("handlers");
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // With nothing on either side.
    let room = common::map(0, 64 * 4096 + LEN, libc::PROT_NONE, anonymous, -1);
    // SAFETY: the name is a string that ends in a zero.
    let file = unsafe { libc::memfd_create(c"stage".as_ptr(), 0) };
    // SAFETY: our own file.
    assert_eq!(unsafe { libc::ftruncate(file, LEN as i64) }, 0);
    let shared = libc::MAP_SHARED;
    let view = common::map(room + 32 * 4096, LEN, libc::PROT_READ, shared | libc::MAP_FIXED, file);
    VIEW.store(view, Ordering::Relaxed);
    ALIAS.store(common::map(0, LEN, libc::PROT_READ | libc::PROT_WRITE, shared, file), Ordering::Relaxed);
    // SAFETY: zeros are valid in these C structures.
    let [mut action, mut old]: [libc::sigaction; 2] = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: a set of signals is plain bits.
    unsafe { std::ptr::write_bytes(&raw mut action.sa_mask, 0xff, 1) };
    // SAFETY: the handler is as the kernel expects.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut old) }, 0);
    assert!(PREVIOUS.set(old).is_ok());
    ready
}

/// Its second host is the same memory.
struct Copied;

impl Stage for Copied {
    fn region(&self) -> (usize, usize) {
        (VIEW.load(Ordering::Relaxed), LEN)
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        Memory::write(VIEW.load(Ordering::Relaxed) + offset, bytes);
        Ok(())
    }

    fn settle(&mut self, expected: &[u8]) -> io::Result<Option<String>> {
        let mut there = vec![0; LEN];
        Memory::read(VIEW.load(Ordering::Relaxed), &mut there);
        if WRONG.load(Ordering::Relaxed) == ELSEWHERE && !expected[100].is_multiple_of(16) {
            there[100] ^= 1;
        }
        Ok((there != expected).then(|| "  other bytes arrived\n".to_owned()))
    }
}

fn run(ready: &Ready, wrong: u32, options: Options) -> Report {
    WRONG.store(wrong, Ordering::Relaxed);
    ready.run_on(&mut Copied, options).expect("the stage works")
}

#[test]
fn what_is_wrong_is_found_and_can_be_repeated() {
    let ready = ready();
    let report = run(&ready, NOTHING, Options::new(3, 20_000));
    assert!(report.failures.is_empty(), "{}", report.failures.join("\n"));
    assert!(report.compared > 19_900 && report.settled > 300, "{report}");
    // What was not drawn is not called missing in a run that is too short to draw it.
    let few = run(&ready, NOTHING, Options::new(3, 64));
    let count = |wanted| few.count(|coverage| *coverage == wanted);
    assert!(count(Coverage::NotDrawn) > 200 && count(Coverage::Missed) == 0 && few.compared > 60, "{few}");
    assert!(few.to_string().contains(&format!("{} out of reach, ", count(Coverage::OutOfReach))), "{few}");
    for (wrong, sign) in [
        (TEN, "memory at"),
        (LOCKED, "natively"),
        (ELSEWHERE, "other bytes arrived"),
        (DEAF, "signal: 11"),
        (FORGED, "captured End { signal: 11, code: 1"),
    ] {
        let report = run(&ready, wrong, Options::new(3, 20_000));
        let failure = report.failures.first().unwrap_or_else(|| panic!("{wrong} was not found"));
        assert!(failure.contains(sign), "{failure}");
        // It names the instruction, its bytes, its state and the case.
        for part in
            ["bytes [", "RAX=0x", "flags 0x", "xmm ", "masks ", "mxcsr ", "before it, memory at its operand (0x"]
        {
            assert!(failure.contains(part) || part == "masks " && !failure.contains("zmm"), "{part}: {failure}");
        }
        if wrong == ELSEWHERE {
            continue;
        }
        let number = failure.split("\n  case ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a number");
        let again = run(&ready, wrong, Options::only(3, number.parse().expect("a number")));
        assert_eq!((again.compared, again.failures.len()), (1, 1), "{failure}");
        assert_eq!(again.failures[0].lines().next(), failure.lines().next());
        let right = run(&ready, NOTHING, Options::only(3, number.parse().expect("a number")));
        assert_eq!(right.failures, [""; 0]);
    }
}
