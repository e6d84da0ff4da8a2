use dsm::prelude::*;

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    let balances = session.rwlock::<[u64; 4]>("balances")?;
    let mut hole = balances.write()?.hole()?;
    hole[0] = 7;
    Ok(())
}
