// One error, and none from what uses the struct.
use dsm::typed::Shared;

#[dsm::shared]
#[repr(C, packed)]
struct Board {
    flag: u8,
    turn: u32,
}

fn next(board: Shared<'_, Board>) {
    board.set_turn(board.turn() + 1);
}

fn main() {}
