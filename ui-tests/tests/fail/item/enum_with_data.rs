#[dsm::shared]
#[repr(u8)]
enum Move {
    Pass = 0,
    Step(i8) = 1,
    Jump { by: i8 } = 2,
}

fn main() {}
