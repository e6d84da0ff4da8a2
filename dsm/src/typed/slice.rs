//! [`Slice`]: the handle of several values of one type, one behind the other.

use super::atomic::Atomic;
use super::check::InvalidValue;
use super::read_only::ReadOnlySlice;
use super::scalar::Integer;
use super::shared::{Plain, Shared, SharedType, bytes_of, overwrite, zeroed};
use crate::place::Place;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};

/// How many bytes [`Slice::fill`] stores at a time.
const FILL_BYTES: usize = 4096;

/// A handle of several values in shared memory, one behind the other: an address, a number and a type.
///
/// It is to `&[T]` what [`Shared`] is to `&T`: elements are copied in and out. As with a slice of std, an index
/// that is out of bounds panics.
///
/// Of arrays of arrays, `at(row)` is the handle of a row, which has `get(column)` and `set(column, value)`.
///
/// ```
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("../sync/example.txt")]
/// let numbers = session.array::<u32>("numbers", 100)?;
/// numbers.set(3, 42);
/// numbers.range(10..20).fill(7);
/// numbers.range(..2).copy_from_slice(&[1, 2]);
/// assert_eq!(numbers.range(..4).to_vec(), [1, 2, 0, 42]);
/// assert_eq!(numbers.iter().sum::<u32>(), 1 + 2 + 42 + 10 * 7);
/// // The share of one of four ranks.
/// assert_eq!(numbers.chunk(1, 4).len(), 25);
/// let rows = session.array::<[f64; 3]>("rows", 10)?;
/// rows.at(9).set(2, 0.5);
/// assert_eq!(rows.get(9), [0.0, 0.0, 0.5]);
/// # Ok(())
/// # }
/// ```
pub struct Slice<'s, T> {
    place: Place<'s>,
    len: usize,
    _type: PhantomData<T>,
}

impl<'s, T: SharedType> Slice<'s, T> {
    /// The handle of the `len` elements that begin at `place`.
    ///
    /// # Safety
    ///
    /// `place` must be aligned for `T`, and `len * size_of::<T>()` bytes from it must be mapped for as long as `'s`;
    /// the product must not overflow.
    #[inline]
    pub(crate) unsafe fn new(place: Place<'s>, len: usize) -> Self {
        const { assert!(size_of::<T>() > 0, "what is shared needs at least one byte") }
        Self { place, len, _type: PhantomData }
    }

