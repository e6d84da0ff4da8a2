//! [`SharedType`], what may live in shared memory, and [`Shared`], the handle of one such value.

use super::check::InvalidValue;
use super::layout::Layout;
use super::opaque::{begins_with, field_layout, is_opaque};
use super::read_only::ReadOnly;
use crate::place::Place;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::slice;

/// What may live in shared memory.
///
/// These types do: the integers `u8` to `u128` and `i8` to `i128`, the floats `f32` and `f64`, `bool`, `char`, the
/// atomics of [`std::sync::atomic`] (but for those of the machine's size), [`Text`](super::Text), [`List`](super::List),
/// [`Pointer`](super::Pointer), [`Versioned`](super::Versioned), the locks, semaphores and barriers of
/// [`field`](crate::field), arrays of all these, and structs and enums that are marked
/// [`#[dsm::shared]`](macro@crate::shared). Use the attribute; nothing is gained by implementing the trait by hand.
///
/// # Safety
///
/// Any process of the session, on any host, may store any bytes at any time. Therefore:
/// - `LAYOUT` describes the type as it is: size, alignment, and every field with its offset,
/// - any `size_of::<Self>()` bytes that [`Layout::check`] has let pass (and changed, where it does) are a valid value,
/// - there are no padding bytes,
/// - there is nothing in it that means something only in one process, such as a pointer,
/// - it has no destructor, and if it is `Copy`, no interior mutability,
/// - `Fields<'s>` and `ReadFields<'s>` are `#[repr(transparent)]` wrappers of [`Shared<'s, Self>`](Shared) or
///   [`ReadOnly<'s, Self>`](ReadOnly).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared",
    label = "not a type that may live in shared memory",
    note = "what may be shared: `u8` to `u128`, `i8` to `i128`, `f32`, `f64`, `bool`, `char`, atomics, `dsm::Text`, \
     `dsm::List`, `dsm::Pointer`, `dsm::Versioned`, what is in `dsm::field`, arrays of them, and structs and enums marked \
     `#[dsm::shared]`",
    note = "in place of `usize` use `u64`; of `String` and `Vec`, `dsm::Text` and `dsm::List`; of a reference or `Box`, \
     `dsm::Pointer`; of std's `Mutex` and `RwLock`, those of `dsm::field`"
)]
pub unsafe trait SharedType: Sized + Send + Sync + 'static {
    /// How its bytes are laid out.
    const LAYOUT: &'static Layout;

    /// Holds the accessors of the fields; [`Shared`] dereferences to it.
    type Fields<'s>: Copy;

    /// Holds the accessors that only read; [`ReadOnly`] dereferences to it.
    type ReadFields<'s>: Copy;

    /// What the getter of a field of this type gives: the value of a scalar, the handle of anything larger.
    #[doc(hidden)]
    type Getter<'s>;

    /// What the getter gives where only reading is allowed.
    #[doc(hidden)]
    type ReadGetter<'s>;

    /// Field number `INDEX` of `S`, which is of this type. Safe for any number, because one that does not fit does not
    /// compile, nor one that is not of this type, or lies behind a lock.
    #[doc(hidden)]
    #[inline]
    fn field_of<S: SharedType, const INDEX: usize>(of: Shared<'_, S>) -> Shared<'_, Self> {
        const { assert_open::<S, Self, INDEX>() }
        of.part::<Self, INDEX>()
    }

    /// The same, to be read only.
    #[doc(hidden)]
    #[inline]
    fn read_field_of<S: SharedType, const INDEX: usize>(of: ReadOnly<'_, S>) -> ReadOnly<'_, Self> {
        const { assert_open::<S, Self, INDEX>() }
        ReadOnly::part::<Self, INDEX>(of)
    }

    #[doc(hidden)]
    fn get_field(field: Shared<'_, Self>) -> Self::Getter<'_>;

    #[doc(hidden)]
    fn read_field(field: ReadOnly<'_, Self>) -> Self::ReadGetter<'_>;

    #[doc(hidden)]
    #[inline]
    fn load_from(place: Place<'_>) -> Result<Self, InvalidValue> {
        let mut value = MaybeUninit::<Self>::zeroed();
        // SAFETY: the bytes of `value`, which nobody else has, and all initialised: they are zeros.
        let bytes = unsafe { slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<Self>()) };
        load::<Self>(place, bytes);
        if const { !Self::LAYOUT.plain } {
            Self::LAYOUT.check(bytes)?;
        }
        // SAFETY: bytes that have passed the check, if one is needed, make a value (contract of `SharedType`).
        Ok(unsafe { value.assume_init() })
    }

    #[doc(hidden)]
    #[inline]
    fn store_to(place: Place<'_>, value: &Self)
    where
        Self: Copy,
    {
        store::<Self>(place, bytes_of(slice::from_ref(value)));
    }
}

/// A shared type of which any bytes make a value (of a `bool`, any byte but zero is `true`): it can be loaded without
/// a check that may fail.
///
/// # Safety
///
/// [`Layout::check`] never refuses bytes of this type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be loaded just like that",
    label = "not all bytes are a value of this type, or it cannot be copied",
    note = "another process may have stored any bytes; of a type with enums or `char`s in it, load a copy by `try_load()`, an element by `try_get(index)`",
    note = "a type with atomics or synchronisation objects in it cannot be copied: load its fields, or open a `hole()`"
)]
pub unsafe trait Plain: SharedType + Copy {}

/// A shared type that can be stored as a whole, by the setter of a field.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be stored as a whole",
    label = "not a type that can be copied in",
    note = "a type with atomics or synchronisation objects in it cannot be copied: set its fields, or open a `hole()`"
)]
pub trait Assign: SharedType {
    /// What the setter of a field of this type takes: a scalar by value, anything larger by reference.
    type Setter<'a>;

