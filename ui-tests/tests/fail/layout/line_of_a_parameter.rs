#[dsm::shared]
struct Table<T: dsm::SharedType, const N: usize> {
    #[dsm(align = 64)]
    hot: T,
    #[dsm(align = 64)]
    cells: [u64; N],
    #[dsm(align = 64)]
    well: u32,
}

fn main() {}
