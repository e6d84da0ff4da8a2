#[dsm::shared]
struct Nothing();

fn main() {}
