#[dsm::shared]
struct Board {
    x: u32,
    set_x_ref: u32,
    x_ref: u32,
    x_atomic: u32,
}

fn main() {}
