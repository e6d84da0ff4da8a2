#[dsm::shared]
struct Cpu {
    load: u32,
    wait_until: u32,
    clone: u32,
    clone_from: u32,
}

fn main() {}
