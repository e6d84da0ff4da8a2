fn swap(numbers: dsm::Slice<'_, u64>) -> dsm::Result<()> {
    let mut hole = numbers.hole()?;
    let first = &mut hole[0];
    let second = &mut hole[1];
    std::mem::swap(first, second);
    hole.fill()
}

fn main() {}
