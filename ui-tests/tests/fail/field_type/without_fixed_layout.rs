// One error a field, and none from what uses the struct.
use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    pair: (u32, u32),
    nothing: (),
    rest: [u8],
    text: str,
    turn: u64,
}

fn next(board: Shared<'_, Board>) {
    board.set_turn(board.turn() + 1);
    board.set_pair((1, board.pair().0));
}

fn main() {}
