use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    turn: u32,
    #[dsm(read_only)]
    limit: u32,
    #[dsm(skip_accessors)]
    secret: u32,
}

fn cheat(board: Shared<'_, Board>) {
    board.set_turn(board.limit());
    board.set_limit(board.turn());
    board.secret();
}

fn main() {}
