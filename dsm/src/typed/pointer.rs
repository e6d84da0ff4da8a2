//! [`Pointer`]: where another value of the session is.

use super::layout::{Field, Layout};
use super::opaque;
use super::private::structure;
use super::read_only::ReadOnly;
use super::shared::{Assign, Plain, Shared, SharedType, its_own_handle};
use crate::place::Place;
use crate::region::Region;
use crate::session::Session;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

/// A pointer to a `T` in shared memory of the same session, which means the same on every host: the distance from the
/// session's beginning.
///
/// ```
/// use dsm::Pointer;
///
/// #[dsm::shared]
/// pub struct Node {
///     pub value: u64,
///     pub next: Pointer<Node>,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
#[doc = include_str!("../sync/example.txt")]
/// let nodes = session.array::<Node>("nodes", 100)?;
/// let (first, second) = (nodes.at(0), nodes.at(57));
/// second.set_value(42);
/// first.next().point_to(Some(second))?;
/// let next = first.next().follow()?.expect("it does not point to nothing");
/// assert_eq!(next.value(), 42);
/// assert!(next.next().follow()?.is_none());
/// # Ok(())
/// # }
/// ```
///
/// Following it is checked: it must lead into a segment that this process has opened, to where the segment's type has a `T`
/// that is not behind a lock. (So one that is made of the handle that a guard gives
/// cannot be followed. Point to the lock instead: `Pointer<field::Mutex<T>>`.) What another process stored there is an error
/// at worst. What is not checked is whether the `T` is still in use: a value that its owner uses for something else has
/// other contents.
///
/// It is a word of 8 bytes, which is never seen torn. All zeros point to nothing. [`swap`](Shared::swap) and
/// [`compare_exchange`](Shared::compare_exchange) change it at one place in the session's order.
#[repr(transparent)]
pub struct Pointer<T> {
    offset: u64,
    _type: PhantomData<fn() -> T>,
}

/// Why a pointer cannot be followed, or not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPointer {
    /// What is there does not lie in one segment that this process has opened.
    #[error("a pointer to offset {0:#x} of the session, where this process has no segment open")]
    Outside(u64),
    /// No value of the type can be there.
    #[error("a pointer to offset {0:#x} of the session, which is not aligned for its type")]
    Misaligned(u64),
    /// There is something else than a value of the type.
    #[error("a pointer to offset {0:#x} of the session, where there is no value of its type")]
    OtherType(u64),
    /// What is there is behind a lock, or published: it is reached by way of that alone.
    #[error("a pointer to offset {0:#x} of the session, which lies behind a lock: point to the lock instead")]
    Locked(u64),
    /// The handle is one of another session.
    #[error("a pointer cannot lead into another session")]
    OtherSession,
}

impl<T> Pointer<T> {
    const FIELDS: &'static [Field] = &[Field::new("offset", 0, u64::LAYOUT)];

    /// Points to nothing.
    #[must_use]
    pub const fn null() -> Self {
        Self { offset: 0, _type: PhantomData }
    }

    /// Whether it points to nothing.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        self.offset == 0
    }
}

impl<T: SharedType> Pointer<T> {
    /// Points to what `shared` is the handle of.
    #[must_use]
    pub fn to(shared: Shared<'_, T>) -> Self {
        Self { offset: shared.place().offset(), _type: PhantomData }
    }

    /// The handle of what it points to in `session`; `None` when that is nothing.
    ///
    /// # Errors
    /// [`BadPointer`].
    pub fn resolve(self, session: &Session) -> Result<Option<Shared<'_, T>>, BadPointer> {
        self.resolve_in(session.region())
    }

    fn resolve_in(self, region: &Region) -> Result<Option<Shared<'_, T>>, BadPointer> {
        let offset = self.offset;
        if offset == 0 {
            return Ok(None);
        }
        if !offset.is_multiple_of(align_of::<T>() as u64) {
            return Err(BadPointer::Misaligned(offset));
        }
        opaque::find(region, offset, T::LAYOUT)?;
        // SAFETY: aligned (the view begins at a page, and so does offset 0), and mapped for as long as the region.
        Ok(Some(unsafe { Shared::new(Place::new(region, offset)) }))
    }
}

