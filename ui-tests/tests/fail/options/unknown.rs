#[dsm::shared(size = 64)]
struct Board {
    turn: u32,
}

fn main() {}
