//! Distributed shared memory: programs on several hosts map one memory.
//!
//! ```no_run
//! use dsm::prelude::*;
//!
//! #[dsm::shared]
//! pub struct Board {
//!     pub turn: u32,
//!     pub phase: u32,
//!     pub scores: [u64; 64],
//! }
//!
//! fn main() -> dsm::Result<()> {
//!     let session = Session::join("game")?;            // starts what is not running yet
//!     let board = session.open::<Board>("board")?;     // attached, or created as zeros
//!     let sem = session.semaphore("turns", 1)?;
//!
//!     {
//!         let _g = sem.lock()?;                        // whoever had it before: their stores are here
//!         board.set_turn(board.turn() + 1);
//!         unsafe { (*board.as_ptr()).scores[0] += 1 }; // a plain store: trapped and captured
//!
//!         let mut hole = board.hole()?;                // bulk: plain `&mut Board`
//!         hole.scores.iter_mut().for_each(|s| *s += 1);
//!         hole.fill()?;                                // what changed is on its way
//!     }                                                // released behind it, not waited for
//!
//!     board.phase_atomic().fetch_add(1, SeqCst);       // one place in the order, cluster-wide
//!     session.barrier("end", session.size())?.wait()?; // all have come: what they stored before is here
//!     println!("turn {}, phase {}, {:?}", board.turn(), board.phase(), board.scores().range(..3).to_vec());
//!     Ok(())
//! }
//! ```
//!
//! The [`guide`] goes from the first struct to holes, atomics and locks.
//!
//! # What is promised
//!
//! Across hosts the memory behaves as x86-TSO does across processors, each host one store buffer: stores of one host
//! are seen in their order, an aligned store of up to 16 bytes is never torn, a locked instruction is carried out at
//! its place in one total order. Semaphores and barriers travel in that same order, so whoever acquires has
//! everything that was written before the release. A bare `mfence` cannot be seen: use [`Session::fence`].
//!
//! # What happens when something dies
//!
//! A process: its semaphore units go back and the next owner is told; barriers it was a party of break for those who
//! wait. A host: the same for all its processes; the other hosts go on. The server, or this host's arbiter: waits end
//! with an error, and a store that can no longer be shared panics (or, where a plain store trapped, ends the
//! process with one line on stderr) rather than being lost in silence.
//!
//! # Instructions
//!
//! A plain store may be any instruction that writes memory: it does what it would do on ordinary memory, with the faults
//! that it would have there. The few that cannot be captured end the process with one line on stderr that names them;
//! the documentation of the crate `dsm-capture` lists them. Where the processor would raise an alignment check (a
//! program that sets the flag AC), the store is carried out instead.
//!
//! A process that is killed in the middle of a store leaves all of it, on all hosts, or nothing; its host's other
//! processes go on within milliseconds. One that is stopped there (SIGSTOP, a debugger) stalls the stores of its host
//! until it continues or is killed; when more than a megabyte waits for that host, the others wait for it, and give it
//! up after the time that `DSM_PEER_TIMEOUT_MS` says (15 s).
//!
//! # Threads, `fork`, signals
//!
//! Handles can be used by any number of threads. The child of a `fork` is a process of its own, which joins the session
//! before `fork` returns in it; guards stay its parent's, and a raw hole that another thread of the parent had open is
//! never filled there. Between `vfork` and `exec` nothing may be stored to shared memory. For signal handlers, alternate
//! stacks, and programs that handle SIGSEGV themselves see [`signals`]. A child that is made by a handler in the middle
//! of a wait leaves that to its parent: there the wait ends with an error.
//!
//! # Descriptors
//!
//! A session has descriptors: a connection to the arbiter, whose end is how each knows that the other is gone, a
//! doorbell, and the files behind the memory. They are closed by `exec`. A program that closes all descriptors itself
//! (`close_range`, `closefrom`, a daemon's loop) must do so before it joins. Otherwise its waits end with
//! [`Error::ArbiterGone`], other descriptors may be taken for these, and what it holds (a semaphore, the host's replica
//! lock in the middle of a store) is given back only when the process ends or becomes another program.
//!
//! # System calls
//!
//! The kernel cannot be trapped: `read(2)`, `recv(2)`, `getrandom(2)` and all else that stores to shared memory on
//! behalf of a system call fails with `EFAULT`. Use [`io`], or a hole ([`Shared::hole`](typed::Shared::hole),
//! [`Session::raw_hole`]).
//!
//! # Features
//!
//! Both are on by default, and only add to what is there without them.
//!
//! - `embedded`: a program that links the library can be run again as arbiter, server and daemon. Without it, joining a
//!   session where no arbiter runs is an error.
//! - `async`: asynchronous variants of what waits (`lock_async`, `wait_async`, ...), on the reactor of `async-io`, which has
//!   a thread of its own once it is used.
//!
//! What has no asynchronous variant, and why: stores and [`Hole::fill`] wait only where the log is full, for the arbiter
//! to take some out; atomic operations, where the session has several hosts, for one exchange with the server, of
//! microseconds in a local network; opening something by its name, for one such exchange as well; what [`io`] calls, for
//! its descriptor, as it does without the library. A [`snapshot`](typed::Shared::snapshot) never sleeps.

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("dsm captures stores by decoding x86-64 instructions under Linux signals; no other target is supported");

