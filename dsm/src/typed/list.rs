//! [`List`]: a vector of bounded length.

use super::layout::{Argument, Field, Layout};
use super::private::structure;
use super::read_only::{ReadOnly, ReadOnlySlice};
use super::shared::{Assign, Plain, Shared, SharedType, its_own_handle, zeroed};
use super::slice::Slice;
use super::text::CapacityError;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// A vector of at most `N` elements, for shared memory.
///
/// ```
/// use dsm::List;
///
/// #[dsm::shared]
/// pub struct Queue {
///     pub jobs: List<u32, 16>,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
#[doc = include_str!("../sync/example.txt")]
/// let queue = session.open::<Queue>("queue")?;
/// queue.jobs().push(7)?;
/// queue.jobs().extend_from_slice(&[8, 9])?;
/// assert_eq!(queue.jobs().pop(), Some(9));
/// assert_eq!(queue.jobs().to_vec(), [7, 8]);
/// # Ok(())
/// # }
/// ```
///
/// An operation is several stores: let a semaphore keep other writers away. An element is stored before the length that
/// counts it, so that a list to which one process appends, and from which nothing is taken, can be read meanwhile.
/// Whatever another process has stored, no operation leaves the list: a length of more than `N` counts as `N`.
///
/// It takes 16 bytes more than its elements, which may be aligned to at most 16.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct List<T, const N: usize> {
    /// Little-endian; bytes, so that there is never padding. More than `N` is not believed.
    len: [u8; LEN],
    items: [T; N],
}

/// Bytes before the elements: as many as the largest alignment.
const LEN: usize = 16;

/// A length that is stored, as one that can be.
fn length(stored: [u8; LEN], capacity: usize) -> usize {
    usize::try_from(u128::from_le_bytes(stored)).map_or(capacity, |len| len.min(capacity))
}

fn stored(len: usize) -> [u8; LEN] {
    (len as u128).to_le_bytes()
}

impl<T: SharedType, const N: usize> List<T, N> {
    const FIELDS: &'static [Field] =
        &[Field::new("len", 0, <[u8; LEN]>::LAYOUT), Field::new("items", LEN, <[T; N]>::LAYOUT)];
    const ARGUMENTS: &'static [Argument] = {
        assert!(N > 0, "a `List` needs room for at least one element");
        assert!(align_of::<T>() <= LEN, "elements of a `List` may be aligned to at most 16 bytes");
        assert!(size_of::<Self>() == LEN + N * size_of::<T>());
        &[Argument::Type(T::LAYOUT), Argument::Const(N as i128)]
    };

    /// The empty list.
    #[must_use]
    pub fn new() -> Self
    where
        T: Plain,
    {
        Self { len: [0; LEN], items: [zeroed(); N] }
    }

    /// How many elements there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        N
    }

    /// Appends an element.
    ///
    /// # Errors
    /// [`CapacityError`] when it is full.
    pub fn push(&mut self, item: T) -> Result<(), CapacityError> {
        let len = self.len();
        *self.items.get_mut(len).ok_or(CapacityError { needed: len + 1, capacity: N })? = item;
        self.len = stored(len + 1);
        Ok(())
    }

    /// Takes the last element.
    pub fn pop(&mut self) -> Option<T>
    where
        T: Copy,
    {
        let last = self.last().copied()?;
        self.len = stored(self.len() - 1);
        Some(last)
    }

    /// Drops all elements but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = stored(len.min(self.len()));
    }

    /// Drops all elements.
    pub fn clear(&mut self) {
        self.truncate(0);
    }
}

impl<T: Plain, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Plain, const N: usize> TryFrom<&[T]> for List<T, N> {
    type Error = CapacityError;

    fn try_from(items: &[T]) -> Result<Self, CapacityError> {
        let mut this = Self::new();
        let room = this.items.get_mut(..items.len());
        room.ok_or(CapacityError { needed: items.len(), capacity: N })?.copy_from_slice(items);
        this.len = stored(items.len());
        Ok(this)
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items[..length(self.len, N)]
    }
}

impl<T, const N: usize> DerefMut for List<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..length(self.len, N)]
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&**self).finish()
    }
}

impl<T: PartialEq, const N: usize> PartialEq for List<T, N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

// SAFETY: bytes, as many as the elements may be aligned to, and an array of shared types: there is no padding (asserted
// where the layout is used), and any length is a value; `Unstructured` is a transparent wrapper of the handle.
unsafe impl<T: SharedType, const N: usize> SharedType for List<T, N> {
    const LAYOUT: &'static Layout = &structure::<Self>("List", Self::FIELDS).with_arguments(Self::ARGUMENTS);
    its_own_handle!();
}

// SAFETY: any bytes are a length, and any are an element.
unsafe impl<T: Plain, const N: usize> Plain for List<T, N> {}

impl<T: SharedType + Copy, const N: usize> Assign for List<T, N> {
    type Setter<'a> = &'a Self;

    #[inline]
    fn set_field(field: Shared<'_, Self>, value: &Self) {
        field.store(value);
    }
}

