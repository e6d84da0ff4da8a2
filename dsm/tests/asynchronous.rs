//! Asynchronous waits: on one thread, across hosts; what a dropped future leaves; load; the end of the session.

mod common;
#[path = "common/tasks.rs"]
mod tasks;

use async_io::Timer;
use common::{Cluster, PATIENCE, eventually, join_by_environment, role};
use dsm::prelude::*;
use futures_lite::future::{or, poll_once, zip};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tasks::run;

const SHORT: Duration = Duration::from_millis(30);

/// `None` when the future is not done after a short while; it is dropped then.
async fn briefly<T>(future: impl Future<Output = T>) -> Option<T> {
    or(async { Some(future.await) }, async {
        Timer::after(SHORT).await;
        None
    })
    .await
}

#[test]
fn a_phase_can_end_in_time_or_be_awaited() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "phase"), cluster.join(1, "phase"));
    let (barrier, there) = (a.barrier("b", 2).unwrap(), b.barrier("b", 2).unwrap());
    assert!(matches!(barrier.phase().wait_timeout(SHORT), Err(Error::TimedOut(SHORT))));
    let leaders = run(async {
        let (one, other) = zip(barrier.phase().wait_async(), there.phase().wait_async()).await;
        [one, other].map(|result| u32::from(result.unwrap().is_leader())).iter().sum::<u32>()
    });
    assert_eq!(leaders, 1);
    // Not even begun, or given up: the phase has ended, and nothing waits.
    drop(barrier.phase().wait_async());
    assert!(run(briefly(barrier.phase().wait_async())).is_none());
    // What was taken back is taken back before the other party comes, or it would have met that arrival.
    a.fence_timeout(PATIENCE).unwrap();
    let (one, other) = run(zip(barrier.wait_async(), there.wait_async()));
    assert!(one.unwrap().is_leader() != other.unwrap().is_leader());
    drop((a, b));
}

#[test]
fn everything_that_waits_can_be_awaited_on_one_thread() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "all"), cluster.join(1, "all"));
    let (lock, there) = (a.semaphore("lock", 1).unwrap(), b.semaphore("lock", 1).unwrap());
    let (pair, pair_there) = (a.mutex::<[u64; 2]>("pair").unwrap(), b.mutex::<[u64; 2]>("pair").unwrap());
    let (words, words_there) = (a.rwlock::<u64>("words").unwrap(), b.rwlock::<u64>("words").unwrap());
    let (barrier, barrier_there) = (a.barrier("b", 2).unwrap(), b.barrier("b", 2).unwrap());
    let (turn, turn_there) = (a.open::<u64>("turn").unwrap(), b.open::<u64>("turn").unwrap());
    // Two tasks of one thread, each a process of another host: they would wait for each other for ever if one blocked.
    let here = async {
        for round in 0..40 {
            turn.wait_until_async(|turn| turn == 2 * round).await.unwrap();
            let guard = lock.lock_async().await.unwrap();
            turn.set(2 * round + 1);
            drop(guard);
            barrier.wait_async().await.unwrap();
            let guard = pair.lock_async().await.unwrap();
            let count = guard.value().get(0) + 1;
            guard.value().store(&[count; 2]);
            drop(guard);
            a.fence_async().await.unwrap();
            let seen = words.read_async().await.unwrap().load();
            assert!(seen >= round && seen <= round + 1, "{seen} in round {round}");
        }
    };
    let there = async {
        let mut leader = 0;
        for round in 0..40 {
            turn_there.atomic().wait_until_async(|turn| turn == 2 * round + 1).await.unwrap();
            let guard = there.acquire_many_async(1).await.unwrap();
            turn_there.set(2 * round + 2);
            drop(guard);
            leader += u64::from(barrier_there.wait_async().await.unwrap().is_leader());
            let guard = pair_there.lock_async().await.unwrap();
            let [left, right] = guard.value().load();
            assert_eq!(left, right);
            guard.value().store(&[left + 1; 2]);
            drop(guard);
            let guard = words_there.write_async().await.unwrap();
            guard.value().set(guard.value().get() + 1);
        }
        leader
    };
    let ((), leader) = run(zip(here, there));
    assert!(leader <= 40);
    assert_eq!(pair.lock().unwrap().value().load(), [80, 80]);
    drop((a, b));
}

