#[dsm::shared]
struct Board {
    score: u64,
    flags: [u8; 7],
}

fn main() {}
