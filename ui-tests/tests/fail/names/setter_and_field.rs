#[dsm::shared]
struct Board {
    x: u32,
    set_x: u32,
}

fn main() {}
