#[dsm::shared]
struct Board {
    turn: u23,
}

fn main() {}
