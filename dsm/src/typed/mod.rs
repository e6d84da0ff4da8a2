//! Typed handles: what a program reads and writes shared memory through.
//!
//! A handle ([`Shared`], [`Slice`], [`Atomic`]) is an address with a type, as cheap to copy as two pointers. It
//! never makes a `&T` or `&mut T` to shared memory, because another process may change those bytes at any
//! time; values are copied in and out instead. Getters are plain loads; setters store through the library's
//! own mapping and record what they stored, without a trap.
//!
//! What may be shared is said by [`SharedType`], which [`#[dsm::shared]`](macro@crate::shared) implements for
//! structs. Two programs agree on a type by its [`Layout`].

mod array;
mod atomic;
mod check;
mod description;
mod layout;
mod line;
mod list;
mod pointer;
#[doc(hidden)]
pub mod private;
mod read_only;
mod scalar;
mod shared;
mod slice;
mod text;
mod versioned;

pub use atomic::{Atomic, AtomicFlag, AtomicWord};
pub use check::InvalidValue;
pub use dsm_core::difference::first_difference;
pub use dsm_core::segment::FieldDesc;
pub use layout::{Argument, Field, Kind, Layout, Variant};
pub use line::Line;
pub use list::List;
pub use pointer::{BadPointer, Pointer};
pub use read_only::{ReadOnly, ReadOnlySlice};
pub use scalar::{Integer, Scalar};
pub use shared::{Assign, Plain, Shared, SharedType, Unstructured};
pub(crate) use shared::{bytes_of, overwrite, zeroed};
pub use slice::{IntoIter, Slice};
pub use text::{CapacityError, InvalidText, Text};
pub use versioned::{Draft, Versioned};
