//! Sync objects as fields of shared structs.
//!
//! A field of one of these types is an object of its own, known to all processes of the session by its place: where the
//! struct is, there its locks and barriers are. Every element of an array of such structs has its own.
//!
//! ```
//! use dsm::field;
//!
//! #[dsm::shared]
//! pub struct Totals {
//!     pub count: u64,
//!     pub sum: u64,
//! }
//!
//! #[dsm::shared]
//! pub struct Board {
//!     pub totals: field::Mutex<Totals>,
//!     pub slots: field::Semaphore<4>,
//!     pub ready: field::Barrier<1>,
//! }
//!
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("example.txt")]
//! let board = session.open::<Board>("board")?;
//! {
//!     let totals = board.totals().lock()?;
//!     let totals = totals.value();
//!     totals.set_count(totals.count() + 1);
//!     totals.set_sum(totals.sum() + 42);
//! }
//! let _slot = board.slots()?.lock()?;
//! assert!(board.ready()?.wait()?.is_leader());
//! # Ok(())
//! # }
//! ```
//!
//! A struct with such fields is not copied as a whole, only its other fields are. In a hole over it, its sync objects are
//! there, but what they protect cannot be reached: whatever is done with them there (as by [`std::mem::swap`]), filling the
//! hole leaves it as it is. Through a read-only handle, semaphores and barriers can be used, an
//! [`RwLock`] can be [read](crate::ReadLock), and a [`Mutex`] cannot be locked.

use super::{Object, open_at};
use crate::__private::{Argument, Field, Layout, structure};
use crate::place::Place;
use crate::typed::{ReadOnly, Shared, SharedType, Unstructured};
use crate::{Result, sync};
use dsm_core::wire::control::SyncKind;

/// A value that can be reached only while its lock is held; the accessor gives a [`dsm::Mutex`](crate::Mutex).
#[repr(transparent)]
pub struct Mutex<T>(T);

/// A value that many can read at the same time, or one change; the accessor gives a [`dsm::RwLock`](crate::RwLock).
#[repr(transparent)]
pub struct RwLock<T>(T);

/// A semaphore of `UNITS` units at first; the accessor gives a [`dsm::Semaphore`](crate::Semaphore), or why it cannot
/// be had (the session has ended).
#[derive(Debug)]
#[repr(transparent)]
pub struct Semaphore<const UNITS: u32>(u32);

/// A barrier for `PARTIES` parties; the accessor gives a [`dsm::Barrier`](crate::Barrier), or why it cannot be had (the
/// session has ended). A process becomes a party of it when it first calls the accessor.
#[derive(Debug)]
#[repr(transparent)]
pub struct Barrier<const PARTIES: u32>(u32);

/// Implements what the two locks have in common.
macro_rules! lock {
    ($lock:ident, $name:literal, $read:ty, $read_field:expr) => {
        impl<T: SharedType> $lock<T> {
            const FIELDS: &'static [Field] = &[Field::new("value", 0, T::LAYOUT)];
            const ARGUMENTS: &'static [Argument] = &[Argument::Type(T::LAYOUT)];
        }

        /// Shows the type, not the value.
        impl<T: SharedType> std::fmt::Debug for $lock<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(Self::LAYOUT, f)
            }
        }

        // SAFETY: a transparent wrapper of a `T`, for which all this holds; it is not `Copy`. `sync`'s type is a
        // transparent wrapper of the handle, and so is `Unstructured`.
        unsafe impl<T: SharedType> SharedType for $lock<T> {
            const LAYOUT: &'static Layout = &structure::<Self>($name, Self::FIELDS).with_arguments(Self::ARGUMENTS);
            type Fields<'s> = sync::$lock<'s, T>;
            type ReadFields<'s> = Unstructured<'s, Self>;
            type Getter<'s> = sync::$lock<'s, T>;
            type ReadGetter<'s> = $read;

            fn get_field(field: Shared<'_, Self>) -> sync::$lock<'_, T> {
                sync::$lock::new(field)
            }

            fn read_field(field: ReadOnly<'_, Self>) -> Self::ReadGetter<'_> {
                $read_field(field)
            }
        }
    };
}

lock!(Mutex, "Mutex", ReadOnly<'s, Self>, std::convert::identity);
lock!(RwLock, "RwLock", sync::ReadLock<'s, T>, sync::ReadLock::new);

/// Implements what the two others have in common, with a number in their type.
macro_rules! counted {
    ($object:ident, $name:literal, $number:ident, $limit:expr) => {
        impl<const $number: u32> $object<$number> {
            const FIELDS: &'static [Field] = &[Field::new("reserved", 0, u32::LAYOUT)];
            const ARGUMENTS: &'static [Argument] = {
                assert!($number <= $limit, concat!("the number is too large for a ", $name));
                &[Argument::Const($number as i128)]
            };

            fn open(place: Place<'_>) -> Result<crate::$object<'_>> {
                let (region, offset) = (place.region(), place.offset());
                let (id, name) = open_at(region, Object::$object, offset, SyncKind::$object($number))?;
                Ok(crate::$object::new(region, id, name))
            }
        }

        // SAFETY: a transparent wrapper of a `u32`, for which all this holds; it is not `Copy`. `Unstructured` is a
        // transparent wrapper of the handle.
        unsafe impl<const $number: u32> SharedType for $object<$number> {
            const LAYOUT: &'static Layout = &structure::<Self>($name, Self::FIELDS).with_arguments(Self::ARGUMENTS);
            type Fields<'s> = Unstructured<'s, Self>;
            type ReadFields<'s> = Unstructured<'s, Self>;
            type Getter<'s> = Result<crate::$object<'s>>;
            type ReadGetter<'s> = Result<crate::$object<'s>>;

            fn get_field(field: Shared<'_, Self>) -> Result<crate::$object<'_>> {
                Self::open(field.place())
            }

            fn read_field(field: ReadOnly<'_, Self>) -> Result<crate::$object<'_>> {
                Self::open(field.shared().place())
            }
        }
    };
}

counted!(Semaphore, "Semaphore", UNITS, dsm_core::limits::SEMAPHORE_VALUE);
counted!(Barrier, "Barrier", PARTIES, dsm_core::limits::PARTIES);
