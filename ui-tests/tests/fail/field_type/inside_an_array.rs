#[dsm::shared]
struct Board {
    cells: [[bool; 8]; 8],
}

fn main() {}
