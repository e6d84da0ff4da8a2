mod game {
    #[dsm::shared]
    pub struct Board {
        pub turn: u32,
        secret: u32,
    }
}

fn cheat(board: dsm::typed::Shared<'_, game::Board>) -> u32 {
    board.set_turn(1);
    board.secret()
}

fn main() {}
