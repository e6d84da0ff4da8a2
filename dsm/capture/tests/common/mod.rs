//! A region without a session: one memory file mapped twice, and a handler that writes through the second mapping.
#![allow(dead_code, unreachable_pub)]

pub mod allocator;

use dsm_capture::{Outcome, Sink, carry_out, warm};
use dsm_core::op::AtomicOp;
use std::ffi::c_void;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

pub const PAGE: usize = 4096;
const REGIONS: usize = 64;
const LOG: usize = 512;

/// What the sink of a region was told, as (offset, length); atomics have `ATOMIC` added to the length.
pub struct Region {
    view: usize,
    alias: usize,
    len: usize,
    log: [(AtomicUsize, AtomicUsize); LOG],
    count: AtomicUsize,
    genuine: AtomicUsize,
    turn: AtomicBool,
}

pub const ATOMIC: usize = 1 << 20;

static TABLE: [AtomicPtr<Region>; REGIONS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; REGIONS];
static USED: AtomicUsize = AtomicUsize::new(0);
/// Set while the handler runs, for an allocator that watches.
pub static IN_HANDLER: AtomicBool = AtomicBool::new(false);
static INSTALL: Once = Once::new();

/// Maps memory or ends the test.
pub fn map(at: usize, len: usize, protection: i32, flags: i32, file: i32) -> usize {
    // SAFETY: the tests ask for fixed places only where they reserved room before.
    let address = unsafe { libc::mmap(at as *mut c_void, len, protection, flags, file, 0) };
    assert_ne!(address, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    address.expose_provenance()
}

impl Region {
    /// A region of zeros between an ordinary page before it and one behind it.
    pub fn new(pages: usize) -> &'static Self {
        prepare_thread();
        let len = pages * PAGE;
        // SAFETY: the name is a string that ends in a zero.
        let file = unsafe { libc::memfd_create(c"region".as_ptr(), 0) };
        assert!(file >= 0);
        // SAFETY: a file of our own.
        assert_eq!(unsafe { libc::ftruncate(file, len as i64) }, 0);
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let room = map(0, len + 2 * PAGE, libc::PROT_READ | libc::PROT_WRITE, anonymous, -1);
        let view = map(room + PAGE, len, libc::PROT_READ, libc::MAP_SHARED | libc::MAP_FIXED, file);
        let alias = map(0, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file);
        let log = [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; LOG];
        let (count, genuine, turn) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let region = Box::leak(Box::new(Self { view, alias, len, log, count, genuine, turn }));
        TABLE[USED.fetch_add(1, Ordering::Relaxed)].store(region, Ordering::Release);
        region
    }

    /// A pointer into the view.
    pub fn at<T>(&self, offset: usize) -> *mut T {
        std::ptr::with_exposed_provenance_mut(self.view + offset)
    }

    /// Bytes of the region, read through the view.
    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        (0..len)
            .map(|index| {
                // SAFETY: inside the view, which can always be read.
                unsafe { self.at::<u8>(offset + index).read_volatile() }
            })
            .collect()
    }

    /// Eight bytes of the region.
    pub fn word(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes(offset, 8).try_into().expect("eight bytes"))
    }

    /// Writes past the capture.
    pub fn fill(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        for (index, byte) in bytes.iter().enumerate() {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(self.alias + offset + index);
            // SAFETY: inside the alias.
            unsafe { place.write_volatile(*byte) };
        }
    }

    /// What the sink was told since the last call, in order.
    pub fn log(&self) -> Vec<(usize, usize)> {
        let count = self.count.swap(0, Ordering::Relaxed);
        assert!(count <= LOG, "the log is too short");
        self.log[..count].iter().map(|(at, len)| (at.load(Ordering::Relaxed), len.load(Ordering::Relaxed))).collect()
    }

    /// How many stores the sink was told of since the last call.
    pub fn count(&self) -> usize {
        self.count.swap(0, Ordering::Relaxed)
    }

    /// How many faults were not ours since the last call.
    pub fn genuine(&self) -> usize {
        self.genuine.swap(0, Ordering::Relaxed)
    }

    /// Makes the view read-only again after a genuine fault.
    pub fn protect(&self) {
        // SAFETY: the view of this region.
        assert_eq!(unsafe { libc::mprotect(self.at(0), self.len, libc::PROT_READ) }, 0);
    }

    fn record(&self, address: usize, len: usize) {
        let index = self.count.fetch_add(1, Ordering::Relaxed);
        if let Some((at, length)) = self.log.get(index) {
            at.store(address - self.view, Ordering::Relaxed);
            length.store(len, Ordering::Relaxed);
        }
    }
}

