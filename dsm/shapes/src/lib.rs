//! Shared structs at random (see `build.rs`), and what they must behave like: for a property test of `dsm`.
//!
//! A [`Model`] is a shared type together with a private value that it must behave like. An operation does the same with
//! both. Those of structs use the accessors that the attribute makes; the others are here.
#![allow(missing_docs, reason = "for tests alone")]

mod fields;
mod kinds;
mod slices;

pub use slices::{any_slice, copied_slice, plain_slice, read_slice};

use dsm::prelude::*;
use dsm::typed::Plain;
use std::fmt::Debug;

/// The seed by which the structs were made.
pub const SEED: &str = env!("DSM_SHAPES_SEED");

/// Structs at random.
#[allow(unused_variables, clippy::redundant_closure, reason = "not every struct needs everything")]
pub mod shapes {
    use crate::{Context, Model, Random};
    use dsm::prelude::*;

    include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
}

/// Random numbers (xorshift).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() >> 16) as usize % limit
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What values depend on: where pointers may lead to. The targets hold their numbers.
#[derive(Clone, Copy, Debug)]
pub struct Context<'s> {
    pub targets: Slice<'s, u64>,
}

/// How many targets there are.
pub const TARGETS: usize = 16;

/// A shared type, and what it must behave like.
pub trait Model: SharedType {
    type Value: Clone + Debug + PartialEq + Send;

    fn random(random: &mut Random) -> Self::Value;

    /// The value, by what can also store.
    fn read(at: Shared<'_, Self>, context: &Context<'_>) -> Self::Value;

    /// The value, by what can only read.
    fn look(at: ReadOnly<'_, Self>, context: &Context<'_>) -> Self::Value;

    /// Changes `native`, but for what has a protocol of its own.
    fn put(native: &mut Self, value: &Self::Value, context: &Context<'_>);

    /// Makes `value` what `native` is, but for what has a protocol of its own.
    fn take(native: &mut Self, value: &mut Self::Value, context: &Context<'_>);

    /// Does something with `at`, and the same with `model`, which has been the same so far.
    fn operate(at: Shared<'_, Self>, model: &mut Self::Value, random: &mut Random, context: &Context<'_>);

    /// Does something with several at once.
    fn bulk(slice: Slice<'_, Self>, model: &mut [Self::Value], random: &mut Random, context: &Context<'_>) {
        any_slice(slice, model, random, context);
    }
}

/// A value to store at `at`, made of what is there.
pub fn native<T: Model + Copy>(at: Shared<'_, T>, value: &T::Value, context: &Context<'_>) -> T {
    let mut native = at.try_load().unwrap();
    T::put(&mut native, value, context);
    native
}

/// Asserts that `found` is `model`.
fn same<T: Model>(mut found: T, model: &T::Value, context: &Context<'_>) {
    let mut value = model.clone();
    T::take(&mut found, &mut value, context);
    assert_eq!(value, *model);
}

/// Changes the whole in a hole.
pub fn value_in_a_hole<T: Model>(at: Shared<'_, T>, model: &mut T::Value, random: &mut Random, context: &Context<'_>) {
    let mut hole = at.hole().unwrap();
    let mut found = model.clone();
    T::take(&mut hole, &mut found, context);
    assert_eq!(found, *model);
    T::put(&mut hole, &T::random(random), context);
    match random.below(4) {
        0 => hole.discard(),
        1 => {
            T::take(&mut hole, model, context);
            hole.fill().unwrap();
        }
        _ => {
            T::take(&mut hole, model, context);
            drop(hole);
        }
    }
}

/// Loads or stores the whole, which can be copied.
pub fn copied_value<T: Model + Copy>(
    at: Shared<'_, T>,
    model: &mut T::Value,
    random: &mut Random,
    context: &Context<'_>,
) {
    let value = T::random(random);
    match random.below(4) {
        0 => same(at.try_load().unwrap(), model, context),
        1 => {
            at.store(&native(at, &value, context));
            *model = value;
        }
        2 => {
            let native = native(at, &value, context);
            // SAFETY: a plain store through the view's pointer, which traps; the place is aligned and mapped.
            unsafe { at.as_ptr().write_volatile(native) };
            *model = value;
        }
        _ => value_in_a_hole(at, model, random, context),
    }
}

/// Loads or stores the whole, of which any bytes make one.
pub fn plain_value<T: Model + Plain>(
    at: Shared<'_, T>,
    model: &mut T::Value,
    random: &mut Random,
    context: &Context<'_>,
) {
    match random.below(4) {
        0 => same(at.load(), model, context),
        1 => {
            let value = T::random(random);
            at.update(|mut native| {
                T::put(&mut native, &value, context);
                native
            });
            *model = value;
        }
        _ => copied_value(at, model, random, context),
    }
}
