#[dsm::shared]
#[repr(align(16))]
struct Board {
    turn: u64,
}

fn main() {}
