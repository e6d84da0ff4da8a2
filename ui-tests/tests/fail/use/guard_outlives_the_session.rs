use dsm::prelude::*;

fn main() -> dsm::Result<()> {
    let guard = {
        let session = Session::join("short")?;
        session.semaphore("lock", 1)?.lock()?
    };
    drop(guard);
    Ok(())
}
