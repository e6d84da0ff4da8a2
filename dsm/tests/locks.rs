//! Values tied to their locks, owned guards, and sync objects as fields: across hosts, and after deaths.

mod common;

use common::{Cluster, PATIENCE, eventually, join_by_environment, role};
use dsm::field;
use dsm::prelude::*;
use dsm::typed::BadPointer;
use dsm::{Mutex, MutexGuard, OwnedSemaphore, OwnedSemaphoreGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use dsm::{OwnedMutex, OwnedMutexGuard, OwnedRwLock, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, Pointer};
use std::sync::Arc;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(30);

/// Equal whenever nobody is changing them.
#[dsm::shared]
struct Pair {
    left: u64,
    right: u64,
}

#[dsm::shared]
struct Desk {
    pair: field::Mutex<Pair>,
    limits: field::RwLock<[u64; 4]>,
    seats: field::Semaphore<2>,
    round: field::Barrier<2>,
}

#[dsm::shared]
struct Hall {
    visitors: u64,
    desks: [Desk; 3],
}

fn add(pair: Mutex<'_, Pair>, times: u64) {
    for _ in 0..times {
        let guard = pair.lock_timeout(PATIENCE).unwrap();
        let pair = guard.value();
        assert_eq!(pair.left(), pair.right());
        pair.set_left(pair.left() + 1);
        pair.set_right(pair.right() + 1);
    }
}

#[test]
fn whoever_has_the_lock_finds_what_the_last_owner_left() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "mutex"), cluster.join(1, "mutex"));
    let (here, there) = (a.mutex::<Pair>("pair").unwrap(), b.mutex::<Pair>("pair").unwrap());
    std::thread::scope(|scope| {
        for pair in [here, there] {
            for _ in 0..3 {
                scope.spawn(move || add(pair, 100));
            }
        }
    });
    let mut guard = there.lock().unwrap();
    assert_eq!((guard.value().left(), guard.value().right()), (600, 600));
    assert!(here.try_lock().unwrap().is_none());
    assert!(matches!(here.lock_timeout(SHORT), Err(LockError::Other(Error::TimedOut(SHORT)))));
    let token = guard.fencing_token();
    let mut hole = guard.hole().unwrap();
    (hole.left, hole.right) = (7, 7);
    drop(hole);
    drop(guard);
    let guard = here.lock_timeout(PATIENCE).unwrap();
    assert_eq!((guard.value().left(), guard.value().right()), (7, 7));
    assert!(guard.fencing_token() > token);
    drop(guard);
    // Not without the lock.
    assert!(matches!(a.open::<Pair>("pair"), Err(Error::TypeDiffers(_))));
    assert!(matches!(a.rwlock::<Pair>("pair"), Err(Error::TypeDiffers(_))));
    drop((a, b));
}

#[test]
fn readers_share_and_writers_do_not() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "rwlock"), cluster.join(1, "rwlock"));
    let (here, there) = (a.rwlock::<[u64; 40]>("words").unwrap(), b.rwlock::<[u64; 40]>("words").unwrap());
    std::thread::scope(|scope| {
        for words in [here, there] {
            scope.spawn(move || {
                for _ in 0..60 {
                    let guard = words.write_timeout(PATIENCE).unwrap();
                    let value = guard.value().get(0) + 1;
                    guard.value().as_slice().handles().for_each(|word| word.set(value));
                }
            });
            for _ in 0..2 {
                scope.spawn(move || {
                    let mut last = 0;
                    while last < 120 {
                        let seen = words.read_timeout(PATIENCE).unwrap().load();
                        assert!(seen.iter().all(|word| *word == seen[0]) && seen[0] >= last, "{seen:?}");
                        last = seen[0];
                    }
                });
            }
        }
    });
    let readers = [here.read().unwrap(), there.read().unwrap(), there.read().unwrap()];
    assert!(here.try_write().unwrap().is_none());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| drop(there.write_timeout(PATIENCE).unwrap()));
        // A writer that waits is not overtaken by readers that come after it.
        eventually("the writer waits", || here.try_read().unwrap().is_none());
        drop(readers);
        writer.join().unwrap();
    });
    drop(here.write_timeout(PATIENCE).unwrap());
    drop(here.try_write().unwrap().expect("what this host released is released"));
    drop((a, b));
}

