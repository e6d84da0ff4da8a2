use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    turn: u64,
    scores: [u64; 8],
}

fn play(board: Shared<'_, Board>) {
    board.turn += 1;
    board.turn() = 3;
    board.scores()[3] = 42;
}

fn main() {}
