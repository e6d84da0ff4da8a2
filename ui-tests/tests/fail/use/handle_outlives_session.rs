use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    turn: u32,
}

fn keep(board: Shared<'_, Board>) -> Shared<'static, Board> {
    board
}

fn main() {}