#[test]
fn a_dead_owner_of_a_value_is_reported_until_it_is_repaired() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "dead");
    let (pair, ready) = (a.mutex::<Pair>("pair").unwrap(), a.open::<u64>("ready").unwrap());
    let holder = cluster.spawn(1, "holder", &[("HOLDS", "mutex")]);
    ready.wait_until_timeout(|ready| ready == 1, PATIENCE).unwrap();
    holder.kill();
    let Err(LockError::OwnerDied(guard, name)) = pair.lock_timeout(PATIENCE) else { panic!("nobody was told") };
    assert_eq!((guard.value().left(), guard.value().right(), name.as_str()), (1, 0, "pair"));
    drop(guard);
    // Not repaired: the next is told again.
    let guard = pair.lock_timeout(PATIENCE).unwrap_err().recover().unwrap();
    guard.value().set_right(1);
    drop(guard);
    add(pair, 1);
    drop(a);
}

#[test]
fn readers_that_die_leave_nothing_half_done_and_writers_do() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "dead"), cluster.join(1, "dead"));
    let (limits, ready) = (a.rwlock::<[u64; 4]>("limits").unwrap(), a.open::<u64>("ready").unwrap());
    let holder = cluster.spawn(1, "holder", &[("HOLDS", "read")]);
    ready.wait_until_timeout(|ready| ready == 1, PATIENCE).unwrap();
    assert!(limits.try_write().unwrap().is_none());
    holder.kill();
    drop(limits.write_timeout(PATIENCE).unwrap());
    let holder = cluster.spawn(1, "holder", &[("HOLDS", "write")]);
    ready.wait_until_timeout(|ready| ready == 2, PATIENCE).unwrap();
    holder.kill();
    let there = b.rwlock::<[u64; 4]>("limits").unwrap();
    // Every reader is told, also those who say that they can live with it.
    for limits in [limits, there, limits] {
        let guard = limits.read_timeout(PATIENCE).unwrap_err().recover().unwrap();
        assert_eq!(guard.load(), [1, 0, 0, 0]);
    }
    drop(there.write_timeout(PATIENCE).unwrap_err().recover().unwrap());
    let guard = limits.read_timeout(PATIENCE).unwrap();
    assert_eq!((guard.load(), guard.value().get(0)), ([1, 0, 0, 0], 1));
    drop(guard);
    drop((a, b));
}

#[test]
fn holder() {
    if !role("holder") {
        return;
    }
    let session = join_by_environment("dead");
    let ready = session.open::<u64>("ready").unwrap().atomic();
    let limits = session.rwlock::<[u64; 4]>("limits").unwrap();
    let pair = session.mutex::<Pair>("pair").unwrap();
    let held: Box<dyn std::any::Any> = match std::env::var("HOLDS").unwrap().as_str() {
        "mutex" => {
            let guard = pair.lock().unwrap();
            guard.value().set_left(1);
            ready.fetch_add(1, SeqCst);
            sleep(guard)
        }
        "read" => {
            let guard = limits.read().unwrap();
            ready.fetch_add(1, SeqCst);
            sleep(guard)
        }
        _ => {
            let guard = limits.write().unwrap();
            guard.value().set(0, 1);
            ready.fetch_add(1, SeqCst);
            sleep(guard)
        }
    };
    drop(held);
}

fn sleep<G>(_guard: G) -> Box<dyn std::any::Any> {
    loop {
        std::thread::sleep(PATIENCE);
    }
}

