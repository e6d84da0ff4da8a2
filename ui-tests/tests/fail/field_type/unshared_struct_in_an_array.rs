#[derive(Clone, Copy)]
struct Pos {
    x: f32,
    y: f32,
}

#[dsm::shared]
struct Board {
    trail: [Pos; 8],
}

fn main() {}
