fn keep(numbers: dsm::Slice<'_, u64>) -> dsm::Result<()> {
    let mut hole = numbers.hole()?;
    let first = &mut hole[0];
    hole.fill()?;
    *first = 1;
    Ok(())
}

fn main() {}
