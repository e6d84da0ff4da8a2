#[dsm::shared]
struct Pair(u8, u32);

fn main() {}
