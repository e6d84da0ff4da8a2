#[dsm::shared]
struct Board {
    turn: u32,
    #[dsm(align = 64)]
    hot: u32,
}

fn main() {}
