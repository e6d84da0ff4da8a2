use std::sync::atomic::AtomicU64;

#[dsm::shared]
struct Counters {
    hits: AtomicU64,
}

impl Drop for Counters {
    fn drop(&mut self) {}
}

fn main() {}
