#[dsm::shared]
struct Pair<T, const N: usize> {
    both: [T; N],
}

fn main() {}
