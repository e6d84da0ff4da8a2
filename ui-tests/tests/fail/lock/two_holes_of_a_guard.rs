use dsm::prelude::*;

fn swap(balances: dsm::Mutex<'_, [u64; 4]>) -> dsm::Result<()> {
    let mut guard = balances.lock()?;
    let mut one = guard.hole()?;
    let mut other = guard.hole()?;
    std::mem::swap(&mut *one, &mut *other);
    Ok(())
}

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    swap(session.mutex("balances")?)
}