#[test]
fn a_dropped_wait_for_a_lock_leaves_the_line_or_gives_back() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "drop"), cluster.join(1, "drop"));
    let (lock, there) = (a.semaphore("lock", 2).unwrap(), b.semaphore("lock", 2).unwrap());
    run(async {
        // Never polled: never asked.
        drop(lock.acquire_many_async(2));
        let both = there.acquire_many_async(2).await.unwrap();
        assert!(briefly(lock.acquire_many_async(2)).await.is_none());
        // It stands in line no more: whoever comes later is not behind it.
        drop(both);
        drop(there.lock_timeout(PATIENCE).unwrap());
        // Dropped at every stage between being asked and having come.
        for round in 0..200u32 {
            let mut asked = pin!(lock.acquire_many_async(2));
            if poll_once(asked.as_mut()).await.is_none() {
                for _ in 0..round % 20 {
                    std::thread::yield_now();
                    if round % 3 == 0 && poll_once(asked.as_mut()).await.is_some() {
                        break;
                    }
                }
            }
        }
        let both = there.acquire_many_timeout(2, PATIENCE).unwrap();
        assert!(lock.try_lock().unwrap().is_none());
        drop(both);
    });
    drop((a, b));
}

#[test]
fn the_news_of_a_death_outlives_a_dropped_wait() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "news");
    let (lock, ready) = (a.semaphore("lock", 1).unwrap(), a.open::<u64>("ready").unwrap());
    let holder = cluster.spawn(1, "holder", &[]);
    run(async {
        ready.wait_until_async(|ready| ready == 1).await.unwrap();
        let mut first = Box::pin(lock.lock_async());
        assert!(poll_once(first.as_mut()).await.is_none());
        holder.kill();
        // Granted, with the news, and nobody looks.
        eventually("the unit is somebody's again", || {
            let list = a.list().unwrap();
            list.semaphores.iter().any(|of| of.name == "lock" && (of.units, of.waiting) == (0, 0))
        });
        drop(first);
        let guard = lock.lock_async().await.unwrap_err().recover().unwrap();
        drop(guard);
        drop(lock.lock_async().await.unwrap());
    });
    drop(a);
}

#[test]
fn holder() {
    if !role("holder") {
        return;
    }
    let session = join_by_environment("news");
    let _g = session.semaphore("lock", 1).unwrap().lock().unwrap();
    session.open::<u64>("ready").unwrap().set(1);
    loop {
        std::thread::sleep(PATIENCE);
    }
}

#[test]
fn a_dropped_arrival_is_taken_back() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "arrive"), cluster.join(1, "arrive"));
    let (barrier, there) = (a.barrier("b", 2).unwrap(), b.barrier("b", 2).unwrap());
    run(async {
        for _ in 0..3 {
            assert!(briefly(barrier.wait_async()).await.is_none());
        }
        a.fence_async().await.unwrap();
        assert!(matches!(there.wait_timeout(SHORT), Err(Error::TimedOut(_))), "an arrival that was taken back counted");
        // One that all others had come for counts, though nobody looks at how it ended.
        let mut arrived = Box::pin(barrier.wait_async());
        assert!(poll_once(arrived.as_mut()).await.is_none());
        a.fence_async().await.unwrap();
        there.wait_timeout(PATIENCE).unwrap();
        drop(arrived);
        let (one, other) = zip(barrier.wait_async(), there.wait_async()).await;
        assert!(one.unwrap().is_leader() != other.unwrap().is_leader());
    });
    drop((a, b));
}

#[test]
fn a_party_that_dies_ends_the_wait() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "party");
    let (barrier, ready) = (a.barrier("b", 2).unwrap(), a.open::<u64>("ready").unwrap());
    let party = cluster.spawn(1, "party", &[]);
    run(async {
        ready.wait_until_async(|ready| ready == 1).await.unwrap();
        let mut waiting = Box::pin(barrier.wait_async());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        party.kill();
        assert!(matches!(waiting.await, Err(Error::BarrierBroken(_))));
    });
    drop(a);
}

#[test]
fn party() {
    if !role("party") {
        return;
    }
    let session = join_by_environment("party");
    let _b = session.barrier("b", 2).unwrap();
    session.open::<u64>("ready").unwrap().set(1);
    loop {
        std::thread::sleep(PATIENCE);
    }
}

