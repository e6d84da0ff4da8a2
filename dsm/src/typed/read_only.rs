//! [`ReadOnly`] and [`ReadOnlySlice`]: handles without anything that stores.

use super::check::InvalidValue;
use super::shared::{Plain, Shared, SharedType};
use super::slice::{IntoIter, Slice};
use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Deref, Range, RangeBounds};

/// A handle of one value in shared memory, to be read only: as [`Shared`], without its setters.
///
/// Of a struct, the fields have getters that give values, or handles that are read-only too.
#[repr(transparent)]
pub struct ReadOnly<'s, T>(Shared<'s, T>);

impl<'s, T: SharedType> ReadOnly<'s, T> {
    #[inline]
    pub(super) fn new(shared: Shared<'s, T>) -> Self {
        Self(shared)
    }

    /// The handle that can store.
    #[inline]
    pub(crate) fn shared(self) -> Shared<'s, T> {
        self.0
    }

    /// Copies the value out; see [`Shared::load`].
    #[inline]
    #[must_use]
    pub fn load(self) -> T
    where
        T: Plain,
    {
        self.0.load()
    }

    /// Copies the value out, if the bytes make one; see [`Shared::try_load`].
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if another process has stored bytes that make no value.
    #[inline]
    pub fn try_load(self) -> Result<T, InvalidValue>
    where
        T: Copy,
    {
        self.0.try_load()
    }

    /// A pointer to the value in the view of this process, for loads; see [`Shared::as_ptr`].
    #[inline]
    #[must_use]
    pub fn as_ptr(self) -> *const T {
        self.0.as_ptr()
    }

    /// Whether both are handles of the same place.
    #[inline]
    #[must_use]
    pub fn ptr_eq(this: Self, other: ReadOnly<'_, T>) -> bool {
        this.as_ptr() == other.as_ptr()
    }

    /// The handle of field number `INDEX`, which is an `F`.
    #[inline]
    pub(super) fn part<F: SharedType, const INDEX: usize>(this: Self) -> ReadOnly<'s, F> {
        ReadOnly(this.0.part::<F, INDEX>())
    }
}

impl<'s, T: SharedType, const N: usize> ReadOnly<'s, [T; N]> {
    /// The elements.
    #[inline]
    #[must_use]
    pub fn as_slice(self) -> ReadOnlySlice<'s, T> {
        ReadOnlySlice(self.0.as_slice())
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

    /// The handle of element `index`; see [`Slice::at`].
    ///
    /// # Panics
    ///
    /// If `index` is out of bounds.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn at(self, index: usize) -> ReadOnly<'s, T> {
        self.as_slice().at(index)
    }
}

impl<T> Clone for ReadOnly<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ReadOnly<'_, T> {}

impl<'s, T: SharedType> From<Shared<'s, T>> for ReadOnly<'s, T> {
    #[inline]
    fn from(shared: Shared<'s, T>) -> Self {
        Self(shared)
    }
}

impl<'s, T: SharedType> Deref for ReadOnly<'s, T> {
    type Target = T::ReadFields<'s>;

    #[inline]
    fn deref(&self) -> &T::ReadFields<'s> {
        const {
            assert!(size_of::<T::ReadFields<'s>>() == size_of::<Self>());
            assert!(align_of::<T::ReadFields<'s>>() == align_of::<Self>());
        }
        let fields = std::ptr::from_ref(self).cast::<T::ReadFields<'s>>();
        // SAFETY: `ReadFields` is a transparent wrapper of this very type, or of the one that this one wraps
        // (contract of `SharedType`), so the pointer is to a valid one, and it is borrowed no longer than `self` is.
        unsafe { &*fields }
    }
}

/// Shows the type and the address, not the value: that would have to be loaded.
impl<T: SharedType> fmt::Debug for ReadOnly<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadOnly<{}>({:p})", T::LAYOUT, self.as_ptr())
    }
}

/// A handle of several values in shared memory, one behind the other, to be read only: as [`Slice`], without what
/// stores.
#[repr(transparent)]
pub struct ReadOnlySlice<'s, T>(Slice<'s, T>);

impl<'s, T: SharedType> ReadOnlySlice<'s, T> {
    #[inline]
    pub(super) fn new(slice: Slice<'s, T>) -> Self {
        Self(slice)
    }

