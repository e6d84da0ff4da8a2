//! Shared structs of many shapes behave, under random operations from two hosts, as the same struct in a `Mutex` does.
#![allow(missing_docs, reason = "test types")]

mod common;

use common::{Cluster, PATIENCE};
use dsm::prelude::*;
use dsm::typed::{Plain, Text};
use dsm::{Integer, List};
use std::fmt::Debug;
use std::sync::Mutex;

/// Operations of each host on each shape.
const OPERATIONS: usize = 800;

/// Random numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }
}

/// What can be done with a type in shared memory, and the same with a value in private memory.
trait Model: Plain + PartialEq + Debug {
    fn random(random: &mut Random) -> Self;

    /// Does something with `shared`, and the same with `model`, which has been the same so far.
    fn operate(shared: Shared<'_, Self>, model: &mut Self, random: &mut Random);
}

fn integer<T: Model + Integer>(shared: Shared<'_, T>, model: &mut T, random: &mut Random, all: [T; 3]) {
    let [sum, xor, max] = all;
    let new = T::random(random);
    let old = *model;
    match random.below(7) {
        0 => assert_eq!(shared.get(), old),
        1 | 2 => {
            shared.set(new);
            *model = new;
        }
        3 => {
            assert_eq!(shared.atomic().swap(new, SeqCst), old);
            *model = new;
        }
        4 => {
            let expected = if random.below(2) == 0 { old } else { new };
            let result = shared.atomic().compare_exchange(expected, new, SeqCst, SeqCst);
            assert_eq!(result, if expected == old { Ok(old) } else { Err(old) });
            *model = if expected == old { new } else { old };
        }
        5 => {
            assert_eq!(shared.atomic().fetch_add(T::from_bits(3), SeqCst), old);
            *model = sum;
        }
        _ => {
            assert_eq!(shared.atomic().fetch_xor(T::from_bits(0x55), SeqCst), old);
            assert_eq!(shared.atomic().fetch_max(old, SeqCst), xor);
            *model = max;
        }
    }
}

macro_rules! integers {
    ($($type:ident)*) => {$(
        impl Model for $type {
            fn random(random: &mut Random) -> Self {
                random.next() as $type
            }

            fn operate(shared: Shared<'_, Self>, model: &mut Self, random: &mut Random) {
                let xor = *model ^ 0x55;
                integer(shared, model, random, [model.wrapping_add(3), xor, xor.max(*model)]);
            }
        }
    )*};
}

macro_rules! others {
    ($($type:ty, $random:ident => $value:expr;)*) => {$(
        impl Model for $type {
            fn random($random: &mut Random) -> Self {
                $value
            }

            fn operate(shared: Shared<'_, Self>, model: &mut Self, random: &mut Random) {
                assert_eq!(shared.load(), *model);
                *model = Self::random(random);
                shared.store(model);
            }
        }
    )*};
}

integers!(u8 i8 u16 i16 u32 i32 u64 i64 u128);
others! {
    f32, random => random.next() as f32 / 7.0;
    f64, random => random.next() as f64 / 7.0;
}

impl Model for Text<13> {
    fn random(random: &mut Random) -> Self {
        Self::try_from(&"größeres Wort"[..[0, 1, 2, 4, 9, 10][random.below(6)]]).unwrap()
    }

    fn operate(shared: Shared<'_, Self>, model: &mut Self, random: &mut Random) {
        assert_eq!(shared.get().unwrap(), model.as_str().unwrap());
        let added = ["", "x", "öß", "abcdefg"][random.below(4)];
        match random.below(3) {
            0 => {
                let longer = format!("{model}{added}");
                assert_eq!(shared.push_str(added).is_ok(), longer.len() <= 13);
                *model = Self::try_from(&*longer).unwrap_or(*model);
            }
            1 => {
                shared.set(added).unwrap();
                *model = Self::try_from(added).unwrap();
            }
            _ => {
                shared.clear();
                *model = Self::new();
            }
        }
    }
}

impl Model for List<u16, 5> {
    fn random(random: &mut Random) -> Self {
        let items: Vec<u16> = (0..random.below(6)).map(|_| random.next() as u16).collect();
        Self::try_from(&*items).unwrap()
    }