#[test]
fn many_tasks_of_many_threads_wait_at_once() {
    const TASKS: usize = 50;
    const ROUNDS: u64 = 6;
    let cluster = Cluster::new();
    let sessions = [cluster.join(0, "many"), cluster.join(1, "many")];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let session = &sessions[thread % 2];
            scope.spawn(move || {
                let (count, lock) = (session.open::<u64>("count").unwrap(), session.semaphore("lock", 1).unwrap());
                let tasks = (0..TASKS).map(|_| {
                    let lock = &lock;
                    Box::pin(async move {
                        for round in 0..ROUNDS {
                            let guard = lock.lock_async().await.unwrap();
                            count.set(count.get() + 1);
                            drop(guard);
                            // All of a round before any of the one after the next.
                            let all = (4 * TASKS) as u64;
                            count.wait_until_async(|count| count + all > round * all).await.unwrap();
                        }
                    })
                });
                run(all(tasks.collect()));
            });
        }
    });
    let total = 4 * TASKS as u64 * ROUNDS;
    let count = sessions[0].open::<u64>("count").unwrap();
    assert_eq!(run(count.wait_until_async(|count| count >= total)).unwrap(), total);
    drop(sessions);
}

/// Polls all of them, each when it was woken or not, until all are done.
async fn all(mut tasks: Vec<std::pin::Pin<Box<impl Future<Output = ()>>>>) {
    std::future::poll_fn(|cx| {
        tasks.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        if tasks.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[test]
fn futures_that_wait_leave_room_for_threads() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "full"), cluster.join(1, "full"));
    let (lock, count) = (a.semaphore("lock", 1).unwrap(), a.open::<u64>("count").unwrap());
    let guard = b.semaphore("lock", 1).unwrap().lock().unwrap();
    run(async {
        let mut waiting = Vec::new();
        let error = loop {
            let mut one = Box::pin(lock.lock_async());
            match poll_once(one.as_mut()).await {
                None => waiting.push(one),
                Some(result) => break result.unwrap_err(),
            }
        };
        assert!(matches!(error, LockError::Other(Error::TooLarge(_))), "{error}");
        assert_eq!(waiting.len(), 3072);
        // Others go on; so do the futures, first come first served.
        assert_eq!(count.atomic().fetch_add(1, SeqCst), 0);
        drop(guard);
        for one in waiting.drain(..100) {
            drop(one.await.unwrap());
        }
        drop(waiting);
        drop(lock.lock_async().await.unwrap());
    });
    drop((a, b));
}

#[test]
fn owned_futures_go_anywhere() {
    fn anywhere<T: Send + 'static>(value: T) -> T {
        value
    }
    let cluster = Cluster::new();
    let session = Arc::new(cluster.join(0, "owned"));
    let lock = session.semaphore_owned("lock", 1).unwrap();
    drop(session);
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let lock = lock.clone();
            let task = anywhere(async move {
                for _ in 0..20 {
                    drop(lock.lock_async().await.unwrap());
                }
                lock.lock_async().await.unwrap()
            });
            std::thread::spawn(move || drop(run(task)))
        })
        .collect();
    tasks.into_iter().for_each(|task| task.join().unwrap());
    assert!(lock.try_lock().unwrap().is_some());
}

#[test]
fn a_wait_ends_with_the_session() {
    let cluster = Cluster::new();
    for how in [nix::sys::signal::Signal::SIGKILL, nix::sys::signal::Signal::SIGTERM] {
        let a = cluster.join(0, "over");
        let (word, lock) = (a.open::<u64>("word").unwrap(), a.semaphore("lock", 0).unwrap());
        let arbiter = nix::unistd::Pid::from_raw(cluster.arbiter_pid(0));
        run(async {
            let mut waits = Box::pin(zip(word.wait_until_async(|seen| seen == 1), lock.wait_async()));
            assert!(poll_once(waits.as_mut()).await.is_none());
            nix::sys::signal::kill(arbiter, how).unwrap();
            let (waited, locked) = waits.await;
            // Nor can another wait begin.
            let (again, fence) = zip(word.wait_until_async(|seen| seen == 1), a.fence_async()).await;
            for error in [waited.unwrap_err(), locked.unwrap_err(), again.unwrap_err(), fence.unwrap_err()] {
                assert!(matches!(error, Error::ArbiterGone { .. } | Error::SessionEnded { .. }), "{error}");
            }
        });
        drop(a);
        for left in std::fs::read_dir(cluster.dir(0)).into_iter().flatten() {
            // One that was told to stop may be about to do it itself.
            let _ = left.map(|left| std::fs::remove_file(left.path()));
        }
        let _ = std::fs::remove_dir(cluster.dir(0));
    }
}
