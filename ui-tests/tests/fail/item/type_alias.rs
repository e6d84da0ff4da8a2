#[dsm::shared]
type Score = u32;

fn main() {}
