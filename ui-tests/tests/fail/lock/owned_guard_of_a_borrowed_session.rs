use dsm::prelude::*;

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    let turns = session.semaphore_owned("turns", 1)?;
    std::thread::spawn(move || turns.lock().map(drop));
    Ok(())
}
