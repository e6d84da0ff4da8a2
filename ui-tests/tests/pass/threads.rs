//! Guards and holes belong to a process, not to a thread: all of them can be sent to another thread, as long as the session
//! lasts (`fail/lock/guard_sent_beyond_its_session.rs`), and be dropped there.
use dsm::prelude::*;
use std::sync::Arc;

#[dsm::shared]
struct Account {
    balance: u64,
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn to_a_thread_of_the_sessions_scope(session: &Session) -> dsm::Result<()> {
    let (lock, account) = (session.semaphore("lock", 1)?.lock()?, session.mutex::<Account>("account")?.lock()?);
    let limits = session.rwlock::<[u64; 4]>("limits")?;
    let reader = limits.read()?;
    let phase = session.barrier("phase", 2)?.phase();
    let numbers = session.array::<u32>("numbers", 100)?;
    let (mut hole, raw) = (numbers.range(..10).hole()?, session.raw_hole(numbers.as_ptr().cast(), 4)?);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            account.value().set_balance(1);
            drop((lock, account, reader));
            drop(limits.write());
        });
        scope.spawn(move || {
            hole[0] = 7;
            hole.fill()?;
            raw.fill()?;
            phase.wait()
        });
    });
    Ok(())
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn to_any_thread_if_it_owns_its_part_in_the_session(session: &Arc<Session>) -> dsm::Result<()> {
    let guard = session.mutex_owned::<Account>("account")?.lock()?;
    std::thread::spawn(move || guard.value().set_balance(2));
    Ok(())
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn to_any_thread_if_the_session_is_never_left(session: Session) -> dsm::Result<()> {
    let guard = session.leak().mutex::<Account>("account")?.lock()?;
    std::thread::spawn(move || guard.value().set_balance(3));
    Ok(())
}
