#[dsm::main]
struct Main {
    turn: u32,
}

fn main() {}
