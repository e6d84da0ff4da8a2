#[dsm::shared(read_only, align = 64)]
struct Board {
    turn: u32,
}

fn main() {}
