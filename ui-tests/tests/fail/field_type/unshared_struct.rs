#[derive(Clone, Copy)]
struct Pos {
    x: f32,
    y: f32,
}

#[dsm::shared]
struct Board {
    turn: u32,
    pos: Pos,
}

fn main() {}
