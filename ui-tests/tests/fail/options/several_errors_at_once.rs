#[dsm::shared(protocol = "eventual", fast, crate = dsm, crate = dsm)]
struct Board {
    turn: u32,
    is_over: bool,
    name: String,
}

fn main() {}
