#[dsm::shared(version = 0)]
struct First {
    turn: u32,
}

#[dsm::shared(version = "2", name = "")]
struct Second {
    turn: u32,
}

fn main() {}