    /// Stores `value`.
    #[doc(hidden)]
    fn set_field(field: Shared<'_, Self>, value: Self::Setter<'_>);
}

/// A handle of one value in shared memory: an address with a type, as cheap to copy as two pointers.
///
/// Of a struct, the fields are reached by the accessors that [`#[dsm::shared]`](macro@crate::shared) makes;
/// the handle dereferences to the type that has them. A handle is good for as long as the session is borrowed.
///
/// ```
/// #[dsm::shared]
/// #[derive(Debug, PartialEq)]
/// pub struct Board {
///     pub turn: u32,
///     pub phase: u32,
/// }
///
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("../sync/example.txt")]
/// let board = session.open::<Board>("board")?;
/// board.set_turn(7); // on its way to all hosts
/// board.update_turn(|turn| turn + 1);
/// assert_eq!(board.turn(), 8); // a load from local memory
/// board.store(&Board { turn: 1, phase: 2 }); // all of it
/// assert_eq!(board.load(), Board { turn: 1, phase: 2 });
/// let reader = board.read_only(); // has no setters
/// std::thread::scope(|scope| {
///     scope.spawn(move || assert_eq!(reader.phase(), 2));
/// });
/// # Ok(())
/// # }
/// ```
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
        const {
            assert!(size_of::<T>() > 0, "what is shared needs at least one byte");
            assert!(size_of::<T>() == T::LAYOUT.size, "the layout is that of another type");
        }
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
    pub fn load(self) -> T
    where
        T: Plain,
    {
        T::load_from(self.place).unwrap_or_else(|invalid| never(&invalid))
    }

    /// Copies the value out, as [`load`](Self::load) does, if the bytes make one: of a type with enums or `char`s in it
    /// not all do.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if another process has stored bytes that make no value.
    #[inline]
    pub fn try_load(self) -> Result<T, InvalidValue>
    where
        T: Copy,
    {
        T::load_from(self.place)
    }

    /// Copies `value` in.
    ///
    /// No aligned word of 8 bytes in it is ever seen torn, but what is wider may be seen half stored.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn store(self, value: &T)
    where
        T: Copy,
    {
        T::store_to(self.place, value);
    }

    /// Loads the value and stores what `change` makes of it. Not atomic: what somebody else stores in between is
    /// overwritten, unless a semaphore keeps them away. For integers see [`Atomic::fetch_update`](super::Atomic::fetch_update).
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn update(self, change: impl FnOnce(T) -> T)
    where
        T: Plain,
    {
        self.store(&change(self.load()));
    }

    /// The same value, to be read only.
    #[inline]
    #[must_use]
    pub fn read_only(self) -> ReadOnly<'s, T> {
        ReadOnly::new(self)
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

    /// Field number `INDEX`, which is an `F`. Whether there is room for one is checked by the compiler; whether whoever
    /// asks may have it is not.
    #[inline]
    pub(crate) fn part<F: SharedType, const INDEX: usize>(self) -> Shared<'s, F> {
        let offset = const {
            let offset = T::LAYOUT.offset_of(INDEX);
            assert!(offset <= size_of::<T>() && size_of::<F>() <= size_of::<T>() - offset);
            assert!(offset.is_multiple_of(align_of::<F>()) && align_of::<F>() <= align_of::<T>());
            offset
        };
        // SAFETY: the part lies inside the `T`, which is mapped for `'s`, and is aligned, by the assertions above
        // (`T` itself is aligned). What is loaded from it is checked as an `F`, whatever `T` calls it.
        unsafe { Shared::new(self.place.at(offset)) }
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

