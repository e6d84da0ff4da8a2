use dsm::{List, SharedType, field};

#[dsm::shared]
struct Pair<T: SharedType> {
    one: T,
    other: T,
}

#[dsm::shared]
struct Names {
    all: List<String, 4>,
}

#[dsm::shared]
struct Couple {
    pair: Pair<String>,
}

#[dsm::shared]
struct Locked {
    bytes: field::Mutex<Vec<u8>>,
}

fn main() {}
