//! Atomic operations, at one place in the session's total order.

use super::layout::Layout;
use super::read_only::ReadOnly;
use super::scalar::{Integer, sealed::Sealed};
use super::shared::{Shared, SharedType, Unstructured};
use dsm_core::op::{AtomicOp, Rmw};
use std::fmt;
use std::sync::atomic::{self, Ordering};

/// What has atomic operations across hosts: the integers, and the atomics of [`std::sync::atomic`].
pub trait AtomicWord: SharedType + Sealed {
    /// The integer that it holds.
    type Word: Integer;
}

impl<'s, T: AtomicWord> Shared<'s, T> {
    /// The same integer, for atomic operations.
    #[inline]
    #[must_use]
    pub fn atomic(self) -> Atomic<'s, T::Word> {
        const {
            assert!(size_of::<T>() == size_of::<T::Word>());
            assert!(align_of::<T>() >= align_of::<T::Word>());
        }
        // SAFETY: the integer lies where the `T` does, by the assertions above: mapped for `'s`, and aligned.
        Atomic(unsafe { Shared::new(self.place()) })
    }
}

/// An integer in shared memory with the operations of [`std::sync::atomic`], atomic across all hosts.
///
/// The methods take an [`Ordering`] so that code reads, and can be moved, as it is known. Whatever ordering is
/// asked for, every operation is sequentially consistent: it has one place in the session's total order, and
/// it returns only when everything before that place is visible here. A weaker one would cost the same.
///
/// ```
/// use dsm::prelude::*;
///
/// #[dsm::shared]
/// pub struct Work {
///     pub next: u64,
/// }
///
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("../sync/example.txt")]
/// let work = session.open::<Work>("work")?;
/// assert_eq!(work.next_atomic().fetch_add(2, SeqCst), 0); // the value before
/// assert_eq!(work.next_atomic().compare_exchange(2, 5, SeqCst, SeqCst), Ok(2));
/// assert_eq!(work.next_atomic().fetch_max(3, SeqCst), 5);
/// # Ok(())
/// # }
/// ```
#[repr(transparent)]
pub struct Atomic<'s, T: Integer>(Shared<'s, T>);

impl<'s, T: Integer> Atomic<'s, T> {
    /// The handle of the integer itself, for plain loads and stores.
    #[inline]
    #[must_use]
    pub fn shared(self) -> Shared<'s, T> {
        self.0
    }

    /// Loads the value. It does not leave the host.
    #[inline]
    #[must_use]
    pub fn load(self, _order: Ordering) -> T {
        self.0.load()
    }

    /// Stores `value`, and returns when the store and everything before it in the total order is visible here.
    /// (The plain setter does not wait.)
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn store(self, value: T, order: Ordering) {
        self.swap(value, order);
    }

    /// Stores `value` and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn swap(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Swap, value)
    }

    /// Adds, wrapping around, and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_add(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Add, value)
    }

    /// Subtracts, wrapping around, and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_sub(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Sub, value)
    }

    /// Stores the bitwise "and" and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_and(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::And, value)
    }

    /// Stores `!(old & value)` and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_nand(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Nand, value)
    }

    /// Stores the bitwise "or" and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_or(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Or, value)
    }

    /// Stores the bitwise "exclusive or" and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_xor(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Xor, value)
    }

    /// Stores the larger of the two and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_max(self, value: T, _order: Ordering) -> T {
        self.rmw(if T::SIGNED { Rmw::MaxSigned } else { Rmw::MaxUnsigned }, value)
    }

    /// Stores the smaller of the two and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_min(self, value: T, _order: Ordering) -> T {
        self.rmw(if T::SIGNED { Rmw::MinSigned } else { Rmw::MinUnsigned }, value)
    }

    /// Stores `new` if the value is `current`.
    ///
    /// # Errors
    ///
    /// The value, if it is another; nothing is stored then. In both cases what is returned is the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn compare_exchange(self, current: T, new: T, _success: Ordering, _failure: Ordering) -> Result<T, T> {
        let expected = current.to_bits();
        let old = self.0.place().rmw(AtomicOp::compare_exchange(width::<T>(), expected, new.to_bits()));
        if old == expected { Ok(current) } else { Err(T::from_bits(old)) }
    }

    /// The same as [`compare_exchange`](Self::compare_exchange): it never fails without a reason.
    ///
    /// # Errors
    ///
    /// The value, if it is another.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn compare_exchange_weak(self, current: T, new: T, success: Ordering, failure: Ordering) -> Result<T, T> {
        self.compare_exchange(current, new, success, failure)
    }

    /// Stores what `update` makes of the value, and asks it again whenever another one came in between.
    /// Returns the value before.
    ///
    /// # Errors
    ///
    /// The value for which `update` returned `None`; nothing is stored then.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_update(
        self,
        set_order: Ordering,
        fetch_order: Ordering,
        mut update: impl FnMut(T) -> Option<T>,
    ) -> Result<T, T> {
        let mut old = self.load(fetch_order);
        while let Some(new) = update(old) {
            match self.compare_exchange_weak(old, new, set_order, fetch_order) {
                Ok(old) => return Ok(old),
                Err(now) => old = now,
            }
        }
        Err(old)
    }

    /// A pointer to the integer in the view of this process. An atomic of [`std::sync::atomic`] that is made of
    /// it (`AtomicU32::from_ptr`) works across hosts too, by the trap door.
    #[inline]
    #[must_use]
    pub fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }

    #[inline]
    fn rmw(self, function: Rmw, operand: T) -> T {
        T::from_bits(self.0.place().rmw(AtomicOp::new(function, width::<T>(), operand.to_bits())))
    }
}

