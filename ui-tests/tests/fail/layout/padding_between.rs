// The rest of the program is understood all the same.
use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    flag: u8,
    turn: u32,
    phase: u16,
    score: u64,
}

fn next(board: Shared<'_, Board>) {
    board.set_turn(board.turn() + 1);
}

fn main() {}
