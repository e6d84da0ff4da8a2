use dsm::prelude::*;

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    let balances = session.rwlock::<[u64; 4]>("balances")?;
    let guard = balances.read()?;
    guard.value().set(0, 7);
    guard.hole()?[0] = 7;
    Ok(())
}
