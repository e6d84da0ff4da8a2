#[dsm::shared]
struct Board {
    owner: Option<&'static u32>,
    winner: Result<u32, u8>,
}

fn main() {}
