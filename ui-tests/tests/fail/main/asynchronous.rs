// One error, and what the function uses is used.
use dsm::prelude::*;

#[dsm::main]
async fn main(session: &Session) -> dsm::Result<()> {
    session.barrier("end", 1)?.wait()?;
    Ok(())
}
