#[dsm::shared]
fn turn() -> u32 {
    1
}

fn main() {
    turn();
}
