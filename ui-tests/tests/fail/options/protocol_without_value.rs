#[dsm::shared(protocol)]
struct Board {
    turn: u32,
}

fn main() {}
