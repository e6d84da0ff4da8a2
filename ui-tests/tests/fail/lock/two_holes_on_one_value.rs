use dsm::prelude::*;

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    let balances = session.rwlock::<[u64; 4]>("balances")?;
    let mut guard = balances.write()?;
    let mut first = guard.hole()?;
    let second = guard.hole()?;
    first[0] = second[1];
    Ok(())
}
