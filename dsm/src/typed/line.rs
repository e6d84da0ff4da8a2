//! [`Line`]: a value on cache lines of its own.

use super::layout::{Field, Layout};
use super::read_only::ReadOnly;
use super::shared::{Assign, Plain, Shared, SharedType};
use std::ops::{Deref, DerefMut};

/// A field on cache lines of its own, 64 bytes each: what `#[dsm(align = 64)]` makes of a field's type. What is left of
/// its last line are `PAD` bytes, which are always there and always zero.
///
/// In a struct literal: `turn: 3.into()`. It dereferences to the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(64))]
pub struct Line<T, const PAD: usize> {
    value: T,
    pad: [u8; PAD],
}

impl<T, const PAD: usize> Line<T, PAD> {
    /// A line with this value.
    #[inline]
    pub const fn new(value: T) -> Self {
        Self { value, pad: [0; PAD] }
    }

    /// The value.
    #[inline]
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T: Default, const PAD: usize> Default for Line<T, PAD> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T, const PAD: usize> From<T> for Line<T, PAD> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T, const PAD: usize> Deref for Line<T, PAD> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T, const PAD: usize> DerefMut for Line<T, PAD> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// What is left of the last line of `size` bytes.
#[doc(hidden)]
#[must_use]
pub const fn pad(size: usize) -> usize {
    size.next_multiple_of(64) - size
}

// SAFETY: the layout has both fields where they are, and there is nothing else, as is asserted. `Fields` is that of the
// wrapper's only field of interest, which begins where the wrapper does: a transparent wrapper of a handle.
unsafe impl<T: SharedType, const PAD: usize> SharedType for Line<T, PAD> {
    const LAYOUT: &'static Layout = {
        assert!(PAD == pad(size_of::<T>()) && size_of::<Self>() == size_of::<T>() + PAD, "this is no whole line");
        assert!(align_of::<T>() <= 64, "what is on lines of its own is aligned to a line at most");
        &Layout::structure(
            "Line",
            size_of::<Self>(),
            align_of::<Self>(),
            const { &[Field::new("value", 0, T::LAYOUT), Field::new("pad", size_of::<T>(), <[u8; PAD]>::LAYOUT)] },
        )
    };
    type Fields<'s> = super::Unstructured<'s, Self>;
    type ReadFields<'s> = super::Unstructured<'s, Self>;
    type Getter<'s> = T::Getter<'s>;
    type ReadGetter<'s> = T::ReadGetter<'s>;

    #[inline]
    fn get_field(field: Shared<'_, Self>) -> T::Getter<'_> {
        T::get_field(T::field_of::<Self, 0>(field))
    }

    #[inline]
    fn read_field(field: ReadOnly<'_, Self>) -> T::ReadGetter<'_> {
        T::read_field(ReadOnly::part::<T, 0>(field))
    }
}

// SAFETY: any bytes are padding, so what holds for `T` holds for the line.
unsafe impl<T: Plain, const PAD: usize> Plain for Line<T, PAD> {}

impl<T: SharedType + Copy, const PAD: usize> Assign for Line<T, PAD> {
    type Setter<'a> = &'a Self;

    #[inline]
    fn set_field(field: Shared<'_, Self>, value: &Self) {
        field.store(value);
    }
}
