use dsm::typed::{Layout, SharedType};

#[dsm::shared]
struct Pair<T: SharedType> {
    flag: u8,
    value: T,
}

// Of bytes alone there is no padding.
const BYTES: &Layout = Pair::<u8>::LAYOUT;
// As every program that opens one asks for it.
const WORDS: &Layout = Pair::<u32>::LAYOUT;

fn main() {}
