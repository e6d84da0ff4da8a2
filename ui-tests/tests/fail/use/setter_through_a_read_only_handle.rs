use dsm::typed::ReadOnly;

#[dsm::shared]
struct Pos {
    x: f32,
    y: f32,
}

#[dsm::shared]
struct Board {
    turn: u32,
    scores: [u32; 3],
    pos: Pos,
}

fn cheat(board: ReadOnly<'_, Board>) {
    board.set_turn(board.turn() + 1);
    board.turn_atomic();
    board.scores().set(0, 1);
    board.pos().set_x(1.0);
    board.turn_ref().set(1);
    board.hole();
}

fn main() {}