#[test]
fn a_panic_with_the_lock_in_hand_is_reported_like_a_death() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "panic");
    let (pair, words) = (a.mutex::<Pair>("pair").unwrap(), a.rwlock::<u64>("word").unwrap());
    std::thread::scope(|scope| {
        let panics = [
            scope.spawn(move || {
                let guard = pair.lock().unwrap();
                guard.value().set_left(1);
                panic!("for the test");
            }),
            scope.spawn(move || {
                let _guard = words.write().unwrap();
                panic!("for the test");
            }),
        ];
        panics.into_iter().for_each(|thread| drop(thread.join().unwrap_err()));
    });
    assert!(matches!(words.read(), Err(LockError::OwnerDied(..))));
    drop(words.write().unwrap_err().recover().unwrap());
    drop(words.read().unwrap());
    let guard = pair.lock().unwrap_err().recover().unwrap();
    guard.value().set_left(0);
    drop(guard);
    add(pair, 1);
    drop(a);
}

#[test]
fn owned_guards_outlive_every_borrow() {
    let cluster = Cluster::new();
    let (a, b) = (Arc::new(cluster.join(0, "owned")), cluster.join(1, "owned"));
    let lock = a.semaphore_owned("lock", 2).unwrap();
    let there = b.semaphore("lock", 2).unwrap();
    drop(a);
    let guards = (lock.lock().unwrap(), lock.clone().try_lock().unwrap().expect("a unit is free"));
    assert!(lock.try_lock().unwrap().is_none() && there.try_lock().unwrap().is_none());
    assert!(matches!(lock.acquire_many_timeout(2, SHORT), Err(LockError::Other(Error::TimedOut(SHORT)))));
    std::thread::spawn(move || drop(guards)).join().unwrap();
    let guards = lock.try_acquire_many(2).unwrap().expect("both units are free");
    assert!(guards.units() == 2 && lock.try_acquire_many(1).unwrap().is_none());
    // The session stays joined until the last of them is gone.
    drop(lock);
    std::thread::spawn(move || drop(guards)).join().unwrap();
    assert_eq!(there.acquire_many_timeout(2, PATIENCE).unwrap().units(), 2);
    drop(b);
}

#[test]
fn values_with_owned_locks_outlive_every_borrow() {
    let cluster = Cluster::new();
    let (a, b) = (Arc::new(cluster.join(0, "owned")), Arc::new(cluster.join(1, "owned")));
    let (pair, words) = (a.mutex_owned::<Pair>("pair").unwrap(), a.rwlock_owned::<[u64; 4]>("words").unwrap());
    let (pair_there, words_there) =
        (b.mutex_owned::<Pair>("pair").unwrap(), b.rwlock_owned::<[u64; 4]>("words").unwrap());
    drop((a, b));
    let threads = [(pair.clone(), words.clone()), (pair_there.clone(), words_there)].map(|(pair, words)| {
        std::thread::spawn(move || {
            for _ in 0..50 {
                let mut guard = pair.lock_timeout(PATIENCE).unwrap();
                let mut hole = guard.hole().unwrap();
                (hole.left, hole.right) = (hole.left + 1, hole.right + 1);
                hole.fill().unwrap();
                drop(guard);
                let guard = async_io::block_on(words.write_async()).unwrap();
                guard.value().store(&guard.value().load().map(|word| word + 1));
            }
            words
        })
    });
    let [_, words_there] = threads.map(|thread| thread.join().unwrap());
    let guard = async_io::block_on(pair_there.lock_async()).unwrap();
    assert_eq!((guard.value().left(), guard.value().right()), (100, 100));
    assert!(pair.try_lock().unwrap().is_none());
    assert!(matches!(pair.lock_timeout(SHORT), Err(LockError::Other(Error::TimedOut(SHORT)))));
    // The last of its session.
    drop(pair_there);
    std::thread::spawn(move || drop(guard)).join().unwrap();
    let readers = (words.read().unwrap(), words_there.try_read().unwrap().expect("readers share"));
    assert_eq!((readers.0.load(), readers.1.value().get(3)), ([100; 4], 100));
    assert!(words.try_write().unwrap().is_none());
    drop(readers);
    // A panic with it in hand is told to the next.
    std::thread::spawn(move || {
        let _guard = words_there.write().unwrap();
        std::panic::resume_unwind(Box::new("for the test"));
    })
    .join()
    .unwrap_err();
    drop(words.write_timeout(PATIENCE).unwrap_err().recover().unwrap());
    drop(words.read_timeout(PATIENCE).unwrap());
    assert_eq!(pair.session().name(), words.session().name());
}

