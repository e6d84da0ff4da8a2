//! [`SharedType`], what may live in shared memory, and [`Shared`], the handle of one such value.

use super::layout::Layout;
use crate::place::Place;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::slice;

/// What may live in shared memory.
///
/// These types do: the integers `u8` to `u128` and `i8` to `i128`, the floats `f32` and `f64`, arrays of them,
/// and structs of them that are marked [`#[dsm::shared]`](macro@crate::shared). Use the attribute; nothing is
/// gained by implementing the trait by hand.
///
/// # Safety
///
/// Any process of the session, on any host, may store any bytes at any time. Therefore:
/// - any pattern of `size_of::<Self>()` bytes is a valid value,
/// - there are no padding bytes,
/// - there is nothing in it that means something only in one process, such as a pointer,
/// - `LAYOUT` describes it as it is,
/// - `Fields<'s>` is a `#[repr(transparent)]` wrapper of [`Shared<'s, Self>`](Shared).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared",
    label = "not a type that may live in shared memory",
    note = "what may be shared: `u8` to `u128`, `i8` to `i128`, `f32`, `f64`, arrays of them, and structs marked \
     `#[dsm::shared]`",
    note = "in place of `usize`, whose size is the machine's, use `u64`; in place of `bool` and `char`, `u8` and `u32`"
)]
pub unsafe trait SharedType: Copy + Send + Sync + 'static {
    /// How its bytes are laid out.
    const LAYOUT: &'static Layout;

    /// Holds the accessors of the fields; [`Shared`] dereferences to it.
    type Fields<'s>: Copy;

    /// What the getter of a field of this type gives: the value of a scalar, the handle of anything larger.
    #[doc(hidden)]
    type Getter<'s>;

    /// What the setter of a field of this type takes: a scalar by value, anything larger by reference.
    #[doc(hidden)]
    type Setter<'a>;

    /// The field of this type that starts `OFFSET` bytes into an `S`. Safe for any number, because one that does not
    /// fit does not compile.
    #[doc(hidden)]
    #[inline]
    fn field_of<S: SharedType, const OFFSET: usize>(of: Shared<'_, S>) -> Shared<'_, Self> {
        of.part::<Self, OFFSET>()
    }

    #[doc(hidden)]
    fn get_field(field: Shared<'_, Self>) -> Self::Getter<'_>;

    #[doc(hidden)]
    fn set_field(field: Shared<'_, Self>, value: Self::Setter<'_>);

    #[doc(hidden)]
    #[inline]
    fn load_from(place: Place<'_>) -> Self {
        let mut value = zeroed::<Self>();
        place.load_bytes(bytes_of_mut(slice::from_mut(&mut value)));
        value
    }

    #[doc(hidden)]
    #[inline]
    fn store_to(place: Place<'_>, value: &Self) {
        place.store_bytes(bytes_of(slice::from_ref(value)));
    }
}

/// A handle of one value in shared memory: an address with a type, as cheap to copy as two pointers.
///
/// Of a struct, the fields are reached by the accessors that [`#[dsm::shared]`](macro@crate::shared) makes;
/// the handle dereferences to the type that has them. A handle is good for as long as the session is borrowed.
#[repr(transparent)]
pub struct Shared<'s, T> {
    place: Place<'s>,
    _type: PhantomData<T>,
}

impl<'s, T: SharedType> Shared<'s, T> {
    /// The handle of the `T` at `place`.
    ///
    /// # Safety
    ///
    /// `place` must be aligned for `T`, and `size_of::<T>()` bytes from it must be mapped for as long as `'s`.
    #[inline]
    pub(crate) unsafe fn new(place: Place<'s>) -> Self {
        const { assert!(size_of::<T>() > 0, "what is shared needs at least one byte") }
        Self { place, _type: PhantomData }
    }

