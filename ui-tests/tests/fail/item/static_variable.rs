#[dsm::shared]
static TURN: u32 = 0;

fn main() {}