    /// Where the first element is.
    #[inline]
    pub(crate) fn place(self) -> Place<'s> {
        self.place
    }

    /// How many elements there are.
    #[inline]
    #[must_use]
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The handle of element `index`.
    ///
    /// # Panics
    ///
    /// If `index` is out of bounds.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn at(self, index: usize) -> Shared<'s, T> {
        if index >= self.len {
            out_of_bounds(self.len, index);
        }
        // SAFETY: element `index` is one of the `len` that are mapped for `'s`, and as the first is aligned, so is it.
        unsafe { Shared::new(self.place.at(index * size_of::<T>())) }
    }

    /// A copy of element `index`. A plain load if it is an integer or a float; see [`Shared::load`] otherwise.
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
        self.at(index).load()
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
        self.at(index).try_load()
    }

    /// Stores element `index`: other hosts see it after all that this one stored before.
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
        self.at(index).store(&value);
    }

    /// Loads element `index` and stores what `change` makes of it; see [`Shared::update`].
    ///
    /// # Panics
    ///
    /// If `index` is out of bounds; when the session has ended.
    #[inline]
    #[track_caller]
    pub fn update(self, index: usize, change: impl FnOnce(T) -> T)
    where
        T: Plain,
    {
        self.at(index).update(change);
    }

    /// Element `index`, for atomic operations. (Of an array of std's atomics: `slice.at(index).atomic()`.)
    ///
    /// # Panics
    ///
    /// If `index` is out of bounds.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn atomic(self, index: usize) -> Atomic<'s, T>
    where
        T: Integer,
    {
        self.at(index).atomic()
    }

    /// Copies of the elements, each loaded when it is asked for.
    #[inline]
    pub fn iter(self) -> IntoIter<'s, T>
    where
        T: Plain,
    {
        IntoIter(self)
    }

    /// The handles of the elements.
    #[inline]
    pub fn handles(self) -> impl ExactSizeIterator<Item = Shared<'s, T>> + DoubleEndedIterator + FusedIterator {
        (0..self.len).map(move |index| self.at(index))
    }

    /// Stores `value` in every element, from the first on: other hosts see these stores in that order, some at a time.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    pub fn fill(self, value: T)
    where
        T: Copy,
    {
        // Some at a time: a store of many bytes costs little more than a store of few.
        let values = vec![
            value;
            self.len
                .min(const { if FILL_BYTES > size_of::<T>() { FILL_BYTES / size_of::<T>() } else { 1 } })
        ];
        let mut start = 0;
        while start < self.len {
            let count = values.len().min(self.len - start);
            self.range(start..start + count).copy_from_slice(&values[..count]);
            start += count;
        }
    }

    /// Copies all elements in, in order. No aligned word of 8 bytes is ever seen torn.
    ///
    /// # Panics
    ///
    /// If `source` has another length; when the session has ended.
    #[track_caller]
    pub fn copy_from_slice(self, source: &[T])
    where
        T: Copy,
    {
        let (len, given) = (self.len, source.len());
        assert!(
            len == given,
            "copy_from_slice: source slice length ({given}) does not match destination slice length ({len})"
        );
        self.place.store_bytes(bytes_of(source));
    }

    /// Copies all elements out. Not a consistent snapshot; see [`Shared::load`].
    ///
    /// # Panics
    ///
    /// If `destination` has another length.
    #[track_caller]
    pub fn copy_to_slice(self, destination: &mut [T])
    where
        T: Plain,
    {
        let (len, given) = (self.len, destination.len());
        assert!(
            len == given,
            "copy_to_slice: source slice length ({len}) does not match destination slice length ({given})"
        );
        overwrite(destination, |bytes| self.place.load_bytes(bytes));
    }

    /// Copies all elements out. Not a consistent snapshot; see [`Shared::load`].
    #[must_use]
    pub fn to_vec(self) -> Vec<T>
    where
        T: Plain,
    {
        let mut values = vec![zeroed(); self.len];
        self.copy_to_slice(&mut values);
        values
    }

    /// The elements of a range of indices: `range(8..16)`, `range(..8)`.
    ///
    /// # Panics
    ///
    /// If the range ends before it starts, or beyond the last element.
    #[must_use]
    #[track_caller]
    pub fn range(self, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => {
                before.checked_add(1).expect("attempted to index slice from after maximum usize")
            }
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.checked_add(1).expect("attempted to index slice up to maximum usize"),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        assert!(start <= end, "slice index starts at {start} but ends at {end}");
        assert!(end <= self.len, "range end index {end} out of range for slice of length {}", self.len);
        // SAFETY: the elements from `start` to `end` are among those that are mapped for `'s`.
        unsafe { Self::new(self.place.at(start * size_of::<T>()), end - start) }
    }

    /// Part `rank` of `size` parts that are as even as can be: this process's share of the work.
    ///
    /// # Panics
    ///
    /// If `rank` is not less than `size`.
    #[must_use]
    #[track_caller]
    pub fn chunk(self, rank: usize, size: usize) -> Self {
        self.range(self.chunk_range(rank, size))
    }

    /// The indices of [`chunk`](Self::chunk). The first parts get one more each when the work does not divide.
    ///
    /// # Panics
    ///
    /// If `rank` is not less than `size`.
    #[must_use]
    #[track_caller]
    pub fn chunk_range(self, rank: usize, size: usize) -> Range<usize> {
        share(self.len, rank, size)
    }

    /// Runs of `size` elements, one behind the other; the last has what is left.
    ///
    /// # Panics
    ///
    /// If `size` is zero.
    #[inline]
    #[track_caller]
    pub fn chunks(self, size: usize) -> impl ExactSizeIterator<Item = Self> + DoubleEndedIterator + FusedIterator {
        assert!(size != 0, "chunk size must be non-zero");
        (0..self.len.div_ceil(size)).map(move |index| {
            let start = index * size;
            self.range(start..start + size.min(self.len - start))
        })
    }

    /// The elements before `mid`, and the others.
    ///
    /// # Panics
    ///
    /// If `mid` is greater than the length.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        (self.range(..mid), self.range(mid..))
    }

    /// The same elements, to be read only.
    #[inline]
    #[must_use]
    pub fn read_only(self) -> ReadOnlySlice<'s, T> {
        ReadOnlySlice::new(self)
    }

    /// A pointer to the first element in the view of this process; see [`Shared::as_ptr`]. System calls that store
    /// through it fail with `EFAULT`: see [`dsm::io`](crate::io).
    #[inline]
    #[must_use]
    pub fn as_ptr(self) -> *mut T {
        self.place().as_ptr().cast()
    }
}

