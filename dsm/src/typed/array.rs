//! Arrays in shared memory. What can be done with their elements is the job of [`Slice`].

use super::layout::Layout;
use super::read_only::{ReadOnly, ReadOnlySlice};
use super::shared::{Assign, Plain, Shared, SharedType, Unstructured};
use super::slice::{IntoIter, Slice};

// SAFETY: elements of an array follow each other without a gap, so what holds for `T` holds for them together.
// `Unstructured` is a transparent wrapper of the handle. (That an array has elements is asserted by `Shared::new`.)
unsafe impl<T: SharedType, const N: usize> SharedType for [T; N] {
    const LAYOUT: &'static Layout = &Layout::array(T::LAYOUT, N);
    type Fields<'s> = Unstructured<'s, Self>;
    type ReadFields<'s> = Unstructured<'s, Self>;
    type Getter<'s> = Slice<'s, T>;
    type ReadGetter<'s> = ReadOnlySlice<'s, T>;

    #[inline]
    fn get_field(field: Shared<'_, Self>) -> Slice<'_, T> {
        field.as_slice()
    }

    #[inline]
    fn read_field(field: ReadOnly<'_, Self>) -> ReadOnlySlice<'_, T> {
        field.as_slice()
    }
}

// SAFETY: the check of an array is that of its elements, one by one.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

impl<T: SharedType + Copy, const N: usize> Assign for [T; N] {
    type Setter<'a> = &'a Self;

    #[inline]
    fn set_field(field: Shared<'_, Self>, value: &Self) {
        field.store(value);
    }
}

/// The handle of an array has the most common methods of [`Slice`]; the others are behind
/// [`as_slice`](Self::as_slice).
impl<'s, T: SharedType, const N: usize> Shared<'s, [T; N]> {
    /// The elements.
    #[inline]
    #[must_use]
    pub fn as_slice(self) -> Slice<'s, T> {
        // SAFETY: an array is its `N` elements, aligned as they are, and mapped for `'s` as the array is.
        unsafe { Slice::new(self.place(), N) }
    }

    /// How many elements there are.
    #[inline]
    #[must_use]
    pub fn len(self) -> usize {
        N
    }

    /// A copy of element `index`; see [`Slice::get`].
    ///
    /// # Panics
    ///
    /// If `index` is out of bounds.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn get(self, index: usize) -> T
    where
        T: Plain,
    {
        self.as_slice().get(index)
    }

    /// Stores element `index`; see [`Slice::set`].
    ///
    /// # Panics
    ///
    /// If `index` is out of bounds; when the session has ended.
    #[inline]
    #[track_caller]
    pub fn set(self, index: usize, value: T)
    where
        T: Copy,
    {
        self.as_slice().set(index, value);
    }

    /// The handle of element `index`; see [`Slice::at`].
    ///
    /// # Panics
    ///
    /// If `index` is out of bounds.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn at(self, index: usize) -> Shared<'s, T> {
        self.as_slice().at(index)
    }

    /// Copies of the elements, each loaded when it is asked for.
    #[inline]
    pub fn iter(self) -> IntoIter<'s, T>
    where
        T: Plain,
    {
        self.as_slice().iter()
    }
}

impl<'s, T: Plain, const N: usize> IntoIterator for Shared<'s, [T; N]> {
    type Item = T;
    type IntoIter = IntoIter<'s, T>;

    fn into_iter(self) -> IntoIter<'s, T> {
        self.iter()
    }
}
