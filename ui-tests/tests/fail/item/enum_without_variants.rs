#[dsm::shared]
enum Nothing {}

fn main() {}
