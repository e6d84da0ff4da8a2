use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    turn: u32,
}

fn borrow<'s>(board: Shared<'s, Board>) -> &'s mut u32 {
    &mut board.turn
}

fn main() {}
