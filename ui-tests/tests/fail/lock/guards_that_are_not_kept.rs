#![deny(unused_must_use)]

use dsm::prelude::*;

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    session.mutex::<u64>("balance")?.lock()?;
    session.rwlock::<u64>("limit")?.read()?;
    session.semaphore("turns", 1)?.lock()?;
    session.barrier("end", 2)?.phase();
    Ok(())
}