    fn operate(shared: Shared<'_, Self>, model: &mut Self, random: &mut Random) {
        assert_eq!(shared.to_vec(), **model);
        match random.below(5) {
            0 => assert_eq!(shared.pop(), model.pop()),
            1 => {
                let len = random.below(7);
                shared.truncate(len);
                model.truncate(len);
            }
            2 if !model.is_empty() => {
                let at = random.below(model.len());
                u16::operate(shared.at(at).unwrap(), &mut model[at], random);
            }
            _ => {
                let item = random.next() as u16;
                assert_eq!(shared.push(item), model.push(item));
            }
        }
    }
}

impl<T: Model, const N: usize> Model for [T; N] {
    fn random(random: &mut Random) -> Self {
        std::array::from_fn(|_| T::random(random))
    }

    fn operate(shared: Shared<'_, Self>, model: &mut Self, random: &mut Random) {
        let slice = shared.as_slice();
        let (one, other) = (random.below(N + 1), random.below(N + 1));
        let range = one.min(other)..one.max(other);
        let value = T::random(random);
        match random.below(8) {
            0 => {
                slice.fill(value);
                model.fill(value);
            }
            1 => {
                slice.range(range.clone()).copy_from_slice(&vec![value; range.len()]);
                model[range].fill(value);
            }
            2 => assert_eq!(slice.range(range.clone()).to_vec(), model[range]),
            3 if !range.is_empty() => {
                let mut hole = slice.range(range.clone()).hole().unwrap();
                assert_eq!(*hole, model[range.clone()]);
                hole[0] = value;
                hole.reverse();
                hole.fill().unwrap();
                model[range.start] = value;
                model[range].reverse();
            }
            4 => {
                *model = Self::random(random);
                shared.store(model);
            }
            _ => {
                let at = random.below(N);
                T::operate(shared.at(at), &mut model[at], random);
            }
        }
    }
}

/// Structs, and what can be done with them.
macro_rules! shapes {
    ($($name:ident { $($field:ident, $handle:ident: $type:ty;)* })*) => {
        $(
            #[dsm::shared]
            #[derive(Debug, PartialEq)]
            pub struct $name {
                $(pub $field: $type,)*
            }

            impl Model for $name {
                fn random(random: &mut Random) -> Self {
                    Self { $($field: Model::random(random),)* }
                }

                fn operate(shared: Shared<'_, Self>, model: &mut Self, random: &mut Random) {
                    let count = [$(stringify!($field)),*].len();
                    let mut pick = random.below(count + 3);
                    if pick == count {
                        *model = Self::random(random);
                        shared.store(model);
                        return;
                    }
                    if pick == count + 1 {
                        *model = Self::random(random);
                        // SAFETY: a plain store through the view's pointer, which traps; the value's place is aligned
                        // and mapped.
                        unsafe { shared.as_ptr().write_volatile(*model) };
                        return;
                    }
                    if pick > count {
                        let mut hole = shared.hole().unwrap();
                        assert_eq!(*hole, *model);
                        let new = Self::random(random);
                        $(if random.below(2) == 0 { hole.$field = new.$field; })*
                        *model = *hole;
                        // Filled, or dropped, which fills it.
                        if random.below(2) == 0 { hole.fill().unwrap(); }
                        return;
                    }
                    $(
                        if pick == 0 {
                            <$type>::operate(shared.$handle(), &mut model.$field, random);
                            return;
                        }
                        pick = pick.wrapping_sub(1);
                    )*
                    let _ = pick;
                }
            }
        )*

        #[test]
        fn structs_of_many_shapes_behave_as_in_a_mutex() {
            let seed = std::env::var("DSM_SEED").map_or(1, |seed| seed.parse().unwrap());
            let cluster = Cluster::new();
            let (a, b) = (cluster.join(0, "shapes"), cluster.join(1, "shapes"));
            $(both::<$name>(&a, &b, stringify!($name), seed);)*
            drop((a, b));
        }
    };
}

/// Two hosts take turns with one value, which is compared with its model at every turn.
fn both<T: Model>(a: &Session, b: &Session, name: &str, seed: u64) {
    let model = Mutex::new(a.create_new::<T>(name).unwrap().load());
    std::thread::scope(|scope| {
        for (host, session) in [a, b].into_iter().enumerate() {
            let model = &model;
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((host as u64 + 1) << 32) | 1);
                let shared = session.attach::<T>(name).unwrap();
                let lock = session.semaphore(name, 1).unwrap();
                let mut done = 0;
                while done < OPERATIONS {
                    let _g = lock.lock_timeout(PATIENCE).unwrap();
                    let mut model = model.try_lock().expect("the semaphore lets one in at a time");
                    assert_eq!(shared.load(), *model, "{name}, host {host}, operation {done}, seed {seed}");
                    for _ in 0..1 + random.below(8) {
                        T::operate(shared, &mut model, &mut random);
                        done += 1;
                        assert_eq!(shared.load(), *model, "{name}, host {host}, operation {done}, seed {seed}");
                    }
                }
            });
        }
    });
    let model = model.into_inner().unwrap();
    for session in [a, b] {
        let _g = session.semaphore(name, 1).unwrap().lock_timeout(PATIENCE).unwrap();
        assert_eq!(session.attach::<T>(name).unwrap().load(), model, "{name}, at the end, seed {seed}");
    }
}

