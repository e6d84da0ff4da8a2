//! Integers, floats, `bool` and `char` in shared memory.

use super::atomic::AtomicWord;
use super::check::InvalidValue;
use super::layout::Layout;
use super::read_only::ReadOnly;
use super::shared::{Assign, Plain, Shared, SharedType, Unstructured, never};
use crate::place::Place;

/// An integer, a float or a `bool`: what is loaded and stored whole, never torn.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an integer, a float or a `bool`",
    note = "larger values are copied by `load()` and `store()`"
)]
pub trait Scalar:
    Plain + Assign + Loaded<Value = Self> + for<'s> SharedType<ReadGetter<'s> = Self> + sealed::Sealed
{
}

/// What the getter of a word gives, if it gives a value: integers, floats and `bool`s, and the `Result` of `char`s and enums.
#[diagnostic::on_unimplemented(
    message = "only integers, floats, `bool`s, `char`s and enums can be waited for",
    label = "a value that is larger than a word",
    note = "wait for one of its fields: `value.field_ref().wait_until(...)`"
)]
pub trait Loaded: Copy + sealed::Sealed {
    /// What is stored: the value, or that of the `Result`.
    type Value;

    /// What the getter gives when this was found.
    #[doc(hidden)]
    fn loaded(found: Result<Self::Value, InvalidValue>) -> Self;
}

impl<T> sealed::Sealed for Result<T, InvalidValue> {}

impl<T: Copy> Loaded for Result<T, InvalidValue> {
    type Value = T;

    #[inline]
    fn loaded(found: Self) -> Self {
        found
    }
}

/// An integer: what has atomic operations across hosts.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no atomic operations",
    label = "not an integer",
    note = "atomic operations are for `u8` to `u128` and `i8` to `i128`",
    note = "a float can be kept in a `u32` or `u64` by `to_bits()` and `from_bits()`, and changed by `fetch_update`"
)]
pub trait Integer: Scalar + AtomicWord<Word = Self> {
    /// Whether the type has a sign.
    #[doc(hidden)]
    const SIGNED: bool;

    /// The bits, extended by zeros.
    #[doc(hidden)]
    fn to_bits(self) -> u128;

    /// The lower bits.
    #[doc(hidden)]
    fn from_bits(bits: u128) -> Self;
}

pub(super) mod sealed {
    pub trait Sealed {}
}

impl<'s, T: Scalar> Shared<'s, T> {
    /// The value: a plain load.
    #[inline]
    #[must_use]
    pub fn get(self) -> T {
        self.load()
    }

    /// Stores `value`. It is on its way to every host when this returns, in the order of this host's stores.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn set(self, value: T) {
        self.store(&value);
    }
}

/// Everything but how it is loaded and stored.
macro_rules! word {
    ($($scalar:ident: $layout:expr, $load:expr, $store:expr;)*) => {$(
        impl sealed::Sealed for $scalar {}

        impl Loaded for $scalar {
            type Value = Self;

            #[inline]
            fn loaded(found: Result<Self, InvalidValue>) -> Self {
                found.unwrap_or_else(|invalid| never(&invalid))
            }
        }

        // SAFETY: the layout is the type's own, a primitive has no padding, and the check, if it needs one, makes values
        // of it. `Unstructured` is a transparent wrapper of the handle.
        unsafe impl SharedType for $scalar {
            const LAYOUT: &'static Layout = &$layout;
            type Fields<'s> = Unstructured<'s, Self>;
            type ReadFields<'s> = Unstructured<'s, Self>;
            type Getter<'s> = Self;
            type ReadGetter<'s> = Self;

            #[inline]
            fn get_field(field: Shared<'_, Self>) -> Self {
                field.load()
            }

            #[inline]
            fn read_field(field: ReadOnly<'_, Self>) -> Self {
                field.load()
            }

            #[inline]
            fn load_from(place: Place<'_>) -> Result<Self, InvalidValue> {
                Ok($load(place.load_word::<{ size_of::<Self>() }>()))
            }

            #[inline]
            fn store_to(place: Place<'_>, value: &Self) {
                place.store_word::<{ size_of::<Self>() }>($store(*value));
            }
        }

        // SAFETY: any bytes make a number; and of a `bool`, the check makes one of them.
        unsafe impl Plain for $scalar {}

        impl Assign for $scalar {
            type Setter<'a> = Self;

            #[inline]
            fn set_field(field: Shared<'_, Self>, value: Self) {
                field.store(&value);
            }
        }

        impl Scalar for $scalar {}
    )*};
}

macro_rules! scalar {
    ($($scalar:ident)*) => {
        word! {$(
            $scalar: Layout::scalar(stringify!($scalar), size_of::<Self>(), align_of::<Self>()),
                $scalar::from_ne_bytes, $scalar::to_ne_bytes;
        )*}
    };
}

word! {
    bool: Layout::bool(), |byte: [u8; 1]| byte != [0], |value| [u8::from(value)];
}

// SAFETY: the layout is the type's own, four bytes without padding; the check lets pass what is a `char`. `Unstructured`
// is a transparent wrapper of the handle.
unsafe impl SharedType for char {
    const LAYOUT: &'static Layout = &Layout::char();
    type Fields<'s> = Unstructured<'s, Self>;
    type ReadFields<'s> = Unstructured<'s, Self>;
    type Getter<'s> = Result<Self, InvalidValue>;
    type ReadGetter<'s> = Result<Self, InvalidValue>;

    #[inline]
    fn get_field(field: Shared<'_, Self>) -> Result<Self, InvalidValue> {
        field.try_load()
    }

    #[inline]
    fn read_field(field: ReadOnly<'_, Self>) -> Result<Self, InvalidValue> {
        field.try_load()
    }
}

impl Assign for char {
    type Setter<'a> = Self;

    #[inline]
    fn set_field(field: Shared<'_, Self>, value: Self) {
        field.store(&value);
    }
}

macro_rules! integer {
    ($($integer:ident as $unsigned:ident, $signed:literal;)*) => {$(
        scalar!($integer);

        impl AtomicWord for $integer {
            type Word = Self;
        }

        impl Integer for $integer {
            const SIGNED: bool = $signed;

            #[inline]
            fn to_bits(self) -> u128 {
                u128::from(self as $unsigned)
            }

            #[inline]
            fn from_bits(bits: u128) -> Self {
                bits as Self
            }
        }
    )*};
}

integer! {
    u8 as u8, false;
    u16 as u16, false;
    u32 as u32, false;
    u64 as u64, false;
    u128 as u128, false;
    i8 as u8, true;
    i16 as u16, true;
    i32 as u32, true;
    i64 as u64, true;
    i128 as u128, true;
}
scalar!(f32 f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_extended_by_zeros_and_come_back() {
        assert_eq!((-1i8).to_bits(), 0xff);
        assert_eq!(i16::from_bits(0xfffe), -2);
        assert_eq!(i128::MIN.to_bits(), 1 << 127);
        assert_eq!(i128::from_bits(i128::MIN.to_bits()), i128::MIN);
        assert_eq!(u32::from_bits(u128::MAX), u32::MAX);
    }
}
