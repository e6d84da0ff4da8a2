//! Integers and floats in shared memory.

use super::atomic::Atomic;
use super::layout::Layout;
use super::shared::{Shared, SharedType, Unstructured};
use crate::place::Place;

/// An integer or a float: what is loaded and stored whole, never torn.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an integer or a float",
    note = "larger values are copied by `load()` and `store()`"
)]
pub trait Scalar: SharedType + sealed::Sealed {}

/// An integer: what has atomic operations across hosts.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no atomic operations",
    label = "not an integer",
    note = "atomic operations are for `u8` to `u128` and `i8` to `i128`",
    note = "a float can be kept in a `u32` or `u64` by `to_bits()` and `from_bits()`, and changed by `fetch_update`"
)]
pub trait Integer: Scalar {
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

mod sealed {
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
    #[inline]
    pub fn set(self, value: T) {
        self.store(&value);
    }
}

impl<'s, T: Integer> Shared<'s, T> {
    /// The same integer, for atomic operations.
    #[inline]
    #[must_use]
    pub fn atomic(self) -> Atomic<'s, T> {
        Atomic::new(self)
    }
}

macro_rules! scalar {
    ($($scalar:ident)*) => {$(
        impl sealed::Sealed for $scalar {}

        impl Scalar for $scalar {}

        // SAFETY: every pattern of bits is a value of a primitive number, it has no padding, and `Unstructured` is
        // a transparent wrapper of the handle.
        unsafe impl SharedType for $scalar {
            const LAYOUT: &'static Layout = &Layout::scalar(stringify!($scalar), size_of::<Self>(), align_of::<Self>());
            type Fields<'s> = Unstructured<'s, Self>;
            type Getter<'s> = Self;
            type Setter<'a> = Self;

            #[inline]
            fn get_field(field: Shared<'_, Self>) -> Self {
                field.load()
            }

            #[inline]
            fn set_field(field: Shared<'_, Self>, value: Self) {
                field.store(&value);
            }

            #[inline]
            fn load_from(place: Place<'_>) -> Self {
                Self::from_ne_bytes(place.load_word::<{ size_of::<Self>() }>())
            }

            #[inline]
            fn store_to(place: Place<'_>, value: &Self) {
                place.store_word::<{ size_of::<Self>() }>(value.to_ne_bytes());
            }
        }
    )*};
}

macro_rules! integer {
    ($($integer:ident as $unsigned:ident, $signed:literal;)*) => {$(
        scalar!($integer);

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