    /// Where the value is.
    #[inline]
    pub(crate) fn place(self) -> Place<'s> {
        self.place
    }

    /// Copies the value out.
    ///
    /// Every aligned word of 8 bytes in it is one that somebody stored, but the words may come from different
    /// moments: what is wider than a word is not a consistent snapshot unless a semaphore keeps writers away.
    #[inline]
    #[must_use]
    pub fn load(self) -> T {
        T::load_from(self.place)
    }

    /// Copies `value` in.
    ///
    /// No aligned word of 8 bytes in it is ever seen torn, but what is wider may be seen half stored.
    #[inline]
    pub fn store(self, value: &T) {
        T::store_to(self.place, value);
    }

    /// A pointer to the value in the view of this process. Loads through it are native; plain stores through it
    /// are captured where they trap.
    ///
    /// System calls that store through it fail with `EFAULT` (`read(2)`, `recv(2)`): see [`dsm::io`](crate::io).
    ///
    /// Do not make a reference out of it: `&T` and `&mut T` promise that nobody else changes the value, and
    /// another process may.
    #[inline]
    #[must_use]
    pub fn as_ptr(self) -> *mut T {
        self.place.as_ptr().cast()
    }

    /// Whether both are handles of the same place. (What is in them is compared by `a.load() == b.load()`.)
    #[inline]
    #[must_use]
    pub fn ptr_eq(this: Self, other: Shared<'_, T>) -> bool {
        this.as_ptr() == other.as_ptr()
    }

    /// The `F` that starts `OFFSET` bytes into this `T`. Whether there is room for one is checked by the compiler.
    #[inline]
    pub(super) fn part<F: SharedType, const OFFSET: usize>(self) -> Shared<'s, F> {
        const {
            assert!(OFFSET <= size_of::<T>() && size_of::<F>() <= size_of::<T>() - OFFSET);
            assert!(OFFSET.is_multiple_of(align_of::<F>()) && align_of::<F>() <= align_of::<T>());
        }
        // SAFETY: the part lies inside the `T`, which is mapped for `'s`, and is aligned, by the assertions above
        // (`T` itself is aligned). Every pattern of bytes is an `F`, so it does not matter what `T` calls them.
        unsafe { Shared::new(self.place.at(OFFSET)) }
    }
}

impl<T> Clone for Shared<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

impl<'s, T: SharedType> Deref for Shared<'s, T> {
    type Target = T::Fields<'s>;

    #[inline]
    fn deref(&self) -> &T::Fields<'s> {
        const {
            assert!(size_of::<T::Fields<'s>>() == size_of::<Self>());
            assert!(align_of::<T::Fields<'s>>() == align_of::<Self>());
        }
        let fields = std::ptr::from_ref(self).cast::<T::Fields<'s>>();
        // SAFETY: `Fields` is a transparent wrapper of this very type (contract of `SharedType`), so the pointer
        // is to a valid one, and it is borrowed no longer than `self` is.
        unsafe { &*fields }
    }
}

/// Shows the type and the address, not the value: that would have to be loaded.
impl<T: SharedType> fmt::Debug for Shared<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared<{}>({:p})", T::LAYOUT, self.as_ptr())
    }
}

/// What the handle of a type without fields dereferences to: nothing of interest.
#[repr(transparent)]
pub struct Unstructured<'s, T>(Shared<'s, T>);

impl<T> Clone for Unstructured<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Unstructured<'_, T> {}

impl<T: SharedType> fmt::Debug for Unstructured<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unstructured").field(&self.0).finish()
    }
}

/// A value whose bytes are all zero.
pub(crate) fn zeroed<T: SharedType>() -> T {
    // SAFETY: any pattern of bytes is a valid `T` (contract of `SharedType`), and so all zeros.
    unsafe { MaybeUninit::<T>::zeroed().assume_init() }
}

/// The values as bytes.
pub(crate) fn bytes_of<T: SharedType>(values: &[T]) -> &[u8] {
    // SAFETY: the bytes are those of `values`, borrowed as long, and all initialised, for `T` has no padding
    // (contract of `SharedType`).
    unsafe { slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The values as bytes that can be overwritten.
pub(crate) fn bytes_of_mut<T: SharedType>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes_of`; and whatever is written makes a valid `T`, for any pattern of bytes does.
    unsafe { slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
