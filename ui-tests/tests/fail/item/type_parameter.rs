// One error, and none from what uses the struct.
use dsm::typed::Shared;

#[dsm::shared]
struct Pair<T, const N: usize> {
    both: [T; N],
}

#[dsm::shared]
struct Board {
    pair: Pair<u32, 2>,
}

fn first(board: Shared<'_, Board>) -> u32 {
    board.pair().both().get(0)
}

fn main() {}
