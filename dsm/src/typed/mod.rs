//! Typed handles: what a program reads and writes shared memory through.
//!
//! A handle ([`Shared`], [`Slice`], [`Atomic`]) is an address with a type, as cheap to copy as two pointers. It
//! never makes a `&T` or `&mut T` to a shared value, because another process may change those bytes at any
//! time; values are copied in and out instead. (References to the atomics of std are the one exception: that is what
//! they are for.) Getters are plain loads; setters store through the library's own mapping and record what they
//! stored, without a trap.
//!
//! What may be shared is said by [`SharedType`], which [`#[dsm::shared]`](macro@crate::shared) implements for
//! structs and enums. Two programs agree on a type by its [`Layout`].
//!
//! # Why this is sound
//!
//! Rust's rules are about one program; here, other programs change the memory. The argument has five steps.
//!
//! 1. *Nobody has a reference.* `&T` promises that the value stays as it is while it is borrowed, `&mut T` that nobody
//!    else looks at it. Neither can be kept where another host may store at any time, so no function of this library
//!    makes one, but to the atomics of std, which promise no such thing: see below. A handle keeps an address; loads and
//!    stores are relaxed atomics or assembly on it, of which the compiler assumes nothing. What a caller does with
//!    `as_ptr()` is for the caller to prove, in `unsafe` code.
//! 2. *A word is whole.* An aligned word of up to 8 bytes (16 for `u128` and `i128`) is loaded and stored by one
//!    instruction, and applied as one by the arbiter, so a getter gives what somebody stored, never parts of two stores.
//!    A larger value can be a mix of several stores: it is still made of bytes that are allowed, see the next step.
//! 3. *Any bytes may be there.* A program with a bug, or one that calls the bytes by another name, may have stored
//!    anything. Of a number, every pattern of bits is a value. Of a `bool`, a `char` or an enum not every one is: these are
//!    copied as bytes, checked ([`Layout::check`]), and only then called a value; a getter that can fail says so by a
//!    `Result`. Only what is [`Plain`] is given without one.
//! 4. *There are no other bytes.* A shared type has no padding, so its bytes may be read as bytes, to be stored, compared
//!    and sent: nothing undefined ever leaves the process.
//! 5. *A hole is private.* Within a [hole](crate::Hole) there is a `&mut T`, to a working copy that belongs to this process
//!    alone and was checked as in step 3. What is published is the difference of bytes.
//!
//! The bytes of a session are mapped twice: the *view*, where handles point, and the library's *alias*, by which setters and
//! the arbiter store. To the compiler these are two allocations, which other processes write as well; so nothing is
//! assumed of the one because of what was done to the other, as it is with memory that a device shares. A getter's load,
//! and a setter's store, may meet another thread's or process's at the same word. Where both are of the width of the field, as
//! those of one field are, both are relaxed atomics of that width, so this is no data race; 16 bytes, for which there is no
//! such type, are one instruction of assembly. Where they are not (a whole struct is copied while one field is set), the
//! language has no model of what is read, and we rely on the processor's: each step is one instruction that the compiler
//! does not look into, of a width that is carried out whole, on bytes to which no reference exists. What comes of it are
//! bytes that somebody stored, by step 3 whatever they are. It is the argument by which the kernel's shared rings are used
//! from Rust; the language has no better one for memory that other programs write.
//!
//! Miri runs this layer over plain memory, where view and alias are one, with threads and all (`tests.rs` beside this file),
//! and the log below it (`dsm/core/tests/threads.rs`): it finds no undefined behaviour.
//!
//! A [`Pointer`] is a number that was stored by anybody. It becomes a handle only if what this process knows of the segment
//! that it leads to (by the types with which it was opened, which the session has compared) has a value of that very type at
//! that very place. So it is aligned, mapped for as long as the session, and not behind a lock.
//!
//! What is under a [lock](crate::field::Mutex), or [`Versioned`], has no way to it but its own: the type itself cannot be
//! copied, `Layout` marks it, and whatever works on whole values or their bytes (holes, [`io`](crate::io), fields by
//! number, pointers) leaves it out or does not compile. That is about meaning; it would be sound all the same, since
//! a locked value is memory like any other.
//!
//! The exception to the first step are the atomics of std. An `&AtomicU64` promises nothing about the value, and any bytes
//! are one, so `Shared::as_std` may give it: each operation is one instruction, those that store are captured by the trap
//! door, and the session's total order makes them atomic on all hosts. Who stores meanwhile (the arbiter, the library by the
//! alias, other processes) stores whole words of that size or larger ones that contain it, as another thread's atomic would.
//! Its lifetime is the handle's, so the memory is mapped for as long; it is shared and never exclusive, and `get_mut`, which
//! would need the latter, is there in holes alone, on the private copy. An `AtomicBool` allows but two bytes, so there is
//! no reference to one, but a handle with its operations, [`AtomicFlag`].
//!
//! The view, where such a reference leads, is mapped for reading only, and std says that atomic accesses to *read-only
//! memory* are undefined behaviour, loads among them, because they may be made of an instruction that writes and would end
//! in a fault. It excepts relaxed loads of up to 8 bytes on this processor, which are those that getters make. For the
//! others the reason is not there: a write to the view does fault, but as one does to a page that is copied on write, or is
//! protected by `userfaultfd`. The handler carries the instruction out as a whole (a locked one in the total order) and the
//! program goes on behind it, so that to the program, whatever its compiler made of an operation, this is memory that can be
//! written. Besides, every load of these types is a plain `mov`, whatever its order. Larger ones, of which this would not be so,
//! are not offered: std has no atomic of 16 bytes, and handles load those by assembly. What remains is what the crate
//! documentation says of any store by the trap door: when the session has ended it ends the process.
//!
//! A value of a type that is not `Copy` (with atomics or locks in it) cannot be copied in or out as a whole: behind a
//! `&T` its bytes may change while they are read. Its fields can be used one by one; and in a hole, `&mut` shows that
//! nobody else has them.

mod array;
mod atomic;
mod check;
mod description;
mod exchange;
mod layout;
mod line;
mod list;
mod opaque;
mod pointer;
#[doc(hidden)]
pub mod private;
mod read_only;
mod scalar;
mod shared;
mod slice;
#[cfg(test)]
mod tests;
mod text;
mod versioned;

pub use atomic::{Atomic, AtomicFlag, AtomicWord};
pub use check::InvalidValue;
pub use dsm_core::difference::first_difference;
pub use dsm_core::segment::FieldDesc;
pub use layout::{Argument, Field, Kind, Layout, Variant};
pub use line::Line;
pub use list::List;
pub(crate) use opaque::{Types, has_opaque, restore};
pub use pointer::{BadPointer, Pointer};
pub use read_only::{ReadOnly, ReadOnlySlice};
pub use scalar::{Integer, Loaded, Scalar};
pub use shared::{Assign, Plain, Shared, SharedType, Unstructured};
pub(crate) use shared::{Received, bytes_of, try_overwrite};
pub use slice::{IntoIter, Slice};
pub use text::{CapacityError, InvalidText, Text};
pub use versioned::{Draft, Versioned};