impl<T> Clone for Pointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pointer<T> {}

impl<T> Default for Pointer<T> {
    fn default() -> Self {
        Self::null()
    }
}

impl<T> PartialEq for Pointer<T> {
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}

impl<T> Eq for Pointer<T> {}

impl<T> fmt::Debug for Pointer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pointer({:#x})", self.offset)
    }
}

// SAFETY: an integer (and what has no bytes), of which any bytes are a value; the offset means the
// same in every process; `Unstructured` is a transparent wrapper of the handle. (The layout does not name `T`, which may
// have a `Pointer<T>` in it.)
unsafe impl<T: 'static> SharedType for Pointer<T> {
    const LAYOUT: &'static Layout = &structure::<Self>("Pointer", Self::FIELDS);
    its_own_handle!();
}

// SAFETY: nothing but an integer.
unsafe impl<T: 'static> Plain for Pointer<T> {}

impl<T: 'static> Assign for Pointer<T> {
    type Setter<'a> = Self;

    #[inline]
    fn set_field(field: Shared<'_, Self>, value: Self) {
        field.store(&value);
    }
}

impl<'s, T: SharedType> Shared<'s, Pointer<T>> {
    /// The handle of what it points to; `None` when that is nothing.
    ///
    /// # Errors
    /// [`BadPointer`] when another process has stored what is no pointer to a `T`, or this one has not opened the segment
    /// to which it leads.
    pub fn follow(self) -> Result<Option<Shared<'s, T>>, BadPointer> {
        self.load().resolve_in(self.place().region())
    }

    /// Makes it point to what `target` is the handle of, or to nothing.
    ///
    /// # Errors
    /// [`BadPointer::OtherSession`].
    ///
    /// # Panics
    /// When the session has ended.
    pub fn point_to(self, target: Option<Shared<'_, T>>) -> Result<(), BadPointer> {
        let pointer = match target {
            Some(target) if target.place().region().name != self.place().region().name => {
                return Err(BadPointer::OtherSession);
            }
            Some(target) => Pointer::to(target),
            None => Pointer::null(),
        };
        self.store(&pointer);
        Ok(())
    }
}

impl<T: SharedType> Shared<'_, Pointer<T>> {
    /// Stores `pointer`, and returns the one before. Atomic across all hosts, as [`Atomic::swap`](super::Atomic::swap) is.
    ///
    /// # Panics
    /// When the session has ended.
    pub fn swap(self, pointer: Pointer<T>, order: Ordering) -> Pointer<T> {
        Pointer { offset: self.part::<u64, 0>().atomic().swap(pointer.offset, order), _type: PhantomData }
    }

    /// Stores `new` if it is `current`. Atomic across all hosts, as
    /// [`Atomic::compare_exchange`](super::Atomic::compare_exchange) is.
    ///
    /// # Errors
    /// The pointer, if it is another; nothing is stored then. In both cases what is returned is the pointer before.
    ///
    /// # Panics
    /// When the session has ended.
    pub fn compare_exchange(
        self,
        current: Pointer<T>,
        new: Pointer<T>,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Pointer<T>, Pointer<T>> {
        let pointer = |offset| Pointer { offset, _type: PhantomData };
        let word = self.part::<u64, 0>().atomic();
        word.compare_exchange(current.offset, new.offset, success, failure).map(pointer).map_err(pointer)
    }
}

impl<'s, T: SharedType> ReadOnly<'s, Pointer<T>> {
    /// As [`Shared::follow`]; what it gives can only be read, too.
    ///
    /// # Errors
    /// See there.
    pub fn follow(self) -> Result<Option<ReadOnly<'s, T>>, BadPointer> {
        Ok(self.shared().follow()?.map(Shared::read_only))
    }
}
