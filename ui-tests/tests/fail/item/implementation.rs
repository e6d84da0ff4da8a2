struct Board {
    turn: u32,
}

#[dsm::shared]
impl Board {
    fn turn(&self) -> u32 {
        self.turn
    }
}

fn main() {}
