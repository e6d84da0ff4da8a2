fn again(numbers: dsm::Slice<'_, u64>) -> dsm::Result<()> {
    let mut hole = numbers.hole()?;
    hole[0] = 1;
    hole.fill()?;
    hole[1] = 2;
    Ok(())
}

fn main() {}
