#[dsm::main]
fn start(session: &dsm::Session) -> dsm::Result<()> {
    session.fence()
}

fn main() {}
