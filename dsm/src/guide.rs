//! A guide: from the first struct to holes, atomics and locks. All examples run.
//!
//! # A struct, shared
//!
//! An attribute, a name, and every process of the session that opens the name has the same struct, on whatever host it
//! runs. It begins as zeros. Fields have a getter and a setter; a getter is a load from local memory.
//!
//! ```
//! #[dsm::shared]
//! pub struct Board {
//!     /// Whose turn it is.
//!     pub turn: u32,
//!     pub phase: u32,
//!     pub scores: [u64; 64],
//! }
//!
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! // In a program: `let session = dsm::Session::join("game")?;`
//! let board = session.open::<Board>("board")?;
//! assert_eq!(board.turn(), 0);
//! board.set_turn(7);
//! assert_eq!(board.turn(), 7);
//! # Ok(())
//! # }
//! ```
//!
//! `board` is a [`Shared<Board>`](crate::Shared): an address with a type, which can be copied and sent to other threads. It
//! borrows the session, so it cannot outlive it. It never gives a `&Board`: a reference promises that nobody else
//! changes what it refers to, and other hosts do.
//!
//! A program that does nothing else in its `main` can leave the joining to an attribute:
//!
//! ```no_run
//! use dsm::prelude::*;
//!
//! #[dsm::main(session = "game", expect = 4)] // begins when four processes have come
//! fn main(session: &Session) -> dsm::Result<()> {
//!     println!("rank {} of {}", session.rank(), session.size());
//!     Ok(())
//! }
//! ```
//!
//! # Arrays, and work by rank
//!
//! A field that is an array is reached as a [`Slice`](crate::Slice): `get`, `set`, `iter`, `fill`, ranges. An array can also
//! have a name of its own, with a length that the program chooses. [`chunk`](crate::Slice::chunk) is the share of one rank.
//! Of an array of structs, [`at`](crate::Slice::at) gives the handle of one, [`handles`](crate::Slice::handles) those of all.
//!
//! ```
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! let numbers = session.array::<f64>("numbers", 1000)?;
//! let mine = numbers.chunk_range(session.rank(), session.size());
//! for at in mine {
//!     numbers.set(at, (at as f64).sqrt());
//! }
//! session.barrier("filled", session.size())?.wait()?; // what all ranks stored is here
//! assert_eq!(numbers.get(81), 9.0);
//! # Ok(())
//! # }
//! ```
//!
//! # Who sees what, and when
//!
//! A store is on its way to all hosts when the setter returns, and it is not waited for. Hosts see the stores of one host
//! in the order in which it made them, and a word of up to 8 bytes (16, if aligned to 16) whole. So a flag can say that
//! data is there: store the data, then the flag. To sleep until a flag has a value: `wait_until`.
//!
//! ```
//! # #[dsm::shared]
//! # pub struct Mail { pub ready: u32, pub length: u32, pub text: [u8; 64] }
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! # let mail = session.open::<Mail>("mail")?;
//! mail.text().range(..5).copy_from_slice(b"hello");
//! mail.set_length(5);
//! mail.set_ready(1); // last
//!
//! mail.ready_ref().wait_until(|ready| ready == 1)?; // on any host
//! assert_eq!(mail.text().range(..mail.length() as usize).to_vec(), b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Several fields that belong together
//!
//! What is wider than a word may be seen half stored. Three ways out, by what is needed:
//!
//! A **semaphore** (or [`Mutex`](crate::field::Mutex), [`RwLock`](crate::field::RwLock) as the type of a field) lets one in at a
//! time. Who acquires it has all that was stored before it was released.
//!
//! ```
//! # #[dsm::shared]
//! # pub struct Account { pub balance: i64, pub changes: u64 }
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! # let account = session.open::<Account>("account")?;
//! let lock = session.semaphore("account", 1)?;
//! {
//!     let _g = lock.lock()?;
//!     account.set_balance(account.balance() + 100);
//!     account.set_changes(account.changes() + 1);
//! } // released here
//! # assert_eq!((account.balance(), account.changes()), (100, 1));
//! # Ok(())
//! # }
//! ```
//!
//! A [`Versioned`](crate::Versioned) value is published whole and read whole; readers wait for nobody.
//!
//! ```
//! use dsm::Versioned;
//! # #[dsm::shared]
//! # pub struct Position { pub x: f64, pub y: f64 }
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! let position = session.open::<Versioned<Position>>("position")?;
//! position.publish(&Position { x: 3.0, y: 4.0 })?;
//! let Position { x, y } = position.snapshot()?;
//! assert_eq!((x, y), (3.0, 4.0));
//! # Ok(())
//! # }
//! ```
//!
//! And a barrier divides a program into phases, in which each rank stores to what is its own.
//!
//! # Atomics
//!
//! An integer has the operations of [`std::sync::atomic`], carried out at one place in an order that all hosts share. While
//! one host alone is in the session they cost nanoseconds; with others, a message to the server and back.
//!
//! ```
//! use dsm::prelude::*;
//! # #[dsm::shared]
//! # pub struct Work { pub next: u64, pub owner: u32, pub state: u32 }
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! # let work = session.open::<Work>("work")?;
//! let ticket = work.next_atomic().fetch_add(1, SeqCst); // no two processes get the same
//! let first = work.owner_atomic().compare_exchange(0, 1, SeqCst, SeqCst).is_ok();
//! # assert!(ticket == 0 && first);
//! # Ok(())
//! # }
//! ```
//!
//! Floats, `bool`s, `char`s, enums and pointers have [`swap`](crate::Shared::swap) and
//! [`compare_exchange`](crate::Shared::compare_exchange), by the handle of the field (`board.best_ref().swap(0.5, SeqCst)`);
//! small structs, [`Shared::swap_whole`](crate::Shared::swap_whole).
//!
//! # Holes: plain `&mut`
//!
//! For many changes at once, or for code that wants a `&mut [T]`: a hole is a working copy, in which stores cost what they
//! cost anywhere. Filling it publishes the bytes that changed, in bulk; what others store meanwhile to other bytes
//! survives.
//!
//! ```
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! let table = session.array::<u32>("table", 10_000)?;
//! let mut hole = table.range(..5000).hole()?;
//! hole.iter_mut().zip(1..).for_each(|(to, number)| *to = number);
//! hole.sort_unstable_by(|one, other| other.cmp(one)); // any code for slices
//! hole.fill()?;
//! assert_eq!((table.get(0), table.get(4999), table.get(5000)), (5000, 1, 0));
//! # Ok(())
//! # }
//! ```
//!
//! # Ranks that compute together
//!
//! The processes that started together are a [`Team`](crate::Team): [`collective`](crate::collective) has what all of them
//! do at once, each with a part in the result.
//!
//! ```
//! use dsm::collective::Sum;
//!
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! let world = session.world()?;
//! let seed = world.broadcast(0, 42u64)?; // rank 0's, for all
//! let total = world.all_reduce(seed, Sum)?; // of all, for all
//! assert_eq!(total, 42 * world.size() as u64);
//! # Ok(())
//! # }
//! ```
//!
//! # Tasks
//!
//! What waits has an asynchronous variant, on the reactor of `async-io`, for any executor. Its future can be dropped at any
//! time: a place in a line is given up, an arrival taken back.
//!
//! ```
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! let (lock, gate) = (session.semaphore("lock", 1)?, session.semaphore("gate", 0)?);
//! async_io::block_on(async {
//!     {
//!         let _g = lock.lock_async().await?;
//!         gate.post(1)?;
//!     }
//!     gate.wait_async().await?;
//!     session.world()?.barrier_async().await
//! })
//! # }
//! ```
//!
//! # Texts, lists, pointers
//!
//! [`Text<N>`](crate::Text) and [`List<T, N>`](crate::List) are strings and vectors of bounded length; a
//! [`Pointer<T>`](crate::Pointer) leads to another value of the session, but not past a lock. What another host stored in
//! them is checked when they are read.
//!
//! ```
//! use dsm::{List, Pointer, Text};
//!
//! #[dsm::shared]
//! pub struct City {
//!     pub name: Text<32>,
//!     pub streets: List<u16, 10>,
//!     pub twin: Pointer<City>,
//! }
//!
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! let cities = session.array::<City>("cities", 2)?;
//! let (one, other) = (cities.at(0), cities.at(1));
//! one.name().set("Köln")?;
//! other.name().set("Turin")?;
//! other.streets().extend_from_slice(&[7, 8])?;
//! one.twin().point_to(Some(other))?;
//! let twin = one.twin().follow()?.expect("it has one");
//! assert_eq!((twin.name().get()?.as_str(), twin.streets().len()), ("Turin", 2));
//! # Ok(())
//! # }
//! ```
//!
//! # Pointers of the language
//!
//! [`as_ptr`](crate::Shared::as_ptr) gives a plain pointer. A load through it is a load. A store through it traps, is decoded
//! and carried out, and reaches the other hosts like any other: two microseconds instead of nanoseconds, but existing
//! code works unchanged.
//!
//! ```
//! # #[dsm::shared]
//! # pub struct Board { pub turn: u32, pub phase: u32 }
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! # let board = session.open::<Board>("board")?;
//! let pointer = board.as_ptr();
//! // SAFETY: the pointer is good for as long as the session; nobody has a reference to what it points to.
//! unsafe { (*pointer).turn = 7 };
//! assert_eq!(board.turn(), 7);
//! # Ok(())
//! # }
//! ```
//!
//! # When something goes wrong
//!
//! Waits have variants with a timeout, and end with an error when what they wait for can no longer come: the session has
//! ended, a party of the barrier is gone. The death of a lock's owner is told to the next one, with the lock:
//!
//! ```
//! use dsm::LockError;
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("sync/example.txt")]
//! # let lock = session.semaphore("lock", 1)?;
//! let _guard = match lock.lock() {
//!     Ok(guard) => guard,
//!     Err(error @ LockError::OwnerDied(..)) => {
//!         // Put right what it may have left half done, then:
//!         error.recover()?
//!     }
//!     Err(error) => return Err(error.into()),
//! };
//! # Ok(())
//! # }
//! ```
