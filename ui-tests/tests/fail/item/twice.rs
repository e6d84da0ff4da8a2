#[dsm::shared]
#[dsm::shared]
struct Board {
    turn: u32,
}

fn main() {}