struct RegionSink(&'static Region);

impl Sink for RegionSink {
    fn writable(&self, address: usize, len: usize) -> bool {
        address >= self.0.view && address.wrapping_add(len) <= self.0.view + self.0.len
    }

    fn store(&mut self, address: usize, bytes: &[u8]) {
        self.0.record(address, bytes.len());
        let place = std::ptr::with_exposed_provenance_mut::<u8>(self.0.alias + (address - self.0.view));
        // SAFETY: `writable` was true of these bytes, so they are in the alias.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
    }

    fn atomic(&mut self, address: usize, op: AtomicOp) -> u128 {
        self.0.record(address, usize::from(op.width) + ATOMIC);
        while self.0.turn.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        let place = std::ptr::with_exposed_provenance_mut::<u8>(self.0.alias + (address - self.0.view));
        let mut old = [0u8; 16];
        // SAFETY: as in `store`.
        unsafe { std::ptr::copy_nonoverlapping(place, old.as_mut_ptr(), op.width.into()) };
        let old = u128::from_le_bytes(old);
        let new = op.apply(old).to_le_bytes();
        // SAFETY: as in `store`.
        unsafe { std::ptr::copy_nonoverlapping(new.as_ptr(), place, op.width.into()) };
        self.0.turn.store(false, Ordering::Release);
        old
    }
}

fn die(message: &str) -> ! {
    // SAFETY: writes to standard error.
    unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

extern "C" fn handler(_signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's own record of the signal.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV has an address.
    let fault = unsafe { info.si_addr() }.expose_provenance();
    for entry in &TABLE {
        let region = entry.load(Ordering::Acquire);
        if region.is_null() {
            break;
        }
        // SAFETY: the table holds only leaked regions.
        let region: &'static Region = unsafe { &*region };
        if fault.wrapping_sub(region.view) >= region.len {
            continue;
        }
        IN_HANDLER.store(true, Ordering::Relaxed);
        // SAFETY: this is the handler, with all signals blocked, on a stack of 32 KiB.
        let outcome = unsafe { carry_out(context.cast(), fault, &mut RegionSink(region)) };
        IN_HANDLER.store(false, Ordering::Relaxed);
        match outcome {
            Ok(Outcome::Done) => {}
            Ok(Outcome::NotOurs) => {
                region.genuine.fetch_add(1, Ordering::Relaxed);
                // The test goes on natively, and protects the view again.
                // SAFETY: the view of this region.
                unsafe { libc::mprotect(region.at(0), region.len, libc::PROT_READ | libc::PROT_WRITE) };
            }
            Err(unsupported) => die(&format!("{unsupported}: {}\n", unsupported.describe())),
        }
        return;
    }
    die("a fault outside of all regions\n");
}

/// Says why a part of a test is not run here: past the harness, which keeps to itself what tests print that pass.
pub fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Ends the process by SIGALRM if the tests hang.
pub fn watch() {
    const SECONDS: u32 = 300;
    // SAFETY: only sets a timer.
    unsafe { libc::alarm(SECONDS) };
}

/// Installs the handler, and gives this thread a stack for it.
pub fn prepare_thread() {
    // What the engine promises to do with, and a page below it that stops it.
    const STACK: usize = 32 * 1024;
    INSTALL.call_once(|| {
        watch();
        warm();
        // SAFETY: zeros are a valid value of this C structure.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // Every signal, also the two that sigfillset leaves out.
        // SAFETY: a signal set is plain bits.
        unsafe { std::ptr::write_bytes(&raw mut action.sa_mask, 0xff, 1) };
        // SAFETY: the handler is as the kernel expects.
        assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) }, 0);
    });
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let guard = map(0, PAGE + STACK, libc::PROT_NONE, anonymous, -1);
    let fixed = anonymous | libc::MAP_FIXED;
    let stack = map(guard + PAGE, STACK, libc::PROT_READ | libc::PROT_WRITE, fixed, -1);
    let stack = libc::stack_t { ss_sp: std::ptr::with_exposed_provenance_mut(stack), ss_flags: 0, ss_size: STACK };
    // SAFETY: the stack stays mapped.
    assert_eq!(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) }, 0);
}
