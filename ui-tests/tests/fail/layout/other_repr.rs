#[dsm::shared]
#[repr(transparent)]
struct Board {
    turn: u32,
}

fn main() {}
