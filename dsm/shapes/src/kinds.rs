//! The kinds of fields that are no structs.

use crate::{Context, Model, Random, TARGETS, plain_slice, plain_value, value_in_a_hole};
use dsm::prelude::*;
use dsm::typed::Plain;
use dsm::{Integer, List, Pointer, Text, Versioned};
use std::fmt::Debug;
use std::sync::atomic;

/// What all types have that are values themselves.
macro_rules! own_value {
    ($random:ident => $value:expr) => {
        type Value = Self;

        fn random($random: &mut $crate::Random) -> Self {
            $value
        }

        fn put(native: &mut Self, value: &Self, _: &$crate::Context<'_>) {
            *native = *value;
        }

        fn take(native: &mut Self, value: &mut Self, _: &$crate::Context<'_>) {
            *value = *native;
        }
    };
}
pub(crate) use own_value;

fn integer<T: Model<Value = T> + Integer + Debug + PartialEq>(
    at: Shared<'_, T>,
    model: &mut T,
    random: &mut Random,
    all: [T; 3],
) {
    let [sum, xor, max] = all;
    let (new, old) = (T::random(random), *model);
    match random.below(8) {
        0 => assert_eq!((at.get(), at.atomic().load(SeqCst)), (old, old)),
        1 => {
            at.set(new);
            *model = new;
        }
        2 => {
            assert_eq!(at.atomic().swap(new, SeqCst), old);
            *model = new;
        }
        3 => {
            let expected = if random.below(2) == 0 { old } else { new };
            let result = at.atomic().compare_exchange(expected, new, SeqCst, SeqCst);
            assert_eq!(result, if expected == old { Ok(old) } else { Err(old) });
            *model = if expected == old { new } else { old };
        }
        4 => {
            assert_eq!(at.atomic().fetch_add(T::from_bits(3), SeqCst), old);
            *model = sum;
        }
        5 => {
            assert_eq!(at.atomic().fetch_xor(T::from_bits(0x55), SeqCst), old);
            assert_eq!(at.atomic().fetch_max(old, SeqCst), xor);
            *model = max;
        }
        6 => assert_eq!(at.wait_until(|value| value == old).unwrap(), old),
        _ => {
            at.store(&new);
            *model = new;
        }
    }
}

macro_rules! integers {
    ($($type:ident)*) => {$(
        impl Model for $type {
            own_value! { random => (u128::from(random.number()) << 64 | u128::from(random.number())) as $type }

            fn read(at: Shared<'_, Self>, _: &Context<'_>) -> Self {
                at.get()
            }

            fn look(at: ReadOnly<'_, Self>, _: &Context<'_>) -> Self {
                at.load()
            }

            fn operate(at: Shared<'_, Self>, model: &mut Self, random: &mut Random, context: &Context<'_>) {
                if random.below(4) == 0 {
                    return plain_value(at, model, random, context);
                }
                let xor = *model ^ 0x55;
                integer(at, model, random, [model.wrapping_add(3), xor, xor.max(*model)]);
            }

            fn bulk(slice: Slice<'_, Self>, model: &mut [Self], random: &mut Random, context: &Context<'_>) {
                plain_slice(slice, model, random, context);
            }
        }
    )*};
}

integers!(u8 i8 u16 i16 u32 i32 u64 i64 u128 i128);

macro_rules! words {
    ($($type:ty, $random:ident => $value:expr;)*) => {$(
        impl Model for $type {
            own_value! { $random => $value }

            fn read(at: Shared<'_, Self>, _: &Context<'_>) -> Self {
                at.get()
            }

            fn look(at: ReadOnly<'_, Self>, _: &Context<'_>) -> Self {
                at.load()
            }

            fn operate(at: Shared<'_, Self>, model: &mut Self, random: &mut Random, context: &Context<'_>) {
                let (new, old) = (Self::random(random), *model);
                match random.below(4) {
                    0 => {
                        assert_eq!(at.swap(new, SeqCst), old);
                        *model = new;
                    }
                    1 => {
                        let result = at.compare_exchange(new, old, SeqCst, SeqCst);
                        assert_eq!(result, if new == old { Ok(old) } else { Err(old) });
                        assert_eq!(at.compare_exchange(old, new, SeqCst, SeqCst), Ok(old));
                        *model = new;
                    }
                    _ => plain_value(at, model, random, context),
                }
            }

            fn bulk(slice: Slice<'_, Self>, model: &mut [Self], random: &mut Random, context: &Context<'_>) {
                plain_slice(slice, model, random, context);
            }
        }
    )*};
}

