// What is wrong with the enum is said once, and nothing of what uses it.
use dsm::typed::Shared;

#[dsm::shared]
#[repr(u8)]
enum Move {
    Pass = 0,
    Step(String) = 1,
}

#[dsm::shared]
struct Board {
    last: Move,
    moves: [Move; 7],
}

fn pass(board: Shared<'_, Board>) -> bool {
    board.set_last(Move::Pass);
    matches!(board.last(), Ok(Move::Pass))
}

fn main() {
    let _ = Move::Step(String::new());
}
