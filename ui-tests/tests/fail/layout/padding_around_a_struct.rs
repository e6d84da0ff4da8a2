#[dsm::shared]
struct Pos {
    x: f32,
    y: f32,
}

#[dsm::shared]
struct Board {
    flags: [u8; 2],
    pos: Pos,
    owner: u8,
}

fn main() {}
