#[dsm::shared]
struct Board {
    #[dsm(hot)]
    turn: u32,
    #[dsm(align = 16)]
    phase: u32,
    #[dsm(rename)]
    round: u32,
    #[dsm(rename = "not a name")]
    score: u32,
    #[dsm]
    rest: [u32; 15],
}

fn main() {}
