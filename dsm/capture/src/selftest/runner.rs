//! Running one instruction with all registers given: through a trap in, and a trap out.

use super::arena::Arena;
use crate::{Outcome, Sink, carry_out};
use dsm_core::op::AtomicOp;
use std::arch::asm;
use std::ffi::c_void;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// An XSAVE area of at most this size is carried along.
const AREA: usize = 16 * 1024;
const SIGNALS: [i32; 5] = [libc::SIGTRAP, libc::SIGSEGV, libc::SIGILL, libc::SIGBUS, libc::SIGFPE];
const STACK: usize = 128 * 1024;
const STORES: usize = 256;

/// General registers and the x87 and vector state, as a signal frame has them.
#[derive(Clone)]
pub(super) struct State {
    pub(super) registers: [u64; 16],
    pub(super) rip: u64,
    pub(super) flags: u64,
    pub(super) area: Vec<u8>,
}

impl State {
    fn new(area: usize) -> Self {
        Self { registers: [0; 16], rip: 0, flags: 0, area: vec![0; area] }
    }
}

/// How a run ended, beside its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct End {
    /// 0, or the signal that ended it.
    pub(super) signal: i32,
    /// The signal's code and address.
    pub(super) code: i32,
    pub(super) address: usize,
}

#[derive(PartialEq, Eq)]
enum Phase {
    Idle,
    Looking,
    Starting,
    Running,
}

/// What the handler works on. All of it is made before, as the handler may not allocate.
pub(super) struct Job {
    phase: Phase,
    /// What the instruction starts with.
    pub(super) start: State,
    /// What it left.
    pub(super) end: State,
    host: State,
    pub(super) ended: End,
    pub(super) stores: [(usize, usize); STORES],
    pub(super) count: usize,
    pub(super) genuine: bool,
    pub(super) refused: Option<crate::Unsupported>,
    pub(super) faults: usize,
    /// Where faults are ours. Null: somebody else deals with them, and those that come here were handed on.
    arena: *const Arena,
}

impl Job {
    /// `area`: bytes of a signal frame's XSAVE area, if they are known.
    pub(super) fn new(area: Option<usize>) -> Box<Self> {
        let area = area.unwrap_or(AREA);
        Box::new(Self {
            phase: Phase::Idle,
            start: State::new(area),
            end: State::new(area),
            host: State::new(area),
            ended: End::default(),
            stores: [(0, 0); STORES],
            count: 0,
            genuine: false,
            refused: None,
            faults: 0,
            arena: std::ptr::null(),
        })
    }
}

static JOB: AtomicPtr<Job> = AtomicPtr::new(std::ptr::null_mut());

const PLACES: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

fn area_size(area: &[u8]) -> usize {
    let word = |at: usize| u32::from_le_bytes([area[at], area[at + 1], area[at + 2], area[at + 3]]);
    if word(464) == 0x4650_5853 { (word(480) as usize).clamp(512, AREA) } else { 512 }
}

/// Between a signal frame and a state.
fn exchange(context: &mut libc::mcontext_t, save: Option<&mut State>, load: Option<&State>) {
    let area = context.fpregs.cast::<u8>();
    // SAFETY: every signal frame has an FXSAVE area.
    let legacy = unsafe { std::slice::from_raw_parts_mut(area, 512) };
    let size = area_size(legacy);
    // SAFETY: the area says that it is that long.
    let area = unsafe { std::slice::from_raw_parts_mut(area, size) };
    // No state is shorter, but this is a signal handler.
    let size = size.min(save.as_ref().map_or(size, |state| state.area.len()));
    let size = size.min(load.map_or(size, |state| state.area.len()));
    if let Some(state) = save {
        for (register, place) in state.registers.iter_mut().zip(PLACES) {
            *register = context.gregs[place as usize] as u64;
        }
        state.rip = context.gregs[libc::REG_RIP as usize] as u64;
        state.flags = context.gregs[libc::REG_EFL as usize] as u64;
        state.area[..size].copy_from_slice(&area[..size]);
    }
    if let Some(state) = load {
        for (register, place) in state.registers.iter().zip(PLACES) {
            context.gregs[place as usize] = *register as i64;
        }
        context.gregs[libc::REG_RIP as usize] = state.rip as i64;
        context.gregs[libc::REG_EFL as usize] = state.flags as i64;
        area[..size].copy_from_slice(&state.area[..size]);
    }
}

struct ArenaSink<'a>(&'a mut Job);

