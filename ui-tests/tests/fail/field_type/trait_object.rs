#[dsm::shared]
struct Board {
    strategy: dyn Fn(u32),
    other: impl Fn(u32),
    turn: u64,
}

fn turn(board: dsm::Shared<'_, Board>) -> u64 {
    board.turn()
}

fn main() {}
