#[dsm::shared]
struct Board {
    turn: u32,
    #[dsm(rename = "turn")]
    phase: u32,
}

fn main() {}