impl ArenaSink<'_> {
    fn arena(&self) -> &Arena {
        // SAFETY: `run` keeps the arena for as long as the job runs.
        unsafe { &*self.0.arena }
    }

    fn record(&mut self, address: usize, len: usize) {
        if let Some(entry) = self.0.stores.get_mut(self.0.count) {
            *entry = (address, len);
            self.0.count += 1;
        }
    }
}

impl Sink for ArenaSink<'_> {
    fn writable(&self, address: usize, len: usize) -> bool {
        let (region, size) = self.arena().place();
        address >= region && address.checked_add(len).is_some_and(|end| end <= region + size)
    }

    fn store(&mut self, address: usize, bytes: &[u8]) {
        self.record(address, bytes.len());
        let to = std::ptr::with_exposed_provenance_mut::<u8>(self.arena().alias(address));
        // SAFETY: `writable` was true of these bytes.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn atomic(&mut self, address: usize, op: AtomicOp) -> u128 {
        self.record(address, op.width.into());
        let place = std::ptr::with_exposed_provenance_mut::<u8>(self.arena().alias(address));
        let mut old = [0u8; 16];
        // SAFETY: as in `store`; nobody else runs.
        unsafe { place.copy_to_nonoverlapping(old.as_mut_ptr(), op.width.into()) };
        let new = op.apply(u128::from_le_bytes(old)).to_le_bytes();
        // SAFETY: as above.
        unsafe { place.copy_from_nonoverlapping(new.as_ptr(), op.width.into()) };
        u128::from_le_bytes(old)
    }
}

extern "C" fn handler(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel's frame; no reference to the whole, which is shorter than libc's type.
    let registers = unsafe { &raw mut (*context).uc_mcontext };
    let job = JOB.load(Ordering::Acquire);
    if job.is_null() {
        give_up();
    }
    // SAFETY: the job lives while the handlers are installed, and only the handler uses it while it runs.
    let job = unsafe { &mut *job };
    if signal == libc::SIGSEGV && job.phase == Phase::Running && captured(job, info, context) {
        return;
    }
    // SAFETY: as above; `captured`, which also uses the context, is done.
    let registers = unsafe { &mut *registers };
    match job.phase {
        Phase::Looking if signal == libc::SIGTRAP => {
            exchange(registers, Some(&mut job.host), None);
            job.phase = Phase::Idle;
        }
        Phase::Starting if signal == libc::SIGTRAP => {
            exchange(registers, Some(&mut job.host), Some(&job.start));
            job.phase = Phase::Running;
        }
        Phase::Running => {
            exchange(registers, Some(&mut job.end), Some(&job.host));
            job.ended = ending(signal, info);
            job.phase = Phase::Idle;
        }
        _ => give_up(),
    }
}

fn ending(signal: i32, info: *mut libc::siginfo_t) -> End {
    if signal == libc::SIGTRAP {
        return End::default();
    }
    // SAFETY: the kernel's record of the signal.
    let info = unsafe { &*info };
    // SAFETY: these signals have an address.
    let address = unsafe { info.si_addr() }.addr();
    End { signal, code: info.si_code, address }
}

fn captured(job: &mut Job, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) -> bool {
    // SAFETY: the kernel's record of the signal.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV has an address.
    let fault = unsafe { info.si_addr() }.addr();
    // SAFETY: the job's arena outlives it.
    let Some(arena) = (unsafe { job.arena.as_ref() }) else { return false };
    let (region, len) = arena.place();
    job.faults += 1;
    if fault.wrapping_sub(region) >= len || job.faults > 10_000 {
        return false;
    }
    // SAFETY: takes nothing, returns a number.
    CAPTURING.store(unsafe { libc::gettid() }, Ordering::Relaxed);
    // SAFETY: this is the handler; every signal is blocked; the stack is large.
    let outcome = unsafe { carry_out(context, fault, &mut ArenaSink(job)) };
    CAPTURING.store(0, Ordering::Relaxed);
    match outcome {
        Ok(Outcome::Done) => true,
        Ok(Outcome::NotOurs) if !job.genuine => {
            // Its turn comes natively.
            job.genuine = true;
            arena.protect(true);
            true
        }
        Ok(Outcome::NotOurs) => false,
        Err(unsupported) => {
            job.refused = Some(unsupported);
            false
        }
    }
}

/// The thread that carries out an instruction just now, as the kernel numbers it; 0 for none.
static CAPTURING: AtomicI32 = AtomicI32::new(0);

/// Does the calling thread carry out an instruction, in the handler? For an allocator that forbids it to allocate.
pub fn capturing() -> bool {
    let thread = CAPTURING.load(Ordering::Relaxed);
    // SAFETY: as above.
    thread != 0 && thread == unsafe { libc::gettid() }
}

