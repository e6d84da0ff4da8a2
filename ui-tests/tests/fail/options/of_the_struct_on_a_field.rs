#[dsm::shared]
struct Board {
    #[dsm(protocol = "replicated")]
    turn: u32,
}

fn main() {}