words! {
    f32, random => random.number() as f32 / 7.0;
    f64, random => random.number() as f64 / 7.0;
    bool, random => random.below(2) == 0;
}

/// Types of which not all bytes make a value.
#[macro_export]
macro_rules! checked {
    ($type:ident, $random:ident => $value:expr) => {
        impl $crate::Model for $type {
            $crate::kinds::own_value! { $random => $value }

            fn read(at: dsm::Shared<'_, Self>, _: &$crate::Context<'_>) -> Self {
                at.try_load().unwrap()
            }

            fn look(at: dsm::ReadOnly<'_, Self>, _: &$crate::Context<'_>) -> Self {
                at.try_load().unwrap()
            }

            fn operate(
                at: dsm::Shared<'_, Self>,
                model: &mut Self,
                random: &mut $crate::Random,
                context: &$crate::Context<'_>,
            ) {
                let (new, old) = (Self::random(random), *model);
                match random.below(5) {
                    0 => {
                        assert_eq!(at.swap(new, dsm::prelude::SeqCst), Ok(old));
                        *model = new;
                    }
                    1 => {
                        let result = at.compare_exchange(new, old, dsm::prelude::SeqCst, dsm::prelude::SeqCst);
                        assert_eq!(result, if new == old { Ok(Ok(old)) } else { Err(Ok(old)) });
                    }
                    2 => assert_eq!(at.wait_until(|value| value == Ok(old)).unwrap(), Ok(old)),
                    _ => $crate::copied_value(at, model, random, context),
                }
            }

            fn bulk(
                slice: dsm::Slice<'_, Self>,
                model: &mut [Self],
                random: &mut $crate::Random,
                context: &$crate::Context<'_>,
            ) {
                $crate::copied_slice(slice, model, random, context);
            }
        }
    };
}

checked!(char, random => random.pick(&['\0', 'a', 'ß', '\u{d7ff}', '\u{10ffff}']));

macro_rules! atomics {
    ($($atomic:ident: $word:ident;)*) => {$(
        impl Model for atomic::$atomic {
            type Value = $word;

            fn random(random: &mut Random) -> $word {
                <$word>::random(random)
            }

            fn read(at: Shared<'_, Self>, _: &Context<'_>) -> $word {
                at.atomic().load(SeqCst)
            }

            fn look(at: ReadOnly<'_, Self>, _: &Context<'_>) -> $word {
                Self::read_field(at)
            }

            fn put(native: &mut Self, value: &$word, _: &Context<'_>) {
                *native.get_mut() = *value;
            }

            fn take(native: &mut Self, value: &mut $word, _: &Context<'_>) {
                *value = *native.get_mut();
            }

            fn operate(at: Shared<'_, Self>, model: &mut $word, random: &mut Random, context: &Context<'_>) {
                match random.below(5) {
                    0 => {
                        // By the trap door.
                        assert_eq!(at.as_std().fetch_add(3, SeqCst), *model);
                        *model = model.wrapping_add(3);
                    }
                    1 => {
                        let new = <$word>::random(random);
                        at.as_std().store(new, SeqCst);
                        *model = new;
                    }
                    2 => assert_eq!(at.wait_until(|value| value == *model).unwrap(), *model),
                    3 => value_in_a_hole(at, model, random, context),
                    _ => <$word as Model>::operate(at.atomic().shared(), model, random, context),
                }
            }
        }
    )*};
}

atomics! {
    AtomicU8: u8;
    AtomicI8: i8;
    AtomicU16: u16;
    AtomicI16: i16;
    AtomicU32: u32;
    AtomicI32: i32;
    AtomicU64: u64;
    AtomicI64: i64;
}

impl Model for atomic::AtomicBool {
    type Value = bool;

    fn random(random: &mut Random) -> bool {
        random.below(2) == 0
    }

    fn read(at: Shared<'_, Self>, _: &Context<'_>) -> bool {
        at.flag().load(SeqCst)
    }

    fn look(at: ReadOnly<'_, Self>, _: &Context<'_>) -> bool {
        Self::read_field(at)
    }

    fn put(native: &mut Self, value: &bool, _: &Context<'_>) {
        *native.get_mut() = *value;
    }

    fn take(native: &mut Self, value: &mut bool, _: &Context<'_>) {
        *value = *native.get_mut();
    }

