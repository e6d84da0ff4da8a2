#[dsm::shared]
struct Board {
    strategy: dyn Fn(u32),
}

fn main() {}
