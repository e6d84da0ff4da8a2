#[dsm::shared]
struct Board<'a> {
    turn: u32,
    name: &'a u32,
}

fn main() {}
