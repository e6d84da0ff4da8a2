use dsm::typed::{Shared, Slice};

#[dsm::shared]
struct Board {
    scores: [u64; 8],
}

fn scores<'s>(board: &Shared<'_, Board>) -> Slice<'s, u64> {
    board.scores()
}

fn main() {}
