use dsm::typed::{Atomic, Shared, Slice};
use std::sync::atomic::Ordering::SeqCst;

#[dsm::shared]
struct Car {
    speed: f64,
}

fn faster(car: Shared<'_, Car>) {
    car.speed_atomic().fetch_add(1.0, SeqCst);
}

fn all_faster(speeds: Slice<'_, f64>) {
    let _ = speeds.atomic(0);
}

fn name(_: Atomic<'_, f32>) {}

fn main() {}
