// One error, and none from what uses the struct.
use dsm::typed::Shared;

#[dsm::shared]
#[derive(Debug, PartialEq)]
struct Node {
    number: u64,
    next: Node,
    others: [Node; 3],
}

fn next(node: Shared<'_, Node>) -> u64 {
    node.set_number(node.number() + 1);
    node.load().next.number
}

fn main() {}
