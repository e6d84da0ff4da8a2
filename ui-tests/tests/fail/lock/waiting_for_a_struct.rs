use dsm::prelude::*;

#[dsm::shared]
struct Account {
    balance: u64,
}

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    session.open::<Account>("account")?.wait_until(|account| account.balance > 7)?;
    Ok(())
}
