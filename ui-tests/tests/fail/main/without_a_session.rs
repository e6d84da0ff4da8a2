#[dsm::main]
fn main() -> dsm::Result<()> {
    Ok(())
}
