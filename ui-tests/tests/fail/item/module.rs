#[dsm::shared]
mod game {
    pub struct Board {
        pub turn: u32,
    }
}

fn main() {}
