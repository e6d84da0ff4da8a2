#[dsm::shared]
struct Board {
    turn: u32,
    #[cfg(debug_assertions)]
    checks: u32,
}

fn main() {}
