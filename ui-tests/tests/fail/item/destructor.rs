#[dsm::shared]
struct Board {
    turn: u64,
}

impl Drop for Board {
    fn drop(&mut self) {}
}

fn main() {}
