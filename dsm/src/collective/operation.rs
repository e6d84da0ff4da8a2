//! How values are combined by a reduction.

use crate::typed::Scalar;

/// What a reduction combines two values with: [`Sum`], [`Min`], [`Max`], or a closure `|a, b| ...`.
///
/// It is applied in the order of ranks, and so need not be commutative; all ranks must give the same.
pub trait Operation<T> {
    /// The combination of two values, that of the lower rank first.
    fn combine(&self, lower: T, higher: T) -> T;

    /// Tells operations apart, as far as that can be seen.
    #[doc(hidden)]
    fn code(&self) -> u8 {
        0
    }
}

impl<T, F: Fn(T, T) -> T> Operation<T> for F {
    fn combine(&self, lower: T, higher: T) -> T {
        self(lower, higher)
    }
}

/// Adds; integers wrap around.
#[derive(Clone, Copy, Debug)]
pub struct Sum;

/// The least; a NaN only where all are.
#[derive(Clone, Copy, Debug)]
pub struct Min;

/// The greatest; a NaN only where all are.
#[derive(Clone, Copy, Debug)]
pub struct Max;

/// Names of what [`Operation::code`] tells apart.
pub(super) const NAMES: [&str; 4] = ["a closure", "Sum", "Min", "Max"];

/// A number that [`Sum`], [`Min`] and [`Max`] can combine: the integers and floats.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be added or compared by a reduction",
    note = "give a closure that combines two of them: `|a, b| ...`"
)]
pub trait Number: Scalar {
    #[doc(hidden)]
    fn plus(self, other: Self) -> Self;
    #[doc(hidden)]
    fn least(self, other: Self) -> Self;
    #[doc(hidden)]
    fn greatest(self, other: Self) -> Self;
}

macro_rules! number {
    ($plus:ident: $($number:ident)*) => {$(
        impl Number for $number {
            fn plus(self, other: Self) -> Self {
                number!(@$plus self other)
            }

            fn least(self, other: Self) -> Self {
                self.min(other)
            }

            fn greatest(self, other: Self) -> Self {
                self.max(other)
            }
        }
    )*};
    (@wrapping $one:ident $other:ident) => { $one.wrapping_add($other) };
    (@plain $one:ident $other:ident) => { $one + $other };
}

number!(wrapping: u8 u16 u32 u64 u128 i8 i16 i32 i64 i128);
number!(plain: f32 f64);

macro_rules! operation {
    ($($name:ident $code:literal $method:ident;)*) => {$(
        impl<T: Number> Operation<T> for $name {
            fn combine(&self, lower: T, higher: T) -> T {
                lower.$method(higher)
            }

            fn code(&self) -> u8 {
                $code
            }
        }
    )*};
}

operation! {
    Sum 1 plus;
    Min 2 least;
    Max 3 greatest;
}
