#[dsm::shared]
struct Cpu {
    load: u32,
    clone: u32,
}

fn main() {}