const fn width<T: Integer>() -> u8 {
    const { assert!(size_of::<T>() <= 16) }
    size_of::<T>() as u8
}

impl<T: Integer> Clone for Atomic<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Integer> Copy for Atomic<'_, T> {}

/// Shows the type and the address, not the value.
impl<T: Integer> fmt::Debug for Atomic<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Atomic<{}>({:p})", T::LAYOUT, self.as_ptr())
    }
}

macro_rules! std_atomic {
    ($($name:ident: $word:ident;)*) => {$(
        impl Sealed for atomic::$name {}

        // SAFETY: any bytes are a value, as of the integer that it holds; it has that one's size and alignment, and so its
        // layout: the same bytes may be a plain integer in another program. It is not `Copy`. `Unstructured` is a
        // transparent wrapper of the handle.
        unsafe impl SharedType for atomic::$name {
            const LAYOUT: &'static Layout = {
                assert!(size_of::<Self>() == size_of::<$word>() && align_of::<Self>() == align_of::<$word>());
                <$word>::LAYOUT
            };
            type Fields<'s> = Unstructured<'s, Self>;
            type ReadFields<'s> = Unstructured<'s, Self>;
            type Getter<'s> = Atomic<'s, $word>;
            type ReadGetter<'s> = $word;

            #[inline]
            fn get_field(field: Shared<'_, Self>) -> Atomic<'_, $word> {
                field.atomic()
            }

            #[inline]
            fn read_field(field: ReadOnly<'_, Self>) -> $word {
                field.shared().atomic().load(Ordering::SeqCst)
            }
        }

        impl AtomicWord for atomic::$name {
            type Word = $word;
        }

        impl<'s> Shared<'s, atomic::$name> {
            /// The atomic of std itself, in the view of this process. Its operations work across hosts, by the trap
            /// door: for those of [`Shared::atomic`] no trap is needed.
            ///
            /// This is the one kind of reference to shared memory that there is: an atomic may be changed by others
            /// while it is borrowed. Its plain `store(_, Relaxed)` is a store like any other.
            ///
            /// What stores through it when the session has ended ends the process, as any plain store would then.
            #[inline]
            #[must_use]
            pub fn as_std(self) -> &'s atomic::$name {
                // SAFETY: mapped for `'s`, aligned, and any bytes are a value; nobody has an exclusive reference to it,
                // because none is ever made to shared memory. What stores to it through this reference is captured by
                // the trap door, so this is not memory that cannot be written (see the documentation of `typed`); all
                // others, of any process, store single words, as an atomic allows.
                unsafe { &*self.as_ptr() }
            }
        }
    )*};
}

