// One error, and none from what uses the struct.
use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    turn: u32,
    #[cfg(debug_assertions)]
    checks: u32,
}

fn next(board: Shared<'_, Board>) {
    board.set_turn(board.checks());
}

fn main() {}
