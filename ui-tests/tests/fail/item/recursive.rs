#[dsm::shared]
struct Node {
    number: u64,
    next: Node,
}

fn main() {}