/// A signal that has nothing to do with the test: the process ends by it.
fn give_up() {
    for signal in SIGNALS {
        // SAFETY: puts back the default action; the instruction at fault is then executed again and ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// The process's handlers.
pub(super) struct Handlers {
    old: Vec<(i32, libc::sigaction)>,
}

impl Handlers {
    pub(super) fn install() -> io::Result<Self> {
        let mut handlers = Self { old: vec![] };
        for signal in SIGNALS {
            // SAFETY: zeros are valid in this C structure.
            let [mut action, mut old]: [libc::sigaction; 2] = unsafe { std::mem::zeroed() };
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: a set is plain bits.
            unsafe { std::ptr::write_bytes(&raw mut action.sa_mask, 0xff, 1) };
            // SAFETY: the handler is as the kernel expects.
            if unsafe { libc::sigaction(signal, &raw const action, &raw mut old) } != 0 {
                return Err(io::Error::last_os_error());
            }
            handlers.old.push((signal, old));
        }
        Ok(handlers)
    }

    /// Leaves them where they are: somebody installed his own on top, and hands on to them.
    pub(super) fn keep(mut self) {
        self.old.clear();
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for (signal, old) in &self.old {
            // SAFETY: what was installed before.
            unsafe { libc::sigaction(*signal, old, std::ptr::null_mut()) };
        }
        JOB.store(std::ptr::null_mut(), Ordering::Release);
    }
}

/// This thread's stack for signals, its mask and its GS base, until dropped.
pub(super) struct Prepared {
    old_stack: libc::stack_t,
    old_mask: libc::sigset_t,
    old_gs: u64,
    _stack: Vec<u8>,
}

fn set_gs(base: u64) {
    const ARCH_SET_GS: i32 = 0x1001;
    // SAFETY: nothing in a Rust program on x86-64 Linux uses GS.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) };
}

impl Prepared {
    /// `gs_base`: the base that GS has for the tested instructions.
    pub(super) fn new(gs_base: u64) -> io::Result<Self> {
        let mut stack = vec![0u8; STACK];
        // SAFETY: zeros are valid in these C structures.
        let mut old_stack: libc::stack_t = unsafe { std::mem::zeroed() };
        let own = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
        // SAFETY: the stack lives as long as this.
        if unsafe { libc::sigaltstack(&raw const own, &raw mut old_stack) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // Other signals wait: their handlers would run on whatever RSP the tested instruction has.
        // SAFETY: zeros are a valid set of signals.
        let [mut mask, mut old_mask]: [libc::sigset_t; 2] = unsafe { std::mem::zeroed() };
        // SAFETY: a set is plain bits.
        unsafe { std::ptr::write_bytes(&raw mut mask, 0xff, 1) };
        for signal in SIGNALS {
            // SAFETY: a set of our own.
            unsafe { libc::sigdelset(&raw mut mask, signal) };
        }
        // SAFETY: both sets are our own.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, &raw mut old_mask) };
        let old_gs = crate::sys::segment_base(true);
        set_gs(gs_base);
        Ok(Self { old_stack, old_mask, old_gs, _stack: stack })
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        set_gs(self.old_gs);
        // SAFETY: the stack of before.
        unsafe { libc::sigaltstack(&raw const self.old_stack, std::ptr::null_mut()) };
        // SAFETY: the mask of before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.old_mask, std::ptr::null_mut()) };
    }
}

/// Runs the code at `job.start.rip` until it traps. `arena`: where faults are carried out; without one, whoever's
/// handler comes before ours does that.
#[inline(never)]
pub(super) fn run(job: &mut Job, arena: Option<&Arena>) {
    job.arena = arena.map_or(std::ptr::null(), std::ptr::from_ref);
    (job.ended, job.count, job.genuine, job.refused, job.faults) = (End::default(), 0, false, None, 0);
    job.phase = Phase::Starting;
    trap(job);
}

/// The x87 and vector state of this thread as a signal frame shows it: a pattern for the states of the test.
pub(super) fn sample() -> Vec<u8> {
    let mut job = Job::new(None);
    // The first trap only looks.
    job.phase = Phase::Looking;
    trap(&mut job);
    let size = area_size(&job.host.area);
    job.host.area[..size].to_vec()
}

#[inline(never)]
fn trap(job: &mut Job) {
    let job: *mut Job = job;
    JOB.store(job, Ordering::Release);
    // SAFETY: the handler takes the registers away and brings every one of them back.
    unsafe { asm!("int3", in("rax") job) };
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    JOB.store(std::ptr::null_mut(), Ordering::Release);
}
