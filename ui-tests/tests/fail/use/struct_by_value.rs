use dsm::typed::Shared;

#[dsm::shared]
struct Pos {
    x: f32,
    y: f32,
}

#[dsm::shared]
struct Board {
    pos: Pos,
}

fn move_to(board: Shared<'_, Board>) {
    board.set_pos(Pos { x: 1.0, y: 2.0 });
}

fn main() {}
