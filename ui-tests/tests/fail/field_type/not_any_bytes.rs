use std::num::NonZeroU32;

#[dsm::shared]
struct Board {
    is_over: bool,
    symbol: char,
    owner: Option<u32>,
    count: NonZeroU32,
}

fn main() {}
