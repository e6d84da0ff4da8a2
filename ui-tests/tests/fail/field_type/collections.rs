use std::collections::HashMap;

#[dsm::shared]
struct Board {
    scores: Vec<u64>,
    name: String,
    players: HashMap<u32, u32>,
}

fn main() {}