    fn operate(at: Shared<'_, Self>, model: &mut bool, random: &mut Random, context: &Context<'_>) {
        let (flag, new, old) = (at.flag(), random.below(2) == 0, *model);
        *model = match random.below(6) {
            0 => {
                assert_eq!(flag.swap(new, SeqCst), old);
                new
            }
            1 => {
                assert_eq!(flag.fetch_and(new, SeqCst), old);
                old & new
            }
            2 => {
                assert_eq!(flag.fetch_or(new, SeqCst), old);
                old | new
            }
            3 => {
                assert_eq!(flag.fetch_xor(new, SeqCst), old);
                old ^ new
            }
            4 => {
                assert_eq!(
                    flag.compare_exchange(new, !new, SeqCst, SeqCst),
                    if new == old { Ok(old) } else { Err(old) }
                );
                if new == old { !new } else { old }
            }
            _ => return value_in_a_hole(at, model, random, context),
        };
    }
}

/// Up to `capacity` bytes of text, perhaps with characters of two bytes.
fn text(capacity: usize, random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(capacity + 1) {
        let next = random.pick(&['a', ' ', 'ß', '0']);
        if text.len() + next.len_utf8() <= capacity {
            text.push(next);
        }
    }
    text
}

impl<const N: usize> Model for Text<N> {
    type Value = String;

    fn random(random: &mut Random) -> String {
        text(N, random)
    }

    fn read(at: Shared<'_, Self>, _: &Context<'_>) -> String {
        at.get().unwrap()
    }

    fn look(at: ReadOnly<'_, Self>, _: &Context<'_>) -> String {
        at.get().unwrap()
    }

    fn put(native: &mut Self, value: &String, _: &Context<'_>) {
        *native = Self::try_from(&**value).unwrap();
    }

    fn take(native: &mut Self, value: &mut String, _: &Context<'_>) {
        *value = native.as_str().unwrap().to_owned();
    }

    fn operate(at: Shared<'_, Self>, model: &mut String, random: &mut Random, context: &Context<'_>) {
        assert_eq!((at.len(), at.is_empty(), at.get_lossy() == *model), (model.len(), model.is_empty(), true));
        let added = text(N, random);
        match random.below(4) {
            0 => {
                let fits = model.len() + added.len() <= N;
                assert_eq!(at.push_str(&added).is_ok(), fits);
                if fits {
                    model.push_str(&added);
                }
            }
            1 => {
                at.set(&added).unwrap();
                *model = added;
            }
            2 => {
                at.clear();
                model.clear();
            }
            _ => plain_value(at, model, random, context),
        }
    }

    fn bulk(slice: Slice<'_, Self>, model: &mut [String], random: &mut Random, context: &Context<'_>) {
        plain_slice(slice, model, random, context);
    }
}

impl<T: Model + Plain, const N: usize> Model for List<T, N> {
    type Value = Vec<T::Value>;

    fn random(random: &mut Random) -> Self::Value {
        (0..random.below(N + 1)).map(|_| T::random(random)).collect()
    }

    fn read(at: Shared<'_, Self>, context: &Context<'_>) -> Self::Value {
        at.as_slice().handles().map(|at| T::read(at, context)).collect()
    }

    fn look(at: ReadOnly<'_, Self>, context: &Context<'_>) -> Self::Value {
        at.as_slice().handles().map(|at| T::look(at, context)).collect()
    }

    fn put(native: &mut Self, value: &Self::Value, context: &Context<'_>) {
        native.clear();
        for value in value {
            let mut item = zeros::<T>();
            T::put(&mut item, value, context);
            native.push(item).unwrap();
        }
    }

    fn take(native: &mut Self, value: &mut Self::Value, context: &Context<'_>) {
        *value = native
            .iter_mut()
            .map(|native| {
                let mut value = T::random(&mut Random(1));
                T::take(native, &mut value, context);
                value
            })
            .collect();
    }

    fn operate(at: Shared<'_, Self>, model: &mut Self::Value, random: &mut Random, context: &Context<'_>) {
        assert_eq!((at.len(), at.is_empty()), (model.len(), model.is_empty()));
        match random.below(6) {
            0 => {
                let (popped, expected) = (at.pop(), model.pop());
                assert_eq!(popped.is_some(), expected.is_some());
                popped.zip(expected).into_iter().for_each(|(popped, expected)| crate::same(popped, &expected, context));
            }
            1 => {
                let len = random.below(N + 2);
                at.truncate(len);
                model.truncate(len);
            }
            2 if !model.is_empty() => {
                let index = random.below(model.len());
                crate::same(at.get(index).unwrap(), &model[index], context);
                T::operate(at.at(index).unwrap(), &mut model[index], random, context);
            }
            3 | 4 => {
                let value = T::random(random);
                let mut item = zeros::<T>();
                T::put(&mut item, &value, context);
                let pushed = at.push(item);
                assert_eq!(pushed.is_ok(), model.len() < N);
                if pushed.is_ok() {
                    model.push(value);
                }
            }
            _ => plain_value(at, model, random, context),
        }
    }

