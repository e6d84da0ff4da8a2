type Index = usize;

#[dsm::shared]
struct Board {
    at: Index,
}

fn main() {}
