#[dsm::shared]
#[repr(C, packed)]
struct Board {
    flag: u8,
    turn: u32,
}

fn main() {}
