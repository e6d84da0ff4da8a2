#[dsm::main]
fn main(session: dsm::Session) -> dsm::Result<()> {
    session.fence()
}
