#[dsm::shared]
struct Pos(f32, f32);

fn main() {}
