use dsm::prelude::*;

#[dsm::shared]
struct Account {
    balance: u64,
}

#[dsm::shared]
struct Bank {
    account: dsm::field::Mutex<Account>,
}

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    let bank = session.open::<Bank>("bank")?;
    bank.account().set_balance(7);
    let inside = bank.load().account.0;
    Ok(())
}