impl<'s, T: SharedType, const N: usize> Shared<'s, List<T, N>> {
    /// All elements, counted or not.
    fn items(self) -> Slice<'s, T> {
        self.part::<[T; N], 1>().as_slice()
    }

    fn set_len(self, len: usize) {
        self.place().store_bytes(&stored(len));
    }

    /// The elements. The handle keeps the length that the list has now.
    #[must_use]
    pub fn as_slice(self) -> Slice<'s, T> {
        self.items().range(..self.len())
    }

    /// How many elements there are: at most `N`, whatever is stored.
    #[must_use]
    pub fn len(self) -> usize {
        let mut len = [0; LEN];
        self.place().load_bytes(&mut len);
        length(len, N)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// How many elements there is room for.
    #[must_use]
    pub fn capacity(self) -> usize {
        N
    }

    /// A copy of element `index`, if there is one.
    #[must_use]
    pub fn get(self, index: usize) -> Option<T>
    where
        T: Plain,
    {
        (index < self.len()).then(|| self.items().get(index))
    }

    /// The handle of element `index`, if there is one.
    #[must_use]
    pub fn at(self, index: usize) -> Option<Shared<'s, T>> {
        (index < self.len()).then(|| self.items().at(index))
    }

    /// Copies of the elements.
    #[must_use]
    pub fn to_vec(self) -> Vec<T>
    where
        T: Plain,
    {
        self.as_slice().to_vec()
    }

    /// Appends an element.
    ///
    /// # Errors
    /// [`CapacityError`] when it is full.
    ///
    /// # Panics
    /// When the session has ended.
    pub fn push(self, item: T) -> Result<(), CapacityError>
    where
        T: Copy,
    {
        self.extend_from_slice(&[item])
    }

    /// Appends copies of `items`.
    ///
    /// # Errors
    /// [`CapacityError`] when there is no room for all of them; none is stored then.
    ///
    /// # Panics
    /// When the session has ended.
    pub fn extend_from_slice(self, items: &[T]) -> Result<(), CapacityError>
    where
        T: Copy,
    {
        let len = self.len();
        let needed = len.saturating_add(items.len());
        if needed > N {
            return Err(CapacityError { needed, capacity: N });
        }
        self.items().range(len..needed).copy_from_slice(items);
        self.set_len(needed);
        Ok(())
    }

    /// Takes the last element, if there is one.
    ///
    /// # Panics
    /// When the session has ended.
    #[must_use = "`truncate` drops elements"]
    pub fn pop(self) -> Option<T>
    where
        T: Plain,
    {
        let last = self.len().checked_sub(1)?;
        let item = self.items().get(last);
        self.set_len(last);
        Some(item)
    }

    /// Drops all elements but the first `len`.
    ///
    /// # Panics
    /// When the session has ended.
    pub fn truncate(self, len: usize) {
        self.set_len(len.min(self.len()));
    }

    /// Drops all elements.
    ///
    /// # Panics
    /// When the session has ended.
    pub fn clear(self) {
        self.set_len(0);
    }
}

impl<'s, T: SharedType, const N: usize> ReadOnly<'s, List<T, N>> {
    /// The elements. The handle keeps the length that the list has now.
    #[must_use]
    pub fn as_slice(self) -> ReadOnlySlice<'s, T> {
        ReadOnlySlice::new(self.shared().as_slice())
    }

    /// How many elements there are: at most `N`, whatever is stored.
    #[must_use]
    pub fn len(self) -> usize {
        self.shared().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// A copy of element `index`, if there is one.
    #[must_use]
    pub fn get(self, index: usize) -> Option<T>
    where
        T: Plain,
    {
        self.shared().get(index)
    }

    /// Copies of the elements.
    #[must_use]
    pub fn to_vec(self) -> Vec<T>
    where
        T: Plain,
    {
        self.shared().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_what_fits() {
        let mut list = List::<u16, 3>::new();
        assert_eq!((list.pop(), list.len()), (None, 0));
        (1..=3).for_each(|item| list.push(item).unwrap());
        assert_eq!(list.push(4), Err(CapacityError { needed: 4, capacity: 3 }));
        list.iter_mut().for_each(|item| *item *= 2);
        assert_eq!((list.pop(), &*list), (Some(6), &[2, 4][..]));
        list.truncate(1);
        list.truncate(9);
        assert_eq!(format!("{list:?}"), "[2]");
        assert!(List::<u8, 2>::try_from(&[1, 2, 3][..]).is_err());
    }

    #[test]
    fn any_length_is_kept_within_bounds() {
        let mut list = List::<u8, 3> { len: [0xff; LEN], items: [1, 2, 3] };
        assert_eq!(&*list, &[1, 2, 3]);
        assert!(list.push(4).is_err());
        assert_eq!(list.pop(), Some(3));
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn there_is_no_padding_whatever_is_in_it() {
        assert_eq!(List::<u8, 3>::LAYOUT.size, 19);
        assert_eq!(List::<u128, 1>::LAYOUT.size, 32);
        assert_eq!(List::<[u16; 3], 5>::LAYOUT.to_string(), "List<[u16; 3], 5>");
    }
}