mod barrier;
pub mod collective;
mod connection;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
mod fork;
pub mod guide;
mod hands;
mod hole;
pub mod io;
mod join;
#[cfg(feature = "async")]
mod join_async;
mod patient;
mod place;
pub mod prelude;
mod raw_hole;
mod region;
mod semaphore;
mod session;
pub mod signals;
mod start;
mod sync;
mod trap;
pub mod typed;
mod wait;

pub use barrier::{Barrier, BarrierGuard, BarrierWaitResult};
pub use collective::Team;
pub use dsm_core::control::Ended;
pub use dsm_core::wire::control::{BarrierListing, Listing, SegmentListing, SemaphoreListing, SessionStatus};
/// Has the program join a session before its `main` begins.
///
/// ```
/// use dsm::prelude::*;
///
/// # fn main() -> std::process::ExitCode {
/// # // A session of the example's own, on a host of its own.
/// # let dir = tempfile::tempdir().unwrap();
/// # let daemon = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
/// # // SAFETY: nobody reads the environment meanwhile; there are no other threads yet.
/// # unsafe { std::env::set_var("DSM_RUNTIME_DIR", dir.path().join("host")) };
/// # // SAFETY: as above.
/// # unsafe { std::env::set_var("DSM_DAEMON", daemon) };
/// #[dsm::shared]
/// struct Counter {
///     visits: u64,
/// }
///
/// #[dsm::main(session = "counting", expect = 1)]
/// fn main(session: &Session) -> dsm::Result<()> {
///     let counter = session.open::<Counter>("counter")?;
///     counter.visits_atomic().fetch_add(1, SeqCst);
///     println!("rank {} of {}: visit {}", session.rank(), session.size(), counter.visits());
///     Ok(())
/// }
/// # assert_eq!(main(), std::process::ExitCode::SUCCESS);
/// # main()
/// # }
/// ```
///
pub use dsm_macros::main;
/// Declares a type that can live in shared memory.
///
/// ```
/// use dsm::{Pointer, SharedType, Text};
/// use std::sync::atomic::Ordering::SeqCst;
///
/// #[dsm::shared]
/// #[derive(Debug, PartialEq)]
/// #[repr(u8)]
/// pub enum Phase {
///     Setup = 0,
///     Play = 1,
/// }
///
/// /// Two of anything that can be shared.
/// #[dsm::shared]
/// pub struct Pair<T: SharedType> {
///     pub left: T,
///     pub right: T,
/// }
///
/// #[dsm::shared(version = 1)]
/// pub struct Board {
///     /// On a cache line of its own, for who waits for it.
///     #[dsm(align = 64)]
///     pub turn: u32,
///     /// Who won each round.
///     pub winners: [u16; 4],
///     pub limits: Pair<f32>,
///     pub name: Text<35>,
///     pub phase: Phase,
///     pub best: Pointer<Board>,
/// }
///
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("sync/example.txt")]
/// let board = session.open::<Board>("board")?;
/// board.set_turn(board.turn() + 1); // a load and a store
/// board.turn_atomic().fetch_add(1, SeqCst); // at one place of the order of all hosts
/// board.winners().set(2, 7);
/// board.limits().set_right(0.5);
/// board.name().set("first")?;
/// board.set_phase(Phase::Play);
/// assert_eq!((board.turn(), board.winners().to_vec()), (2, vec![0, 0, 7, 0]));
/// assert_eq!(board.phase()?, Phase::Play); // another program may have stored any byte
/// assert!(board.best().follow()?.is_none());
///
/// let mut hole = board.hole()?; // a plain `&mut Board`
/// *hole.turn += 1;
/// hole.winners.sort();
/// hole.fill()?;
/// assert_eq!(board.read_only().winners().get(3), 7); // there are no setters here
/// # Ok(())
/// # }
/// ```
///
pub use dsm_macros::shared;
pub use error::{Error, Result};
pub use hole::{Hole, ValueHole};
pub use join::Builder;
pub use raw_hole::RawHole;
pub use semaphore::{Semaphore, SemaphoreGuard};
pub use session::Session;
pub use sync::{
    LockError, LockResult, Mutex, MutexGuard, OwnedMutex, OwnedMutexGuard, OwnedRwLock, OwnedRwLockReadGuard,
    OwnedRwLockWriteGuard, OwnedSemaphore, OwnedSemaphoreGuard, ReadLock, RwLock, RwLockReadGuard, RwLockWriteGuard,
    TryLockResult, field,
};
#[doc(hidden)]
pub use typed::private as __private;
pub use typed::{
    Atomic, Integer, InvalidValue, Layout, List, Pointer, ReadOnly, ReadOnlySlice, Scalar, Shared, SharedType, Slice,
    Text, Versioned,
};