    /// How many elements there are.
    #[inline]
    #[must_use]
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The handle of element `index`.
    ///
    /// # Panics
    ///
    /// If `index` is out of bounds.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn at(self, index: usize) -> ReadOnly<'s, T> {
        ReadOnly(self.0.at(index))
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
        self.0.get(index)
    }

    /// A copy of element `index`, if the bytes there make a value; see [`Shared::try_load`].
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if another process has stored bytes that make no value.
    ///
    /// # Panics
    ///
    /// If `index` is out of bounds.
    #[inline]
    #[track_caller]
    pub fn try_get(self, index: usize) -> Result<T, InvalidValue>
    where
        T: Copy,
    {
        self.0.try_get(index)
    }

    /// Copies of the elements, each loaded when it is asked for.
    #[inline]
    pub fn iter(self) -> IntoIter<'s, T>
    where
        T: Plain,
    {
        self.0.iter()
    }

    /// The handles of the elements.
    #[inline]
    pub fn handles(self) -> impl ExactSizeIterator<Item = ReadOnly<'s, T>> + DoubleEndedIterator + FusedIterator {
        self.0.handles().map(ReadOnly)
    }

    /// Copies all elements out; see [`Slice::copy_to_slice`].
    ///
    /// # Panics
    ///
    /// If `destination` has another length.
    #[track_caller]
    pub fn copy_to_slice(self, destination: &mut [T])
    where
        T: Plain,
    {
        self.0.copy_to_slice(destination);
    }

    /// Copies all elements out; see [`Slice::copy_to_slice`].
    #[must_use]
    pub fn to_vec(self) -> Vec<T>
    where
        T: Plain,
    {
        self.0.to_vec()
    }

    /// The elements of a range of indices; see [`Slice::range`].
    ///
    /// # Panics
    ///
    /// If the range ends before it starts, or beyond the last element.
    #[must_use]
    #[track_caller]
    pub fn range(self, range: impl RangeBounds<usize>) -> Self {
        Self(self.0.range(range))
    }

    /// Part `rank` of `size` parts; see [`Slice::chunk`].
    ///
    /// # Panics
    ///
    /// If `rank` is not less than `size`.
    #[must_use]
    #[track_caller]
    pub fn chunk(self, rank: usize, size: usize) -> Self {
        Self(self.0.chunk(rank, size))
    }

    /// The indices of [`chunk`](Self::chunk).
    ///
    /// # Panics
    ///
    /// If `rank` is not less than `size`.
    #[must_use]
    #[track_caller]
    pub fn chunk_range(self, rank: usize, size: usize) -> Range<usize> {
        self.0.chunk_range(rank, size)
    }

    /// Runs of `size` elements; see [`Slice::chunks`].
    ///
    /// # Panics
    ///
    /// If `size` is zero.
    #[inline]
    #[track_caller]
    pub fn chunks(self, size: usize) -> impl ExactSizeIterator<Item = Self> + DoubleEndedIterator + FusedIterator {
        self.0.chunks(size).map(Self)
    }

    /// A pointer to the first element in the view of this process, for loads.
    #[inline]
    #[must_use]
    pub fn as_ptr(self) -> *const T {
        self.0.as_ptr()
    }
}

impl<'s, T: SharedType, const N: usize> ReadOnlySlice<'s, [T; N]> {
    /// The elements of all rows, one behind the other.
    #[inline]
    #[must_use]
    pub fn as_flattened(self) -> ReadOnlySlice<'s, T> {
        ReadOnlySlice(self.0.as_flattened())
    }
}

impl<T> Clone for ReadOnlySlice<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ReadOnlySlice<'_, T> {}

/// Shows the type and the address, not the values.
impl<T: SharedType> fmt::Debug for ReadOnlySlice<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadOnlySlice<{}>({:p}, len {})", T::LAYOUT, self.as_ptr(), self.len())
    }
}

impl<'s, T: Plain> IntoIterator for ReadOnlySlice<'s, T> {
    type Item = T;
    type IntoIter = IntoIter<'s, T>;

    fn into_iter(self) -> IntoIter<'s, T> {
        self.iter()
    }
}