// Drawn at random: fields, nesting and arrays, with the gaps filled.
shapes! {
    Shape0 {
        a, a_ref: u8;
        b, b_ref: [u8; 7];
        c, c_ref: f64;
    }
    Shape1 {
        a, a_ref: f32;
        b, b_ref: i8;
        c, c_ref: [u8; 3];
        d, d_ref: [i64; 1];
        e, e_ref: i32;
        f, f_ref: [u8; 4];
        g, g_ref: [Shape0; 2];
        h, h_ref: i16;
        i, i_ref: [u8; 6];
    }
    Shape2 {
        a, a_ref: i8;
    }
    Shape3 {
        a, a_ref: Shape0;
        b, b_ref: [f64; 3];
    }
    Shape4 {
        a, a_ref: i16;
        b, b_ref: u8;
        c, c_ref: [u8; 13];
        d, d_ref: u128;
    }
    Shape5 {
        a, a_ref: Shape2;
        b, b_ref: Text<13>;
        c, c_ref: Shape2;
    }
    Shape6 {
        a, a_ref: i32;
        b, b_ref: [u32; 5];
    }
    Shape7 {
        a, a_ref: List<u16, 5>;
        b, b_ref: [u8; 2];
        c, c_ref: u32;
        d, d_ref: u16;
        e, e_ref: [u8; 6];
        f, f_ref: Shape1;
    }
    Shape8 {
        a, a_ref: [Shape1; 3];
    }
    Shape9 {
        a, a_ref: Shape0;
        b, b_ref: [f64; 5];
    }
    Shape10 {
        a, a_ref: [i8; 2];
        b, b_ref: u8;
        c, c_ref: [u8; 5];
        d, d_ref: i64;
        e, e_ref: [[Text<13>; 5]; 2];
        f, f_ref: [u8; 6];
        g, g_ref: [u64; 5];
        h, h_ref: [i8; 5];
        i, i_ref: [u8; 3];
    }
    Shape11 {
        a, a_ref: u128;
    }
    Shape12 {
        a, a_ref: Shape7;
        b, b_ref: [[Shape6; 2]; 9];
        c, c_ref: Shape9;
        d, d_ref: f64;
    }
    Shape13 {
        a, a_ref: Shape6;
    }
    Shape14 {
        a, a_ref: [Shape10; 9];
        b, b_ref: Shape1;
        c, c_ref: i32;
        d, d_ref: Shape13;
        e, e_ref: [u8; 4];
    }
    Shape15 {
        a, a_ref: [Shape0; 3];
        b, b_ref: u8;
        c, c_ref: [u8; 1];
        d, d_ref: i16;
        e, e_ref: [u8; 4];
        f, f_ref: Shape8;
        g, g_ref: Shape2;
        h, h_ref: [u8; 3];
        i, i_ref: f32;
    }
}
