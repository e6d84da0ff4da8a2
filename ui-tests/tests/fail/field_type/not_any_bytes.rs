use std::num::NonZeroU32;

#[dsm::shared]
struct Board {
    owner: Option<u32>,
    count: NonZeroU32,
}

fn main() {}
