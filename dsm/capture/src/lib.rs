//! Carries out, somewhere else, an instruction that faulted because it stores to read-only memory.
//!
//! A region of shared memory is mapped read-only; a store to it raises SIGSEGV, and the handler calls [`carry_out`]
//! with the registers of the interrupted program. The instruction is decoded, what it stores goes to a [`Sink`], and
//! registers and flags become what the processor would have made them, so that the program goes on behind it.
//!
//! * Plain moves, string stores and stores to a stack are carried out in software, from the saved registers.
//! * Everything else that writes memory is executed by the processor: a copy of the instruction, with its memory
//!   operand moved to a private copy by the base of the GS segment.
//! * A locked instruction becomes an [`AtomicOp`], and is then executed in the same way on
//!   the value that came back, so that flags and registers are the processor's.
//!
//! An instruction that cannot be carried out is [`Unsupported`]: never a wrong value.
//!
//! # What cannot be carried out
//!
//! Some instructions never are:
//!
//! | instructions | why |
//! |---|---|
//! | `bndmov` | bounds registers are not carried out |
//! | `call` | 16-bit calls are not carried out |
//! | `call` | far calls are not carried out |
//! | `ccs_encrypt` `ccs_hash` `xcryptcbc` `xcryptcfb` `xcryptctr` `xcryptecb` `xcryptofb` `xsha1` `xsha256` `xsha512_alt` `xsha512` `xstore_alt` `xstore` | instructions of VIA's PadLock are not carried out |
//! | `enqcmd` | it is meant for devices |
//! | `rstorssp` `wrssd` `wrssq` | shadow stacks are not carried out |
//! | `sttilecfg` `tilestored` | matrix tiles are not carried out |
//!
//! Others are not when data or the system are such:
//!
//! | when | why |
//! |---|---|
//! | the system refuses executable memory files | there is no executable memory to run a copy of it |
//! | more meaningless prefixes than fit 15 bytes with one more | with another prefix it would be too long |
//! | an address relative to FS or GS whose base is more than 128 TiB above it | its operand is too far from its segment |
//! | `vcvtps2ph`, unmasked exceptions and SIGFPE blocked or ignored, which is the end natively, too | it raises a floating-point exception whose signal the program blocks or ignores |
//! | `xsave` and its like with a mask that has PKRU, AMX, MPX or other state beyond AVX-512 | it saves registers that the signal frame does not hold |
//! | a thread with a shadow stack calls | its return address would be missing on the shadow stack |
//! | never seen | the processor does not say twice which registers it saved |
//! | never seen | its operand is too large |
//! | never seen | a locked instruction with an operand of an unknown kind |
//!
//! In a hardware transaction (TSX) a store to the region aborts it, as every fault does, and raises no signal: nothing
//! is captured there, and the program takes the way that it has for aborts.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("dsm-capture decodes x86-64 instructions from Linux signal frames; there is no other version of it");

mod cache;
mod decode;
mod execute;
mod memory;
mod plan;
mod processor;
#[cfg(feature = "selftest")]
pub mod selftest;
mod sys;

use cache::Site;
use decode::CodeBytes;
use dsm_core::op::AtomicOp;
use execute::Trap;
use execute::machine::Machine;
use plan::Writes;
use processor::Processor;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who receives what a trapped instruction does to the region.
///
/// All three are called inside the signal handler.
pub trait Sink {
    /// Are all of these bytes inside one or more writable mapped segments of the region?
    fn writable(&self, address: usize, len: usize) -> bool;

    /// One store of `bytes` (one or more) at `address` of the view. It is visible in the view when this returns.
    /// One call for each store of the architecture (64 bytes for a whole ZMM register); string instructions make
    /// calls of up to 4096 bytes.
    fn store(&mut self, address: usize, bytes: &[u8]);

    /// A locked read-modify-write, at its place in the total order. Returns the old value, zero-extended. May block.
    fn atomic(&mut self, address: usize, op: AtomicOp) -> u128;
}

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The program can go on. (Behind the instruction, or at it again when the processor has to do the rest of it.)
    Done,
    /// The instruction does not write the region at the faulting address, or it may not: a genuine fault, for
    /// whoever handled the signal before. Nothing was changed, but that a call that faults for its target, too, has
    /// stored its return address where the processor does so.
    NotOurs,
}

/// An instruction that writes the region and cannot be carried out.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Unsupported {
    /// Where it stands.
    pub address: u64,
    /// Its bytes, or what can be read of them.
    pub bytes: [u8; 15],
    /// How many of them.
    pub len: u8,
    /// Why, as the end of a sentence.
    pub reason: &'static str,
}

impl Unsupported {
    /// The instruction in Intel's syntax. Allocates: for a process that is about to end.
    pub fn describe(&self) -> String {
        use iced_x86::Formatter;
        let (instruction, _) = decode::decode_bytes(&self.bytes[..usize::from(self.len)], self.address, false);
        let mut text = String::new();
        iced_x86::IntelFormatter::new().format(&instruction, &mut text);
        text
    }
}

