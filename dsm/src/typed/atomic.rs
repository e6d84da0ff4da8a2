//! Atomic operations, at one place in the session's total order.

use super::scalar::Integer;
use super::shared::Shared;
use dsm_core::op::{AtomicOp, Rmw};
use std::fmt;
use std::sync::atomic::Ordering;

/// An integer in shared memory with the operations of [`std::sync::atomic`], atomic across all hosts.
///
/// The methods take an [`Ordering`] so that code reads, and can be moved, as it is known. Whatever ordering is
/// asked for, every operation is sequentially consistent: it has one place in the session's total order, and
/// it returns only when everything before that place is visible here. A weaker one would cost the same.
#[repr(transparent)]
pub struct Atomic<'s, T: Integer>(Shared<'s, T>);

impl<'s, T: Integer> Atomic<'s, T> {
    #[inline]
    pub(super) fn new(integer: Shared<'s, T>) -> Self {
        Self(integer)
    }

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
    #[inline]
    pub fn store(self, value: T, order: Ordering) {
        self.swap(value, order);
    }

    /// Stores `value` and returns the value before.
    #[inline]
    pub fn swap(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Swap, value)
    }

    /// Adds, wrapping around, and returns the value before.
    #[inline]
    pub fn fetch_add(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Add, value)
    }

    /// Subtracts, wrapping around, and returns the value before.
    #[inline]
    pub fn fetch_sub(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Sub, value)
    }

    /// Stores the bitwise "and" and returns the value before.
    #[inline]
    pub fn fetch_and(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::And, value)
    }

    /// Stores `!(old & value)` and returns the value before.
    #[inline]
    pub fn fetch_nand(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Nand, value)
    }

    /// Stores the bitwise "or" and returns the value before.
    #[inline]
    pub fn fetch_or(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Or, value)
    }

    /// Stores the bitwise "exclusive or" and returns the value before.
    #[inline]
    pub fn fetch_xor(self, value: T, _order: Ordering) -> T {
        self.rmw(Rmw::Xor, value)
    }

    /// Stores the larger of the two and returns the value before.
    #[inline]
    pub fn fetch_max(self, value: T, _order: Ordering) -> T {
        self.rmw(if T::SIGNED { Rmw::MaxSigned } else { Rmw::MaxUnsigned }, value)
    }

    /// Stores the smaller of the two and returns the value before.
    #[inline]
    pub fn fetch_min(self, value: T, _order: Ordering) -> T {
        self.rmw(if T::SIGNED { Rmw::MinSigned } else { Rmw::MinUnsigned }, value)
    }

    /// Stores `new` if the value is `current`.
    ///
    /// # Errors
    ///
    /// The value, if it is another; nothing is stored then. In both cases what is returned is the value before.
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
