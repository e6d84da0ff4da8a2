//! Locks around values, semaphores and barriers, as a program uses them: what `fail/lock` gets wrong.
use dsm::field::{self, Mutex, RwLock};
use dsm::prelude::*;
use dsm::{LockError, MutexGuard};
use std::sync::Arc;
use std::time::Duration;

#[dsm::shared]
struct Account {
    balance: u64,
}

#[dsm::shared]
struct Bank {
    // By its bare name; std's would be refused.
    account: Mutex<Account>,
    limits: RwLock<[u64; 4]>,
    counters: field::Semaphore<4>,
    round: field::Barrier<2>,
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn fields(session: &Session) -> dsm::Result<u64> {
    let bank = session.open::<Bank>("bank")?;
    let guard = bank.account().lock()?;
    let account = guard.value();
    account.set_balance(account.balance() + 1);
    drop(guard);

    if let Some(guard) = bank.account().try_lock()? {
        let mut guard = guard;
        let mut hole = hole(&mut guard)?;
        hole.balance += 1;
        hole.fill()?;
    }
    let guard = match bank.account().lock_timeout(Duration::from_secs(1)) {
        Ok(guard) => guard,
        Err(LockError::OwnerDied(guard, _)) => guard, // and the account is set right
        Err(LockError::Other(error)) => return Err(error),
    };
    let balance = guard.value().balance();

    bank.limits().write()?.value().set(0, balance);
    let sum = bank.limits().read()?.value().as_slice().iter().sum();
    let reader = bank.read_only().limits().read()?;
    let _: ReadOnly<'_, [u64; 4]> = reader.value();

    let _units = bank.counters()?.acquire_many(2)?;
    let _is_leader = bank.round()?.wait()?.is_leader();
    let _phase = bank.round()?.phase();
    Ok(sum)
}

/// The hole ends before the guard does.
fn hole<'a>(guard: &'a mut MutexGuard<'_, Account>) -> dsm::Result<dsm::ValueHole<'a, Account>> {
    guard.hole()
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn by_name(session: &Session) -> dsm::Result<()> {
    let account = session.mutex::<Account>("account")?;
    account.lock()?.value().set_balance(7);
    let rates = session.rwlock::<[f64; 8]>("rates")?;
    rates.write()?.value().set(0, 0.5);
    let _seen: f64 = rates.read()?.value().get(0);
    let turns = session.semaphore("turns", 1)?;
    {
        let _turn = turns.lock()?;
    }
    session.barrier("end", 2)?.wait()?;
    Ok(())
}

/// Guards that own what they need, for other threads.
#[expect(dead_code, reason = "that it compiles is the test")]
fn owned(session: Session) -> dsm::Result<()> {
    let session = Arc::new(session);
    let turns = session.semaphore_owned("turns", 1)?;
    std::thread::spawn(move || turns.lock().map(drop).is_ok());
    Ok(())
}

/// Programs whose functions return any error.
#[expect(dead_code, reason = "that it compiles is the test")]
fn any_error(session: &Session) -> Result<u32, Box<dyn std::error::Error>> {
    let turns = session.semaphore("turns", 1)?;
    let _turn = turns.lock()?;
    let account = session.mutex::<Account>("account")?.lock()?;
    account.value().set_balance("7".parse()?);
    Ok("3".parse()?)
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn any_error_that_can_be_sent(session: &Session) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let _reader = session.rwlock::<u64>("limit")?.try_read()?;
    Ok(())
}

#[dsm::shared]
struct Guest {
    name: dsm::Text<28>,
    next: dsm::Pointer<Guest>,
    rooms: dsm::List<u32, 6>,
}

/// What goes wrong with texts, lists and pointers is an error of the crate's, too.
#[expect(dead_code, reason = "that it compiles is the test")]
fn texts(guest: Shared<'_, Guest>) -> dsm::Result<String> {
    guest.name().set("Ann")?;
    guest.rooms().push(3)?;
    guest.next().point_to(Some(guest))?;
    match guest.next().follow()? {
        Some(next) => Ok(next.name().get()?),
        None => Ok(String::new()),
    }
}
