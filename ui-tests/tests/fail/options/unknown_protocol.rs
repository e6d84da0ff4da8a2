#[dsm::shared(protocol = "paged")]
struct Board {
    turn: u32,
}

fn main() {}
