#[dsm::shared]
struct Board {
    turn: u32,
    cells: [u32; 0],
}

fn main() {}
