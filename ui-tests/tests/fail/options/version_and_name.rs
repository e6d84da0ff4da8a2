#[dsm::shared(version = 0)]
struct First {
    turn: u32,
}

#[dsm::shared(version = "2", name = "", protocol = 3, version = 1 2)]
struct Second {
    #[dsm(rename = turn, align = 16, skip_accessors)]
    turn: u32,
}

fn main() {}