    fn bulk(slice: Slice<'_, Self>, model: &mut [Self::Value], random: &mut Random, context: &Context<'_>) {
        plain_slice(slice, model, random, context);
    }
}

/// A value of zeros.
fn zeros<T: Plain>() -> T {
    // SAFETY: any bytes make a `T` (contract of `Plain`), and zeros are left as they are by the check.
    unsafe { std::mem::zeroed() }
}

/// The pointer to target `to`.
fn pointer(to: Option<usize>, context: &Context<'_>) -> Pointer<u64> {
    to.map_or(Pointer::null(), |to| Pointer::to(context.targets.at(to)))
}

impl Model for Pointer<u64> {
    type Value = Option<usize>;

    fn random(random: &mut Random) -> Option<usize> {
        Some(random.below(TARGETS + 1)).filter(|at| *at < TARGETS)
    }

    fn read(at: Shared<'_, Self>, _: &Context<'_>) -> Option<usize> {
        at.follow().unwrap().map(|target| target.get() as usize)
    }

    fn look(at: ReadOnly<'_, Self>, _: &Context<'_>) -> Option<usize> {
        at.follow().unwrap().map(|target| target.load() as usize)
    }

    fn put(native: &mut Self, value: &Option<usize>, context: &Context<'_>) {
        *native = pointer(*value, context);
    }

    fn take(native: &mut Self, value: &mut Option<usize>, context: &Context<'_>) {
        *value = (0..TARGETS).find(|at| *native == pointer(Some(*at), context));
        assert_eq!(value.is_none(), native.is_null());
    }

    fn operate(at: Shared<'_, Self>, model: &mut Option<usize>, random: &mut Random, context: &Context<'_>) {
        let (new, old) = (Self::random(random), *model);
        match random.below(4) {
            0 => {
                at.point_to(new.map(|to| context.targets.at(to))).unwrap();
                *model = new;
            }
            1 => {
                assert_eq!(at.swap(pointer(new, context), SeqCst), pointer(old, context));
                *model = new;
            }
            2 => {
                let result = at.compare_exchange(pointer(new, context), pointer(old, context), SeqCst, SeqCst);
                assert_eq!(result.is_ok(), new == old);
                assert!(at.compare_exchange(pointer(old, context), pointer(new, context), SeqCst, SeqCst).is_ok());
                *model = new;
            }
            _ => plain_value(at, model, random, context),
        }
    }

    fn bulk(slice: Slice<'_, Self>, model: &mut [Option<usize>], random: &mut Random, context: &Context<'_>) {
        plain_slice(slice, model, random, context);
    }
}

impl<T: Model + Copy> Model for Versioned<T> {
    /// The version and what was published.
    type Value = (u64, T::Value);

    fn random(random: &mut Random) -> Self::Value {
        (0, T::random(random))
    }

    fn read(at: Shared<'_, Self>, context: &Context<'_>) -> Self::Value {
        let (version, mut native) = at.snapshot_with_version().unwrap();
        let mut value = T::random(&mut Random(1));
        T::take(&mut native, &mut value, context);
        (version, value)
    }

    fn look(at: ReadOnly<'_, Self>, context: &Context<'_>) -> Self::Value {
        let mut value = T::random(&mut Random(1));
        T::take(&mut at.snapshot().unwrap(), &mut value, context);
        (at.version(), value)
    }

    fn put(_: &mut Self, _: &Self::Value, _: &Context<'_>) {}

    fn take(_: &mut Self, _: &mut Self::Value, _: &Context<'_>) {}

    fn operate(at: Shared<'_, Self>, model: &mut Self::Value, random: &mut Random, context: &Context<'_>) {
        let value = T::random(random);
        let published = match random.below(3) {
            0 => {
                let mut native = at.snapshot().unwrap();
                T::put(&mut native, &value, context);
                at.publish(&native).unwrap()
            }
            1 => at.publish_with(|native| T::put(native, &value, context)).unwrap(),
            _ => {
                let mut draft = at.draft().unwrap();
                crate::same(*draft, &model.1, context);
                T::put(&mut draft, &value, context);
                if random.below(3) == 0 {
                    return;
                }
                draft.publish().unwrap()
            }
        };
        *model = (model.0 + 1, value);
        assert_eq!(published, model.0);
    }
}
