use dsm::prelude::*;

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    let guard = session.mutex::<[u64; 4]>("balances")?.lock()?;
    let balances = guard.value();
    drop(guard);
    balances.set(0, 7);
    Ok(())
}
