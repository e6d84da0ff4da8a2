use dsm::typed::{Layout, SharedType};
use std::sync::atomic::AtomicU64;

#[dsm::shared]
struct Counters<const N: usize> {
    hits: [AtomicU64; N],
}

impl<const N: usize> Drop for Counters<N> {
    fn drop(&mut self) {}
}

// As every program that opens one asks for it.
const LAYOUT: &Layout = Counters::<3>::LAYOUT;

fn main() {}