std_atomic! {
    AtomicU8: u8;
    AtomicU16: u16;
    AtomicU32: u32;
    AtomicU64: u64;
    AtomicI8: i8;
    AtomicI16: i16;
    AtomicI32: i32;
    AtomicI64: i64;
}

/// A `bool` in shared memory with the operations of [`std::sync::atomic::AtomicBool`], atomic across all hosts.
///
/// Any byte but zero is `true`. The methods take an [`Ordering`] as those of [`Atomic`] do.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct AtomicFlag<'s>(Atomic<'s, u8>);

impl<'s> AtomicFlag<'s> {
    /// The byte that it is stored as.
    #[inline]
    pub(crate) fn byte(self) -> Shared<'s, u8> {
        self.0.shared()
    }

    /// Loads the value. It does not leave the host.
    #[inline]
    #[must_use]
    pub fn load(self, order: Ordering) -> bool {
        self.0.load(order) != 0
    }

    /// Stores `value`, and returns when the store and everything before it in the total order is visible here.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn store(self, value: bool, order: Ordering) {
        self.swap(value, order);
    }

    /// Stores `value` and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn swap(self, value: bool, order: Ordering) -> bool {
        self.0.swap(u8::from(value), order) != 0
    }

    /// Stores the logical "and" and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_and(self, value: bool, order: Ordering) -> bool {
        if value { self.keep(order) } else { self.swap(false, order) }
    }

    /// Stores the logical "or" and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_or(self, value: bool, order: Ordering) -> bool {
        if value { self.swap(true, order) } else { self.keep(order) }
    }

    /// Stores the logical "exclusive or" and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    #[inline]
    pub fn fetch_xor(self, value: bool, order: Ordering) -> bool {
        if value { self.fetch_not(order) } else { self.keep(order) }
    }

    /// Stores the opposite and returns the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    pub fn fetch_not(self, order: Ordering) -> bool {
        let mut old = self.0.load(order);
        loop {
            match self.0.compare_exchange(old, u8::from(old == 0), order, order) {
                Ok(old) => return old != 0,
                Err(now) => old = now,
            }
        }
    }

    /// Stores `new` if the value is `current`.
    ///
    /// # Errors
    ///
    /// The value, if it is another; nothing is stored then. In both cases what is returned is the value before.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    pub fn compare_exchange(
        self,
        current: bool,
        new: bool,
        success: Ordering,
        failure: Ordering,
    ) -> Result<bool, bool> {
        let mut expected = u8::from(current);
        loop {
            match self.0.compare_exchange(expected, u8::from(new), success, failure) {
                Ok(_) => return Ok(current),
                // Another byte that means the same.
                Err(now) if (now != 0) == current => expected = now,
                Err(now) => return Err(now != 0),
            }
        }
    }

    /// Stores what is there already, at its place in the total order.
    #[inline]
    fn keep(self, order: Ordering) -> bool {
        self.0.fetch_or(0, order) != 0
    }
}

// SAFETY: the layout is that of `bool`, whose check makes 0 or 1 of any byte, which is what an `AtomicBool` may hold. It
// is not `Copy`. `Unstructured` is a transparent wrapper of the handle.
unsafe impl SharedType for atomic::AtomicBool {
    const LAYOUT: &'static Layout = &Layout::bool();
    type Fields<'s> = Unstructured<'s, Self>;
    type ReadFields<'s> = Unstructured<'s, Self>;
    type Getter<'s> = AtomicFlag<'s>;
    type ReadGetter<'s> = bool;

    #[inline]
    fn get_field(field: Shared<'_, Self>) -> AtomicFlag<'_> {
        field.flag()
    }

    #[inline]
    fn read_field(field: ReadOnly<'_, Self>) -> bool {
        field.shared().flag().load(Ordering::SeqCst)
    }
}

impl<'s> Shared<'s, atomic::AtomicBool> {
    /// The same flag, for atomic operations. (There is no reference to the `AtomicBool` itself: another process may
    /// store a byte that is none.)
    #[inline]
    #[must_use]
    pub fn flag(self) -> AtomicFlag<'s> {
        // SAFETY: one byte, mapped for `'s`, and any byte is a `u8`.
        AtomicFlag(Atomic(unsafe { Shared::new(self.place()) }))
    }
}
