#[dsm::shared]
struct Board {
    pair: (u32, u32),
    nothing: (),
    rest: [u8],
}

fn main() {}
