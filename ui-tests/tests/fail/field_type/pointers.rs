#[dsm::shared]
struct Board {
    name: &'static str,
    raw: *mut u8,
    callback: fn(u32) -> u32,
    boxed: Box<u64>,
}

fn main() {}
