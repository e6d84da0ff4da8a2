//! `swap` and `compare_exchange` for what is no integer: floats, `bool`, `char`, enums, and small structs.

use super::check::InvalidValue;
use super::scalar::Loaded;
use super::shared::{Plain, Shared, SharedType, bytes_of, never};
use crate::place::Place;
use dsm_core::op::{AtomicOp, Rmw};
use std::mem::MaybeUninit;
use std::slice;
use std::sync::atomic::Ordering;

impl<'s, T: SharedType + Copy> Shared<'s, T>
where
    T::ReadGetter<'s>: Loaded<Value = T>,
{
    /// Stores `value` and returns what the getter would have given before. Atomic across all hosts, for integers, floats,
    /// `bool`, `char` and enums; see [`Atomic`](super::Atomic) for what that means, and what else integers can do.
    ///
    /// ```
    /// use dsm::prelude::*;
    ///
    /// # fn main() -> dsm::Result<()> {
    #[doc = include_str!("../sync/example.txt")]
    /// let best = session.open::<f64>("best")?;
    /// assert_eq!(best.swap(2.5, SeqCst), 0.0);
    /// assert_eq!(best.compare_exchange(2.5, 7.0, SeqCst, SeqCst), Ok(2.5));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// When the session has ended.
    #[inline]
    pub fn swap(self, value: T, _order: Ordering) -> T::ReadGetter<'s> {
        Loaded::loaded(swap(self.place(), &value))
    }

    /// Stores `new` if the value is `current`, by its bits: of floats, `-0.0` is not `0.0`, and a NaN is the same NaN. (Of
    /// `bool`s, any byte but zero is `true`.) Atomic across all hosts.
    ///
    /// # Errors
    /// The value, if it is another; nothing is stored then. In both cases what is returned is the value before, as the
    /// getter would have given it.
    ///
    /// # Panics
    /// When the session has ended.
    #[inline]
    pub fn compare_exchange(
        self,
        current: T,
        new: T,
        _success: Ordering,
        _failure: Ordering,
    ) -> Result<T::ReadGetter<'s>, T::ReadGetter<'s>> {
        match compare_exchange(self.place(), &current, &new) {
            Ok(()) => Ok(Loaded::loaded(Ok(current))),
            Err(found) => Err(Loaded::loaded(found)),
        }
    }
}

impl<T: Plain> Shared<'_, T> {
    /// Stores a whole small struct or array and returns the one before: `Shared::swap_whole(pos, Pos { x, y }, SeqCst)`.
    /// Atomic across all hosts, and seen whole by them.
    ///
    /// It must have 1, 2, 4, 8 or 16 bytes, or the program does not compile.
    ///
    /// ```
    /// use dsm::prelude::*;
    ///
    /// #[dsm::shared]
    /// #[derive(Debug, PartialEq)]
    /// pub struct Span {
    ///     pub from: u32,
    ///     pub to: u32,
    /// }
    ///
    /// # fn main() -> dsm::Result<()> {
    #[doc = include_str!("../sync/example.txt")]
    /// let span = session.open::<Span>("span")?;
    /// let before = Shared::swap_whole(span, Span { from: 3, to: 9 }, SeqCst);
    /// assert_eq!(before, Span { from: 0, to: 0 });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// When it does not lie at a multiple of its size, and when the session has ended.
    #[inline]
    pub fn swap_whole(this: Self, value: T, _order: Ordering) -> T {
        swap(this.place(), &value).unwrap_or_else(|invalid| never(&invalid))
    }

    /// Stores a whole small struct or array, `new`, if it is `current`, by its bits. Atomic across all hosts, and seen whole
    /// by them. See [`swap_whole`](Self::swap_whole).
    ///
    /// # Errors
    /// The value, if it is another; nothing is stored then. In both cases what is returned is the value before.
    ///
    /// # Panics
    /// As [`swap_whole`](Self::swap_whole).
    #[inline]
    pub fn compare_exchange_whole(
        this: Self,
        current: T,
        new: T,
        _success: Ordering,
        _failure: Ordering,
    ) -> Result<T, T> {
        match compare_exchange(this.place(), &current, &new) {
            Ok(()) => Ok(current),
            Err(found) => Err(found.unwrap_or_else(|invalid| never(&invalid))),
        }
    }
}

/// Its size, if it has one for which there are atomic operations. It must lie where they are possible.
#[track_caller]
fn width<T>(place: Place<'_>) -> u8 {
    const {
        assert!(matches!(size_of::<T>(), 1 | 2 | 4 | 8 | 16), "atomic operations are for 1, 2, 4, 8 or 16 bytes");
    }
    let (offset, size) = (place.offset(), size_of::<T>());
    // What is aligned to its size always does.
    if align_of::<T>() < size && !offset.is_multiple_of(size as u64) {
        panic!("an atomic operation of {size} bytes at offset {offset:#x}, which is no multiple of that");
    }
    size as u8
}

fn bits_of<T: SharedType + Copy>(value: &T) -> u128 {
    let bytes = bytes_of(slice::from_ref(value));
    let mut bits = [0; 16];
    bits[..bytes.len()].copy_from_slice(bytes);
    u128::from_le_bytes(bits)
}

/// What is stored as `bits`.
fn value_of<T: SharedType + Copy>(bits: u128) -> Result<T, InvalidValue> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the bytes of `value`, which nobody else has, and all initialised: they are zeros.
    let bytes = unsafe { slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
    bytes.copy_from_slice(&bits.to_le_bytes()[..size_of::<T>()]);
    T::LAYOUT.check(bytes)?;
    // SAFETY: bytes that have passed the check make a value (contract of `SharedType`).
    Ok(unsafe { value.assume_init() })
}

fn swap<T: SharedType + Copy>(place: Place<'_>, value: &T) -> Result<T, InvalidValue> {
    value_of(place.rmw(AtomicOp::new(Rmw::Swap, width::<T>(place), bits_of(value))))
}

/// The value that is there instead, if it is another.
fn compare_exchange<T: SharedType + Copy>(
    place: Place<'_>,
    current: &T,
    new: &T,
) -> Result<(), Result<T, InvalidValue>> {
    let (width, wanted, new) = (width::<T>(place), bits_of(current), bits_of(new));
    let mut expected = wanted;
    loop {
        let found = place.rmw(AtomicOp::compare_exchange(width, expected, new));
        if found == expected {
            return Ok(());
        }
        match value_of::<T>(found) {
            // Other bytes that mean the same: a `bool` has many for `true`.
            Ok(value) if bits_of(&value) == wanted => expected = found,
            other => return Err(other),
        }
    }
}
