#[dsm::shared]
trait Board {
    fn turn(&self) -> u32;
}

fn main() {}
