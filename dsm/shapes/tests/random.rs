//! Any shared struct behaves, under random operations from two hosts, as the same struct in a `Mutex` does. The structs
//! are made at random when this is built: `DSM_SHAPES_SEED=7 cargo test -p dsm-shapes` makes others.
#![allow(missing_docs, reason = "test types")]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::{Cluster, PATIENCE};
use dsm::prelude::*;
use dsm_shapes::{Context, Model, Random, SEED, TARGETS};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Operations of each host on each struct.
const OPERATIONS: usize = 2000;

fn context(session: &Session) -> Context<'_> {
    Context { targets: session.array("targets", TARGETS).unwrap() }
}

/// Two hosts take turns with one value, which is compared with its model after every operation.
fn both<T: Model>(sessions: [&Session; 2], name: &str, seed: u64) {
    let [a, _] = sessions;
    let model = Mutex::new(T::read(a.create_new::<T>(name).unwrap(), &context(a)));
    std::thread::scope(|scope| {
        for (host, session) in sessions.into_iter().enumerate() {
            let model = &model;
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((host as u64 + 1) << 32) | 1);
                let (shared, reader) = (session.attach::<T>(name).unwrap(), session.open_read_only::<T>(name).unwrap());
                let (lock, context) = (session.semaphore(name, 1).unwrap(), context(session));
                let done = AtomicUsize::new(0);
                let _told = Told { name, host, seed, done: &done };
                while done.load(Ordering::Relaxed) < OPERATIONS {
                    let _g = lock.lock_timeout(PATIENCE).unwrap();
                    let mut model = model.try_lock().expect("the semaphore lets one in at a time");
                    assert_eq!(T::read(shared, &context), *model, "before a turn");
                    for _ in 0..1 + random.below(8) {
                        done.fetch_add(1, Ordering::Relaxed);
                        T::operate(shared, &mut model, &mut random, &context);
                        assert_eq!(T::read(shared, &context), *model, "after an operation");
                    }
                    assert_eq!(T::look(reader, &context), *model, "after a turn, read only");
                }
            });
        }
    });
    let model = model.into_inner().unwrap();
    for session in sessions {
        let _g = session.semaphore(name, 1).unwrap().lock_timeout(PATIENCE).unwrap();
        assert_eq!(
            T::read(session.attach::<T>(name).unwrap(), &context(session)),
            model,
            "{name}, at the end, seed {seed}"
        );
    }
}

/// Says how to come here again.
struct Told<'a> {
    name: &'a str,
    host: usize,
    seed: u64,
    done: &'a AtomicUsize,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { name, host, seed, done } = self;
            eprintln!("{name}, host {host}, operation {done:?}: DSM_SHAPES_SEED={SEED} DSM_SEED={seed}");
        }
    }
}

#[test]
fn random_structs_behave_as_in_a_mutex() {
    let seed = std::env::var("DSM_SEED").map_or(1, |seed| seed.parse().unwrap());
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "shapes"), cluster.join(1, "shapes"));
    context(&a).targets.handles().zip(0..).for_each(|(target, number)| target.set(number));
    a.fence().unwrap();
    macro_rules! run {
        ($shape:ty) => {
            both::<$shape>([&a, &b], <$shape>::LAYOUT.to_string().split('<').next().unwrap(), seed);
        };
    }
    dsm_shapes::each_shape!(run);
    drop((a, b));
}
