// One error a field, and none from what uses the struct.
use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    len: usize,
    delta: isize,
    turn: u32,
}

fn next(board: Shared<'_, Board>) {
    board.set_turn(board.turn() + 1);
    board.set_len(board.len() + 1);
}

fn main() {}
