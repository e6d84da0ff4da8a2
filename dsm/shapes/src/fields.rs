//! What is done with a field of a struct by its accessors. The last way is always that of its handle.

/// A field that can only be read.
#[macro_export]
macro_rules! read_only_field {
    ($at:ident, $model:ident, $random:ident, $context:ident, $name:ident: $type:ty, $handle:ident) => {
        assert_eq!(<$type as $crate::Model>::look($at.$handle(), $context), $model.$name)
    };
}

/// A field with nothing but a handle, or atomics.
#[macro_export]
macro_rules! field {
    ($at:ident, $model:ident, $random:ident, $context:ident, $name:ident: $type:ty, $handle:ident) => {
        if $random.below(2) == 0 {
            <$type as $crate::Model>::operate($at.$name(), &mut $model.$name, $random, $context)
        } else {
            <$type as $crate::Model>::operate($at.$handle(), &mut $model.$name, $random, $context)
        }
    };
}

/// An atomic.
#[macro_export]
macro_rules! atomic_field {
    ($at:ident, $model:ident, $random:ident, $context:ident, $name:ident: $type:ty, $handle:ident) => {
        match $random.below(3) {
            0 => {
                let new = <$type as $crate::Model>::random($random);
                assert_eq!($at.$name().swap(new, SeqCst), $model.$name);
                $model.$name = new;
            }
            1 => {
                let new = <$type as $crate::Model>::random($random);
                $at.$name().store(new, SeqCst);
                $model.$name = new;
            }
            _ => <$type as $crate::Model>::operate($at.$handle(), &mut $model.$name, $random, $context),
        }
    };
}

/// An integer.
#[macro_export]
macro_rules! integer_field {
    ($at:ident, $model:ident, $random:ident, $context:ident, $name:ident: $type:ty, $handle:ident, $set:ident, $update:ident, $atomic:ident) => {
        if $random.below(3) == 0 {
            assert_eq!($at.$atomic().fetch_sub(5, SeqCst), $model.$name);
            $model.$name = $model.$name.wrapping_sub(5);
        } else {
            $crate::word_field!($at, $model, $random, $context, $name: $type, $handle, $set, $update)
        }
    };
}

/// An integer, a float or a `bool`.
#[macro_export]
macro_rules! word_field {
    ($at:ident, $model:ident, $random:ident, $context:ident, $name:ident: $type:ty, $handle:ident, $set:ident, $update:ident) => {
        match $random.below(4) {
            0 => {
                let new = <$type as $crate::Model>::random($random);
                $at.$set(new);
                $model.$name = new;
            }
            1 => {
                let (new, old) = (<$type as $crate::Model>::random($random), $model.$name);
                $at.$update(|found| {
                    assert_eq!(found, old);
                    new
                });
                $model.$name = new;
            }
            _ => <$type as $crate::Model>::operate($at.$handle(), &mut $model.$name, $random, $context),
        }
    };
}

/// A `char` or an enum.
#[macro_export]
macro_rules! checked_field {
    ($at:ident, $model:ident, $random:ident, $context:ident, $name:ident: $type:ty, $handle:ident, $set:ident) => {
        if $random.below(2) == 0 {
            let new = <$type as $crate::Model>::random($random);
            $at.$set(new);
            $model.$name = new;
        } else {
            <$type as $crate::Model>::operate($at.$handle(), &mut $model.$name, $random, $context)
        }
    };
}

/// An array.
#[macro_export]
macro_rules! array_field {
    ($at:ident, $model:ident, $random:ident, $context:ident, $name:ident: $type:ty, $handle:ident) => {
        if $random.below(2) == 0 {
            $crate::Model::bulk($at.$name(), &mut $model.$name, $random, $context)
        } else {
            <$type as $crate::Model>::operate($at.$handle(), &mut $model.$name, $random, $context)
        }
    };
}

/// What can be stored as a whole; `$rest` is what else is done with it.
#[macro_export]
macro_rules! copied_field {
    ($at:ident, $model:ident, $random:ident, $context:ident, $name:ident: $type:ty, $handle:ident, $set:ident, $rest:ident) => {
        if $random.below(3) == 0 {
            let new = <$type as $crate::Model>::random($random);
            $at.$set(&$crate::native($at.$handle(), &new, $context));
            $model.$name = new;
        } else {
            $crate::$rest!($at, $model, $random, $context, $name: $type, $handle)
        }
    };
}

/// A text, a list, or a struct of which any bytes make one.
#[macro_export]
macro_rules! plain_field {
    ($at:ident, $model:ident, $random:ident, $context:ident, $name:ident: $type:ty, $handle:ident, $set:ident, $update:ident) => {
        if $random.below(4) == 0 {
            let new = <$type as $crate::Model>::random($random);
            $at.$update(|mut native| {
                <$type as $crate::Model>::put(&mut native, &new, $context);
                native
            });
            $model.$name = new;
        } else {
            $crate::copied_field!($at, $model, $random, $context, $name: $type, $handle, $set, field)
        }
    };
}

/// A pointer.
#[macro_export]
macro_rules! pointer_field {
    ($at:ident, $model:ident, $random:ident, $context:ident, $name:ident: $type:ty, $handle:ident, $set:ident, $update:ident) => {
        match $random.below(4) {
            0 => {
                let new = <$type as $crate::Model>::random($random);
                $at.$set($crate::native($at.$handle(), &new, $context));
                $model.$name = new;
            }
            1 => {
                let new = <$type as $crate::Model>::random($random);
                $at.$update(|mut native| {
                    <$type as $crate::Model>::put(&mut native, &new, $context);
                    native
                });
                $model.$name = new;
            }
            _ => $crate::field!($at, $model, $random, $context, $name: $type, $handle),
        }
    };
}
