#[dsm::shared(crate = elsewhere)]
struct Board {
    turn: u32,
}

fn main() {}