impl fmt::Display for Unsupported {
    /// Allocates nothing, unlike [`Unsupported::describe`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the instruction at {:#x} (", self.address)?;
        for (index, byte) in self.bytes[..usize::from(self.len)].iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { " " })?;
        }
        write!(f, ") cannot be carried out: {}", self.reason)
    }
}

impl std::error::Error for Unsupported {}

struct Engine {
    processor: Processor,
    writes: Writes,
}

static ENGINE: OnceLock<Engine> = OnceLock::new();

/// Builds everything that the handler needs. Call it before the first fault, outside of any signal handler: after it
/// nothing here allocates.
pub fn warm() {
    ENGINE.get_or_init(|| {
        decode::warm();
        execute::stubs::warm();
        Engine { processor: Processor::detect(), writes: Writes::new() }
    });
}

/// Carries out the instruction that faulted at address `fault` (the signal's `si_addr`) and advances `context` past
/// it.
///
/// Faults that are not page faults by a write are not ours. A string instruction that leaves the region is carried
/// out up to there and left to the processor for the rest.
///
/// # Errors
/// [`Unsupported`] when the instruction writes the region but cannot be carried out.
///
/// # Safety
/// `context` is what the kernel gave to a SIGSEGV handler with `SA_SIGINFO` that is running now, on a stack of at
/// least 32 KiB, with *all* signals blocked: also the two (32 and 33) that libc keeps for itself and that its
/// `sigfillset` leaves out. `sink.writable` is true only of memory that can be read.
pub unsafe fn carry_out(
    context: *mut libc::ucontext_t,
    fault: usize,
    sink: &mut dyn Sink,
) -> Result<Outcome, Unsupported> {
    // The kernel's context is shorter than libc's type, so only the part that both have is borrowed.
    // SAFETY: the caller gives a valid context; no reference is made.
    let registers = unsafe { &raw mut (*context).uc_mcontext };
    // SAFETY: as above, and while the handler runs nobody else uses it.
    let registers = unsafe { &mut *registers };
    let rip = registers.gregs[libc::REG_RIP as usize] as u64;
    let Some(engine) = ENGINE.get() else {
        return Err(Unsupported { address: rip, bytes: [0; 15], len: 0, reason: "`warm` was not called" });
    };
    let machine = Machine::new(registers, &engine.processor);
    if !machine.is_write_fault() {
        return Ok(Outcome::NotOurs);
    }
    // SAFETY: the kernel's set of signals has eight bytes, with which libc's begins.
    let blocked = unsafe { (&raw const (*context).uc_sigmask).cast::<u64>() };
    // SAFETY: as above, and it is aligned as libc's is.
    let blocked = unsafe { blocked.read() };
    if let Some(site) = cache::copy(rip) {
        return finish(Trap { machine, fault, sink, site: &site, held: None, blocked });
    }
    if let Some(held) = cache::find(rip) {
        return finish(Trap { machine, fault, sink, site: held.site(), held: Some(&held), blocked });
    }
    let site = learn(engine, rip)?;
    let held = cache::insert(site);
    finish(Trap { machine, fault, sink, site: &site, held: held.as_ref(), blocked })
}

fn finish(mut trap: Trap) -> Result<Outcome, Unsupported> {
    execute::carry_out(&mut trap).map_err(|reason| {
        let code = trap.site.code.bytes();
        let mut bytes = [0; 15];
        bytes.copy_from_slice(&code[..15]);
        Unsupported { address: trap.site.rip, bytes, len: trap.site.plan.len, reason }
    })
}

/// How many instructions were decoded: sites that trapped for the first time, or whose code had changed, or that had
/// to give way to others.
pub fn decoded() -> u64 {
    DECODED.load(Ordering::Relaxed)
}

static DECODED: AtomicU64 = AtomicU64::new(0);

/// Decodes the instruction at `rip` and works out its plan.
#[cold]
fn learn(engine: &Engine, rip: u64) -> Result<Site, Unsupported> {
    DECODED.fetch_add(1, Ordering::Relaxed);
    let (instruction, code) = decode::decode(rip, engine.processor.amd);
    if instruction.is_invalid() {
        let mut bytes = [0; 15];
        bytes.copy_from_slice(&code[..15]);
        return Err(Unsupported { address: rip, bytes, len: 15, reason: "it is not known" });
    }
    let plan = plan::plan(&instruction, &engine.writes);
    Ok(Site { rip, code: CodeBytes::new(code, instruction.len()), plan })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_public_can_be_sent_and_shared() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Outcome>();
        check::<Unsupported>();
        #[cfg(feature = "selftest")]
        check::<selftest::Report>();
    }

    #[test]
    #[cfg_attr(miri, ignore = "a minute for the tables of iced")]
    fn an_unsupported_instruction_names_itself() {
        let mut bytes = [0; 15];
        bytes[..5].copy_from_slice(&[0xf2, 0x0f, 0x38, 0xf8, 0x00]);
        let unsupported = Unsupported { address: 0x1234, bytes, len: 5, reason: "it is meant for devices" };
        let text = "the instruction at 0x1234 (f2 0f 38 f8 00) cannot be carried out: it is meant for devices";
        assert_eq!(unsupported.to_string(), text);
        assert_eq!(unsupported.describe(), "enqcmd rax,[rax]");
    }
}
