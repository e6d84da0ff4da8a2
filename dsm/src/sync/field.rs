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
//! A whole struct can still be copied in and out, and changed in a hole. Its sync objects do not notice: what a
//! [`Mutex`] protects is then read, or overwritten, without its lock.

use super::{Object, open_at};
use crate::__private::{Field, Layout, Text, structure};
use crate::place::Place;
use crate::typed::{Shared, SharedType, Unstructured};
use crate::{Result, sync};
use dsm_core::wire::control::SyncKind;

/// A value that can be reached only while its lock is held; the accessor gives a [`dsm::Mutex`](crate::Mutex).
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Mutex<T>(T);

/// A value that many can read at the same time, or one change; the accessor gives a [`dsm::RwLock`](crate::RwLock).
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct RwLock<T>(T);

/// A semaphore of `UNITS` units at first; the accessor gives a [`dsm::Semaphore`](crate::Semaphore), or why it cannot
/// be had (the session has ended).
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Semaphore<const UNITS: u32>(u32);

/// A barrier for `PARTIES` parties; the accessor gives a [`dsm::Barrier`](crate::Barrier), or why it cannot be had (the
/// session has ended). A process becomes a party of it when it first calls the accessor.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Barrier<const PARTIES: u32>(u32);

/// What the setter of a sync object takes: there is nothing to be set.
#[derive(Clone, Copy, Debug)]
pub enum Nothing {}

impl<T: SharedType> Mutex<T> {
    const FIELDS: &'static [Field] = &[Field::new("value", 0, T::LAYOUT)];
}

// SAFETY: a transparent wrapper of a `T`, for which all this holds; `sync::Mutex` is a transparent wrapper of the
// handle.
unsafe impl<T: SharedType> SharedType for Mutex<T> {
    const LAYOUT: &'static Layout = &structure::<Self>("Mutex", Self::FIELDS);
    type Fields<'s> = sync::Mutex<'s, T>;
    type Getter<'s> = sync::Mutex<'s, T>;
    type Setter<'a> = Nothing;

    fn get_field(field: Shared<'_, Self>) -> sync::Mutex<'_, T> {
        sync::Mutex::new(field)
    }

    fn set_field(_: Shared<'_, Self>, nothing: Nothing) {
        match nothing {}
    }
}

impl<T: SharedType> RwLock<T> {
    const FIELDS: &'static [Field] = &[Field::new("value", 0, T::LAYOUT)];
}

// SAFETY: as for `Mutex`.
unsafe impl<T: SharedType> SharedType for RwLock<T> {
    const LAYOUT: &'static Layout = &structure::<Self>("RwLock", Self::FIELDS);
    type Fields<'s> = sync::RwLock<'s, T>;
    type Getter<'s> = sync::RwLock<'s, T>;
    type Setter<'a> = Nothing;

    fn get_field(field: Shared<'_, Self>) -> sync::RwLock<'_, T> {
        sync::RwLock::new(field)
    }

    fn set_field(_: Shared<'_, Self>, nothing: Nothing) {
        match nothing {}
    }
}

/// Implements what a field with a number in its type has in common.
macro_rules! counted {
    ($type:ident, $name:literal, $number:ident, $limit:expr, $handle:ty, $open:expr) => {
        impl<const $number: u32> $type<$number> {
            const NAME: &'static Text = {
                assert!($number <= $limit, concat!("too many for a ", $name));
                &Text::new().text(concat!($name, "<")).number($number as usize).text(">")
            };
            const FIELDS: &'static [Field] = &[Field::new("reserved", 0, u32::LAYOUT)];
        }

        // SAFETY: a transparent wrapper of a `u32`, for which all this holds; `Unstructured` is a transparent wrapper of the
        // handle.
        unsafe impl<const $number: u32> SharedType for $type<$number> {
            const LAYOUT: &'static Layout = &structure::<Self>(Self::NAME.as_str(), Self::FIELDS);
            type Fields<'s> = Unstructured<'s, Self>;
            type Getter<'s> = Result<$handle>;
            type Setter<'a> = Nothing;

            fn get_field(field: Shared<'_, Self>) -> Self::Getter<'_> {
                let open: fn(Place<'_>) -> Self::Getter<'_> = $open;
                open(field.place())
            }

            fn set_field(_: Shared<'_, Self>, nothing: Nothing) {
                match nothing {}
            }
        }
    };
}

counted!(Semaphore, "Semaphore", UNITS, dsm_core::limits::SEMAPHORE_VALUE, crate::Semaphore<'s>, |place| {
    let (region, offset) = (place.region(), place.offset());
    let (id, name) = open_at(region, Object::Semaphore, offset, SyncKind::Semaphore(UNITS))?;
    Ok(crate::Semaphore::new(region, id, name))
});
counted!(Barrier, "Barrier", PARTIES, dsm_core::limits::PARTIES, crate::Barrier<'s>, |place| {
    let (region, offset) = (place.region(), place.offset());
    let (id, name) = open_at(region, Object::Barrier, offset, SyncKind::Barrier(PARTIES))?;
    Ok(crate::Barrier::new(region, id, name))
});
