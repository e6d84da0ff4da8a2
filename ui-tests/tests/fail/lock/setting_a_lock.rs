use dsm::prelude::*;

#[dsm::shared]
struct Bank {
    balance: dsm::field::Mutex<u64>,
}

fn main() -> dsm::Result<()> {
    let session = Session::join("bank")?;
    session.open::<Bank>("bank")?.set_balance(7);
    Ok(())
}
