#[dsm::main(session = "game")]
fn main(session: &dsm::Session) -> u32 {
    session.rank() as u32
}
