#[dsm::shared]
struct Board {
    cells: [[usize; 8]; 8],
}

fn main() {}
