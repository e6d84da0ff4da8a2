use dsm::prelude::*;

#[dsm::shared]
struct Account {
    balance: u64,
}

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    let account = session.mutex::<Account>("account")?;
    let value = {
        let guard = account.lock()?;
        guard.value()
    };
    value.set_balance(7);
    Ok(())
}