/// In an implementation of [`SharedType`]: the getter of a field gives the handle of the value, whose methods are its own
/// and no accessors of fields.
macro_rules! its_own_handle {
    () => {
        type Fields<'s> = $crate::typed::Unstructured<'s, Self>;
        type ReadFields<'s> = $crate::typed::Unstructured<'s, Self>;
        type Getter<'s> = $crate::typed::Shared<'s, Self>;
        type ReadGetter<'s> = $crate::typed::ReadOnly<'s, Self>;

        #[inline]
        fn get_field(field: $crate::typed::Shared<'_, Self>) -> $crate::typed::Shared<'_, Self> {
            field
        }

        #[inline]
        fn read_field(field: $crate::typed::ReadOnly<'_, Self>) -> $crate::typed::ReadOnly<'_, Self> {
            field
        }
    };
}
pub(super) use its_own_handle;

/// Fails the build if field number `INDEX` of `S` does not begin with a `T`, or may not be reached as a field.
const fn assert_open<S: SharedType, T: SharedType, const INDEX: usize>() {
    assert!(!is_opaque(S::LAYOUT), "what is under a lock, or published, is reached by the methods of its handle alone");
    assert!(begins_with(field_layout(S::LAYOUT, INDEX), T::LAYOUT.fingerprint), "the field is of another type");
}

/// Loads the bytes of a `T`: with one instruction if it is a word.
#[inline]
fn load<T>(place: Place<'_>, bytes: &mut [u8]) {
    match (size_of::<T>(), align_of::<T>()) {
        (1, 1) => bytes.copy_from_slice(&place.load_word::<1>()),
        (2, 2) => bytes.copy_from_slice(&place.load_word::<2>()),
        (4, 4) => bytes.copy_from_slice(&place.load_word::<4>()),
        (8, 8) => bytes.copy_from_slice(&place.load_word::<8>()),
        _ => place.load_bytes(bytes),
    }
}

/// Stores the bytes of a `T`: with one instruction if it is a word.
#[inline]
fn store<T>(place: Place<'_>, bytes: &[u8]) {
    /// The bytes as a word.
    fn word<const N: usize>(bytes: &[u8]) -> [u8; N] {
        let mut word = [0; N];
        word.copy_from_slice(bytes);
        word
    }
    match (size_of::<T>(), align_of::<T>()) {
        (1, 1) => place.store_word::<1>(word(bytes)),
        (2, 2) => place.store_word::<2>(word(bytes)),
        (4, 4) => place.store_word::<4>(word(bytes)),
        (8, 8) => place.store_word::<8>(word(bytes)),
        _ => place.store_bytes(bytes),
    }
}

/// What cannot happen: a plain type whose layout refuses bytes.
#[cold]
#[inline(never)]
pub(super) fn never(invalid: &InvalidValue) -> ! {
    unreachable!("the type is plain, and yet {invalid}")
}

/// A value whose bytes are all zero.
pub(crate) fn zeroed<T: Plain>() -> T {
    // SAFETY: any bytes that pass the check make a `T` (contract of `SharedType`), all bytes of a plain type do
    // (contract of `Plain`), and the check leaves zeros as they are.
    unsafe { MaybeUninit::<T>::zeroed().assume_init() }
}

/// The values as bytes.
pub(crate) fn bytes_of<T: SharedType + Copy>(values: &[T]) -> &[u8] {
    // SAFETY: the bytes are those of `values`, borrowed as long; all initialised, for `T` has no padding, and nobody
    // changes them, for what is `Copy` has no interior mutability (contract of `SharedType`).
    unsafe { slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Has `load` overwrite the bytes of the values, and makes values of what it wrote.
pub(crate) fn overwrite<T: Plain>(values: &mut [T], load: impl FnOnce(&mut [u8])) {
    try_overwrite(values, load).unwrap_or_else(|invalid| never(&invalid));
}

/// As [`overwrite`], where what was loaded need not be values: then they stay as they are. (Part of a value may be loaded,
/// if it begins and ends between fields: a value is checked field by field.)
pub(crate) fn try_overwrite<T: SharedType + Copy>(
    values: &mut [T],
    load: impl FnOnce(&mut [u8]),
) -> Result<(), InvalidValue> {
    let len = size_of_val(values);
    if const { T::LAYOUT.plain } {
        // SAFETY: as in `bytes_of`, borrowed mutably; any bytes make values of this type.
        load(unsafe { slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), len) });
        return Ok(());
    }
    let mut bytes = bytes_of(values).to_vec();
    load(&mut bytes);
    T::LAYOUT.check(&mut bytes)?;
    // SAFETY: as many bytes, of a buffer of their own, and they have passed the check that makes values of them.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), values.as_mut_ptr().cast::<u8>(), len) };
    Ok(())
}

/// Bytes that come part by part, and are to be a value. At first they are zeros.
pub(crate) struct Received<T>(MaybeUninit<T>);

impl<T> Default for Received<T> {
    fn default() -> Self {
        Self(MaybeUninit::zeroed())
    }
}

impl<T: SharedType> Received<T> {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the bytes of the value, borrowed as long; all initialised, by zeros if nothing else.
        unsafe { slice::from_raw_parts_mut(self.0.as_mut_ptr().cast::<u8>(), size_of::<T>()) }
    }

    /// The value, if they are one.
    pub(crate) fn check(mut self) -> Result<T, InvalidValue> {
        T::LAYOUT.check(self.bytes())?;
        // SAFETY: bytes that have passed the check make a value (contract of `SharedType`).
        Ok(unsafe { self.0.assume_init() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field;
    use crate::typed::{List, Versioned};

    #[test]
    fn fields_of_what_is_in_the_open() {
        assert_open::<List<u16, 5>, [u16; 5], 1>();
        assert_open::<field::Semaphore<2>, u32, 0>();
    }

    #[test]
    #[should_panic(expected = "reached by the methods of its handle alone")]
    fn no_field_of_a_lock() {
        assert_open::<field::Mutex<u64>, u64, 0>();
    }

    #[test]
    #[should_panic(expected = "reached by the methods of its handle alone")]
    fn no_field_of_what_is_published() {
        assert_open::<Versioned<u64>, u64, 0>();
    }

    #[test]
    fn what_is_no_value_overwrites_none() {
        let mut values = ['a', 'b'];
        let invalid = try_overwrite(&mut values, |bytes| bytes[..8].copy_from_slice(&[65, 0, 0, 0, 0, 0xd8, 0, 0]));
        assert_eq!(invalid.map_err(|invalid| invalid.bits), Err(0xd800));
        assert_eq!(values, ['a', 'b']);
        try_overwrite(&mut values, |bytes| bytes[4] = b'c').unwrap();
        assert_eq!(values, ['a', 'c']);
        let mut received = Received::<char>::default();
        received.bytes()[1] = 0xd8;
        assert!(received.check().is_err());
        assert_eq!(Received::<char>::default().check(), Ok('\0'));
        let mut received = Received::<bool>::default();
        received.bytes()[0] = 7;
        assert_eq!(received.check(), Ok(true));
    }

    #[test]
    #[should_panic(expected = "the field is of another type")]
    fn no_field_by_another_type() {
        assert_open::<List<field::Mutex<u16>, 5>, [u16; 5], 1>();
    }
}