impl<'s, T: SharedType, const N: usize> Slice<'s, [T; N]> {
    /// The elements of all rows, one behind the other.
    #[inline]
    #[must_use]
    pub fn as_flattened(self) -> Slice<'s, T> {
        // SAFETY: `len` arrays of `N` elements are `len * N` elements without gaps; the product of that and the size
        // of one does not overflow, because the bytes are mapped.
        unsafe { Slice::new(self.place, self.len * N) }
    }
}

/// Apart, so that nothing of the message has to be prepared on the way to an element.
#[cold]
#[inline(never)]
#[track_caller]
fn out_of_bounds(len: usize, index: usize) -> ! {
    panic!("index out of bounds: the len is {len} but the index is {index}");
}

/// Part `rank` of `len` things in `size` parts. The division comes first, so that nothing can overflow.
#[track_caller]
fn share(len: usize, rank: usize, size: usize) -> Range<usize> {
    assert!(rank < size, "rank out of bounds: the size is {size} but the rank is {rank}");
    let (each, rest) = (len / size, len % size);
    let start = rank * each + rank.min(rest);
    start..start + each + usize::from(rank < rest)
}

impl<T> Clone for Slice<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slice<'_, T> {}

/// Shows the type and the address, not the values.
impl<T: SharedType> fmt::Debug for Slice<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice<{}>({:p}, len {})", T::LAYOUT, self.as_ptr(), self.len)
    }
}

/// Copies of the elements of a [`Slice`].
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct IntoIter<'s, T>(Slice<'s, T>);

impl<T> Clone for IntoIter<'_, T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<T: SharedType> fmt::Debug for IntoIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IntoIter").field(&self.0).finish()
    }
}

impl<T: Plain> Iterator for IntoIter<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.nth(0)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len, Some(self.0.len))
    }

    #[inline]
    fn nth(&mut self, count: usize) -> Option<T> {
        if count >= self.0.len {
            self.0 = self.0.range(self.0.len..);
            return None;
        }
        let value = self.0.get(count);
        self.0 = self.0.range(count + 1..);
        Some(value)
    }
}

impl<T: Plain> DoubleEndedIterator for IntoIter<'_, T> {
    #[inline]
    fn next_back(&mut self) -> Option<T> {
        let last = self.0.len.checked_sub(1)?;
        let value = self.0.get(last);
        self.0 = self.0.range(..last);
        Some(value)
    }
}

impl<T: Plain> ExactSizeIterator for IntoIter<'_, T> {}

impl<T: Plain> FusedIterator for IntoIter<'_, T> {}

impl<'s, T: Plain> IntoIterator for Slice<'s, T> {
    type Item = T;
    type IntoIter = IntoIter<'s, T>;

    fn into_iter(self) -> IntoIter<'s, T> {
        self.iter()
    }
}

impl<'s, T: Plain> IntoIterator for &Slice<'s, T> {
    type Item = T;
    type IntoIter = IntoIter<'s, T>;

    fn into_iter(self) -> IntoIter<'s, T> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_cover_everything_once_and_are_even() {
        for len in [0, 1, 2, 7, 64, 65, 1000] {
            for size in 1..=9 {
                let shares: Vec<_> = (0..size).map(|rank| share(len, rank, size)).collect();
                assert_eq!(shares[0].start, 0);
                assert_eq!(shares[size - 1].end, len);
                assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start), "{shares:?}");
                let lens = || shares.iter().map(ExactSizeIterator::len);
                assert!(lens().max() <= lens().min().map(|least| least + 1), "{shares:?}");
            }
        }
    }

    #[test]
    fn shares_of_very_much_do_not_overflow() {
        assert_eq!(share(usize::MAX, 2, 3), usize::MAX / 3 * 2..usize::MAX);
    }

    #[test]
    #[should_panic(expected = "rank out of bounds: the size is 4 but the rank is 4")]
    fn a_rank_beyond_the_size_panics() {
        let _ = share(10, 4, 4);
    }
}
