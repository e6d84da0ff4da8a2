#[derive(Clone, Copy)]
#[dsm::shared]
struct Board {
    turn: u32,
}

fn main() {}