#[dsm::shared]
struct Shelf {
    number: u64,
    locked: [field::Mutex<Pair>; 2],
    nested: field::RwLock<Desk>,
    last: u64,
}

#[dsm::shared]
struct Ways {
    to_pair: Pointer<Pair>,
    to_lock: Pointer<field::Mutex<Pair>>,
    to_word: Pointer<u64>,
    to_desk: Pointer<Desk>,
}

#[test]
fn no_pointer_leads_past_a_lock() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "past"), cluster.join(1, "past"));
    let [(shelf, ways), (shelf_there, ways_there)] = [&a, &b]
        .map(|session| (session.array::<Shelf>("shelves", 3).unwrap().at(1), session.open::<Ways>("ways").unwrap()));
    {
        let guard = shelf.locked().at(1).lock().unwrap();
        guard.value().set_left(7);
        ways.to_pair().point_to(Some(guard.value())).unwrap();
        ways.to_word().point_to(Some(guard.value().left_ref())).unwrap();
        let nested = shelf.nested().write().unwrap();
        ways.to_desk().point_to(Some(nested.value())).unwrap();
        // A lock behind a lock.
        ways.to_lock().point_to(Some(nested.value().pair_ref())).unwrap();
    }
    a.fence().unwrap();
    eventually("the pointers arrive", || !ways_there.to_lock().load().is_null());
    for (session, ways) in [(&a, ways), (&b, ways_there)] {
        assert!(matches!(ways.to_pair().follow(), Err(BadPointer::Locked(_))));
        assert!(matches!(ways.to_pair_ref().read_only().follow(), Err(BadPointer::Locked(_))));
        assert!(matches!(ways.to_pair().load().resolve(session), Err(BadPointer::Locked(_))));
        assert!(matches!(ways.to_word().follow(), Err(BadPointer::Locked(_))));
        assert!(matches!(ways.to_desk().follow(), Err(BadPointer::Locked(_))));
        assert!(matches!(ways.to_lock().follow(), Err(BadPointer::Locked(_))));
    }
    // To the lock itself, and to what lies beside it.
    ways_there.to_lock().point_to(Some(shelf_there.locked().at(1))).unwrap();
    ways_there.to_word().point_to(Some(shelf_there.last_ref())).unwrap();
    shelf_there.set_last(9);
    b.fence().unwrap();
    eventually("the last arrives", || shelf.last() == 9);
    assert_eq!(ways.to_word().follow().unwrap().unwrap().get(), 9);
    assert_eq!(ways.to_lock().follow().unwrap().unwrap().lock_timeout(PATIENCE).unwrap().value().left(), 7);
    drop((a, b));
}

#[test]
fn guards_belong_to_a_process_and_not_to_a_thread() {
    fn anywhere<T: Send + Sync>() {}
    anywhere::<SemaphoreGuard<'_>>();
    anywhere::<OwnedSemaphore>();
    anywhere::<OwnedSemaphoreGuard>();
    anywhere::<Mutex<'_, Pair>>();
    anywhere::<MutexGuard<'_, Pair>>();
    anywhere::<RwLock<'_, Pair>>();
    anywhere::<RwLockReadGuard<'_, Pair>>();
    anywhere::<RwLockWriteGuard<'_, Pair>>();
    anywhere::<dsm::BarrierGuard<'_>>();
    anywhere::<OwnedMutex<Pair>>();
    anywhere::<OwnedMutexGuard<Pair>>();
    anywhere::<OwnedRwLock<Pair>>();
    anywhere::<OwnedRwLockReadGuard<Pair>>();
    anywhere::<OwnedRwLockWriteGuard<Pair>>();
    anywhere::<dsm::ReadLock<'_, Pair>>();
    anywhere::<dsm::LockError<MutexGuard<'_, Pair>>>();
    anywhere::<Semaphore<'_>>();
    anywhere::<Barrier<'_>>();
    anywhere::<dsm::BarrierWaitResult>();
}

