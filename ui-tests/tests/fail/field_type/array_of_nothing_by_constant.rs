const LEN: usize = 0;

#[dsm::shared]
struct Board {
    turn: u32,
    cells: [u32; LEN],
}

fn main() {}
