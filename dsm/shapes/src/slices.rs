//! Several values of one type.

use crate::{Context, Model, Random, native, same};
use dsm::prelude::*;
use dsm::typed::Plain;
use std::ops::Range;

impl<T: Model, const N: usize> Model for [T; N] {
    type Value = Vec<T::Value>;

    fn random(random: &mut Random) -> Self::Value {
        (0..N).map(|_| T::random(random)).collect()
    }

    fn read(at: Shared<'_, Self>, context: &Context<'_>) -> Self::Value {
        read_slice(at.as_slice(), context)
    }

    fn look(at: ReadOnly<'_, Self>, context: &Context<'_>) -> Self::Value {
        at.as_slice().handles().map(|at| T::look(at, context)).collect()
    }

    fn put(native: &mut Self, value: &Self::Value, context: &Context<'_>) {
        native.iter_mut().zip(value).for_each(|(native, value)| T::put(native, value, context));
    }

    fn take(native: &mut Self, value: &mut Self::Value, context: &Context<'_>) {
        native.iter_mut().zip(value).for_each(|(native, value)| T::take(native, value, context));
    }

    fn operate(at: Shared<'_, Self>, model: &mut Self::Value, random: &mut Random, context: &Context<'_>) {
        T::bulk(at.as_slice(), model, random, context);
    }

    fn bulk(slice: Slice<'_, Self>, model: &mut [Self::Value], random: &mut Random, context: &Context<'_>) {
        if random.below(2) == 0 {
            return any_slice(slice, model, random, context);
        }
        // An element of a row, by its number in all rows.
        let at = random.below(model.len() * N);
        T::operate(slice.as_flattened().at(at), &mut model[at / N][at % N], random, context);
    }
}

/// The values, by their handles.
pub fn read_slice<T: Model>(slice: Slice<'_, T>, context: &Context<'_>) -> Vec<T::Value> {
    slice.handles().map(|at| T::read(at, context)).collect()
}

fn range(len: usize, random: &mut Random) -> Range<usize> {
    let (one, other) = (random.below(len + 1), random.below(len + 1));
    one.min(other)..one.max(other)
}

/// Does something with one of them, or with some in a hole.
pub fn any_slice<T: Model>(slice: Slice<'_, T>, model: &mut [T::Value], random: &mut Random, context: &Context<'_>) {
    assert_eq!(slice.len(), model.len());
    if random.below(3) > 0 {
        let at = random.below(model.len());
        return T::operate(slice.at(at), &mut model[at], random, context);
    }
    let range = range(model.len(), random);
    let (slice, model) = (slice.range(range.clone()), &mut model[range]);
    let mut hole = slice.hole().unwrap();
    assert_eq!(hole.len(), model.len());
    for (native, value) in hole.iter_mut().zip(&*model) {
        let mut found = value.clone();
        T::take(native, &mut found, context);
        assert_eq!(found, *value);
    }
    // They change places; what has a protocol of its own does not, once the hole is filled.
    hole.reverse();
    if let Some(first) = hole.first_mut() {
        T::put(first, &T::random(random), context);
    }
    hole.iter_mut().zip(model).for_each(|(native, value)| T::take(native, value, context));
    hole.fill().unwrap();
}

/// Loads or stores several, which can be copied.
pub fn copied_slice<T: Model + Copy>(
    slice: Slice<'_, T>,
    model: &mut [T::Value],
    random: &mut Random,
    context: &Context<'_>,
) {
    let (at, value) = (random.below(model.len()), T::random(random));
    let native = native(slice.at(at), &value, context);
    match random.below(7) {
        0 => {
            slice.fill(native);
            model.fill(value);
        }
        1 => {
            let range = range(model.len(), random);
            slice.range(range.clone()).copy_from_slice(&vec![native; range.len()]);
            model[range].fill(value);
        }
        2 => {
            slice.set(at, native);
            model[at] = value;
        }
        3 => same(slice.try_get(at).unwrap(), &model[at], context),
        4 => {
            let (rank, size) = (random.below(3), 3);
            let range = slice.chunk_range(rank, size);
            slice.chunk(rank, size).fill(native);
            model[range].fill(value);
        }
        _ => any_slice(slice, model, random, context),
    }
}

/// Loads or stores several, of which any bytes make one.
pub fn plain_slice<T: Model + Plain>(
    slice: Slice<'_, T>,
    model: &mut [T::Value],
    random: &mut Random,
    context: &Context<'_>,
) {
    let range = range(model.len(), random);
    match random.below(8) {
        0 => {
            let found = slice.range(range.clone()).to_vec();
            assert_eq!(found.len(), range.len());
            found.into_iter().zip(&model[range]).for_each(|(found, value)| same(found, value, context));
        }
        1 => slice.iter().zip(&*model).for_each(|(found, value)| same(found, value, context)),
        2 => {
            let at = random.below(model.len());
            same(slice.get(at), &model[at], context);
            let value = T::random(random);
            slice.update(at, |mut native| {
                T::put(&mut native, &value, context);
                native
            });
            model[at] = value;
        }
        3 => {
            let mut found = slice.to_vec();
            found.reverse();
            slice.copy_to_slice(&mut found);
            found.into_iter().zip(&*model).for_each(|(found, value)| same(found, value, context));
        }
        _ => copied_slice(slice, model, random, context),
    }
}