#[test]
fn handles_and_holes_go_to_any_thread() {
    fn anywhere<T: Send + Sync>() {}
    anywhere::<Session>();
    anywhere::<dsm::Builder>();
    anywhere::<Error>();
    anywhere::<Shared<'_, Pair>>();
    anywhere::<ReadOnly<'_, Pair>>();
    anywhere::<Slice<'_, Pair>>();
    anywhere::<ReadOnlySlice<'_, Pair>>();
    anywhere::<dsm::typed::IntoIter<'_, Pair>>();
    anywhere::<dsm::typed::Unstructured<'_, u64>>();
    anywhere::<Atomic<'_, u64>>();
    anywhere::<dsm::typed::AtomicFlag<'_>>();
    anywhere::<Hole<'_, Pair>>();
    anywhere::<ValueHole<'_, Pair>>();
    anywhere::<RawHole<'_>>();
    anywhere::<dsm::typed::Draft<'_, Pair>>();
    anywhere::<dsm::Versioned<Pair>>();
    anywhere::<Pointer<Pair>>();
    anywhere::<dsm::Text<8>>();
    anywhere::<dsm::List<u8, 8>>();
    anywhere::<dsm::typed::Line<u8, 63>>();
    anywhere::<field::Mutex<Pair>>();
    anywhere::<dsm::Team<'_>>();
    anywhere::<dsm::Layout>();
    anywhere::<BadPointer>();
    anywhere::<dsm::InvalidValue>();
    anywhere::<dsm::typed::InvalidText>();
    anywhere::<dsm::typed::CapacityError>();
    anywhere::<dsm::Listing>();
    anywhere::<dsm::SessionStatus>();
}

#[test]
fn fields_are_objects_by_their_place() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "fields"), cluster.join(1, "fields"));
    let (here, there) = (a.open::<Hall>("hall").unwrap(), b.open::<Hall>("hall").unwrap());
    // Not the desks of another hall.
    let other = a.open::<Hall>("other").unwrap();
    let held = here.desks().at(1).pair().lock().unwrap();
    for (session, desks, busy) in [(&a, here.desks(), 1), (&b, there.desks(), 1), (&a, other.desks(), 9)] {
        for at in 0..3 {
            let free = desks.at(at).pair().try_lock().unwrap().is_some();
            assert_eq!(free, at != busy, "desk {at}");
        }
        // So that what was released is free for the other host too.
        session.fence_timeout(PATIENCE).unwrap();
    }
    drop(held);
    std::thread::scope(|scope| {
        for hall in [here, there] {
            for _ in 0..2 {
                scope.spawn(move || hall.desks().handles().for_each(|desk| add(desk.pair(), 25)));
            }
        }
    });
    for desk in here.desks().handles() {
        assert_eq!(desk.pair().lock().unwrap().value().left(), 100);
    }
    let seats = (here.desks().at(0).seats().unwrap(), there.desks().at(0).seats().unwrap());
    let taken = (seats.0.lock().unwrap(), seats.1.lock().unwrap());
    assert!(
        seats.0.try_lock().unwrap().is_none()
            && there.desks().at(2).seats().unwrap().try_acquire_many(2).unwrap().is_some()
    );
    drop(taken);
    std::thread::scope(|scope| {
        let rounds = [here, there].map(|hall| {
            scope.spawn(move || {
                let round = hall.desks().at(2).round().unwrap();
                (0..50).filter(|_| round.wait_timeout(PATIENCE).unwrap().is_leader()).count()
            })
        });
        assert_eq!(rounds.map(|thread| thread.join().unwrap()).iter().sum::<usize>(), 50);
    });
    let locks = (a.array::<field::Mutex<u64>>("locks", 9).unwrap(), b.array::<field::Mutex<u64>>("locks", 9).unwrap());
    let held = locks.0.at(3).lock().unwrap();
    held.value().set(7);
    assert!(locks.1.at(3).try_lock().unwrap().is_none() && locks.1.at(4).try_lock().unwrap().is_some());
    drop(held);
    assert_eq!(locks.1.at(3).lock_timeout(PATIENCE).unwrap().value().get(), 7);
    there.desks().at(1).limits().write().unwrap().value().set(3, 9);
    assert_eq!(here.desks().at(1).limits().read().unwrap().load(), [0, 0, 0, 9]);
    // Read-only: the same lock, but nothing that could store.
    let desk = there.desks().at(1);
    let guard = SharedType::read_field(desk.limits_ref().read_only()).read_timeout(PATIENCE).unwrap();
    let seats = SharedType::read_field(desk.seats_ref().read_only()).unwrap();
    assert_eq!((guard.value().get(3), seats.try_acquire_many(2).unwrap().is_some()), (9, true));
    assert!(here.desks().at(1).limits().try_write().unwrap().is_none());
    drop(guard);
    drop((a, b));
}

#[test]
fn fields_differ_by_their_numbers() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "numbers");
    a.open::<field::Semaphore<2>>("seats").unwrap();
    let Err(Error::TypeDiffers(text)) = a.open::<field::Semaphore<3>>("seats") else { panic!("opened") };
    assert!(text.contains("`Semaphore<3>`") && text.contains("`Semaphore<2>`"), "{text}");
    assert!(matches!(a.open::<field::Barrier<2>>("seats"), Err(Error::TypeDiffers(_))));
    drop(a);
}

#[test]
fn a_forked_child_has_locks_of_its_own_and_not_its_parents() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "forked");
    cluster.spawn(1, "forks", &[]).succeeds();
    assert_eq!(a.mutex::<Pair>("pair").unwrap().lock().unwrap().value().load().left, 2);
    drop(a);
}

#[test]
fn forks() {
    if !role("forks") {
        return;
    }
    let session = join_by_environment("forked");
    let (pair, desk) = (session.mutex::<Pair>("pair").unwrap(), session.open::<Desk>("desk").unwrap());
    let lock = session.semaphore("lock", 1).unwrap();
    let guard = async_io::block_on(lock.lock_async()).unwrap();
    // A wait that the parent has begun, and goes on with.
    let mut waiting = Box::pin(lock.lock_async());
    assert!(async_io::block_on(futures_lite::future::poll_once(waiting.as_mut())).is_none());
    let held = pair.lock().unwrap();
    desk.round().unwrap();
    // SAFETY: the child ends without returning to the test harness.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let child = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let gone_on = std::future::Future::poll(waiting.as_mut(), &mut context);
            assert!(matches!(gone_on, std::task::Poll::Ready(Err(LockError::Other(Error::Unavailable(_))))));
            drop((held, guard, waiting));
            assert!(pair.try_lock().unwrap().is_none(), "a child gave back what its parent holds");
            assert!(lock.try_lock().unwrap().is_none(), "a child gave back what its parent holds");
            let mut again = std::pin::pin!(lock.lock_async());
            let again = std::future::Future::poll(again.as_mut(), &mut context);
            assert!(matches!(again, std::task::Poll::Ready(Err(LockError::Other(Error::Unavailable(_))))));
            desk.round().unwrap().wait_timeout(PATIENCE).unwrap();
            let guard = pair.lock_timeout(PATIENCE).unwrap();
            guard.value().set_left(guard.value().left() + 1);
            drop(guard);
            // Leaves, and takes nothing of its parent's along.
            // SAFETY: nothing uses it after this; the child ends without dropping it again.
            drop(unsafe { std::ptr::read(&raw const session) });
        }));
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(child.is_err())) };
    }
    desk.round().unwrap().wait_timeout(PATIENCE).unwrap();
    held.value().set_left(held.value().left() + 1);
    drop((held, guard));
    drop(async_io::block_on(waiting).unwrap());
    let mut status = 1;
    // SAFETY: waits for our child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child failed");
}
