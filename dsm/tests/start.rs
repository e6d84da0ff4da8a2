//! Programs that start together without anybody who numbers them.
#![allow(missing_docs, reason = "test types")]

mod common;
#[path = "common/tasks.rs"]
mod tasks;

use async_io::Timer;
use common::{Cluster, PATIENCE, eventually, role};
use dsm::prelude::*;
use futures_lite::future::{poll_once, zip};
use std::time::Duration;
use tasks::run;

const SHORT: Duration = Duration::from_millis(60);

#[test]
fn as_many_as_are_expected_come_together_and_have_a_rank_each() {
    let cluster = Cluster::new();
    // Not one of them; the arbiter of the first is the daemon's process, and stays so.
    let other = cluster.join(0, "start");
    let sessions: Vec<Session> = std::thread::scope(|scope| {
        let join = |host| cluster.builder(host, "start").expect_timeout(4, PATIENCE).join().unwrap();
        let threads: Vec<_> = (0..4).map(|at| scope.spawn(move || join(at % 2))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut ranks: Vec<usize> = sessions.iter().map(Session::rank).collect();
    ranks.sort_unstable();
    assert_eq!(ranks, [0, 1, 2, 3]);
    assert!(sessions.iter().all(|session| session.size() == 4));
    // A fifth is one too many, until one of them has left; then it waits for others.
    let fifth = || cluster.builder(0, "start").expect_timeout(4, SHORT).join();
    assert!(matches!(fifth(), Err(Error::Exists(text)) if text.contains("all there already")));
    drop(sessions);
    alone(fifth);
    drop(other);
}

/// Joins until the others are missed, no longer a rank: those of who has left are free in a moment.
fn alone(join: impl Fn() -> Result<Session, Error>) {
    let start = std::time::Instant::now();
    loop {
        match join() {
            Err(Error::TimedOut(SHORT)) => break,
            Err(Error::Exists(_)) if start.elapsed() < PATIENCE => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn two_tasks_of_one_thread_join_together() {
    let cluster = Cluster::new();
    let join = |host| cluster.builder(host, "tasks").expect_timeout(2, PATIENCE).join_async();
    let (one, other) = run(zip(join(0), join(1)));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((one.rank() + other.rank(), one.size(), other.size()), (1, 2, 2));
    one.open::<u64>("word").unwrap().set(7);
    run(other.open::<u64>("word").unwrap().wait_until_async(|word| word == 7)).unwrap();
    // Alone, and what goes wrong is said as by those that block.
    let builder = |name| cluster.builder(0, name);
    assert_eq!(run(builder("alone").rank(3).size(4).join_async()).unwrap().rank(), 3);
    assert!(matches!(run(builder("nowhere").existing().join_async()), Err(Error::NotFound(_))));
    assert!(matches!(run(builder("tasks").expect_timeout(2, SHORT).join_async()), Err(Error::Exists(_))));
    assert!(matches!(run(builder("none").expect_timeout(2, SHORT).join_async()), Err(Error::TimedOut(SHORT))));
    drop((one, other));
}

#[test]
fn who_gives_up_joining_is_not_met() {
    let cluster = Cluster::new();
    let watch = cluster.join(0, "dropped");
    let join = |host| cluster.builder(host, "dropped").expect_timeout(2, PATIENCE).join_async();
    let arrived = || {
        let list = watch.list().unwrap();
        list.barriers
            .iter()
            .filter(|barrier| barrier.name.contains("start"))
            .map(|barrier| barrier.arrived)
            .sum::<u32>()
    };
    run(async {
        // Never polled; on its way; where the other is waited for.
        drop(join(1));
        let mut early = Box::pin(join(1));
        assert!(poll_once(early.as_mut()).await.is_none());
        drop(early);
        let mut late = Box::pin(join(1));
        while arrived() == 0 {
            assert!(poll_once(late.as_mut()).await.is_none());
            Timer::after(Duration::from_millis(1)).await;
        }
        drop(late);
    });
    eventually("nobody waits", || arrived() == 0);
    // Nobody is left who could be met.
    alone(|| run(cluster.builder(1, "dropped").expect_timeout(2, SHORT).join_async()));
    let (one, other) = run(zip(join(0), join(1)));
    assert_eq!(one.unwrap().rank() + other.unwrap().rank(), 1);
    drop(watch);
}

#[test]
fn ranks_that_were_given_are_kept_and_checked() {
    let cluster = Cluster::new();
    let builder = |rank: usize| cluster.builder(rank % 2, "given").rank(rank);
    let sessions: Vec<Session> = std::thread::scope(|scope| {
        let builder = &builder;
        let threads: Vec<_> =
            (0..3).map(|rank| scope.spawn(move || builder(rank).expect_timeout(3, PATIENCE).join().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(sessions.iter().map(Session::rank).collect::<Vec<_>>(), [0, 1, 2]);
    let error = |builder: dsm::Builder| builder.join().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error(builder(1).expect_timeout(3, SHORT)).contains("rank 1 of 3 is another process's"));
    assert!(error(builder(3).expect_timeout(3, SHORT)).contains("ranks begin at 0"));
    assert!(error(builder(0).size(2).expect_timeout(3, SHORT)).contains("one of 2"));
    assert!(error(builder(0).expect_timeout(0, SHORT)).contains("0 processes cannot be expected"));
    drop(sessions);
}

#[test]
fn the_rank_of_one_that_died_is_given_to_the_next() {
    let cluster = Cluster::new();
    let dying = cluster.spawn(1, "one_of_two", &[]);
    let first = cluster.builder(0, "death").expect_timeout(2, PATIENCE).join().unwrap();
    dying.kill();
    let again = |rank: usize| cluster.builder(1, "death").rank(rank).expect_timeout(2, SHORT).join();
    // The rank of who lives is taken, that of the dead is not: there only the other one is missing.
    assert!(matches!(again(first.rank()), Err(Error::Exists(_))));
    // (Its host may not yet have seen the death.)
    alone(|| again(1 - first.rank()));
    drop(first);
}

#[test]
fn one_of_two() {
    if !role("one_of_two") {
        return;
    }
    let session = Session::builder("death").expect_timeout(2, PATIENCE).join().unwrap();
    assert_eq!(session.size(), 2);
    std::thread::sleep(PATIENCE);
}

/// The attribute, as the `main` of this module.
mod attribute {
    use dsm::prelude::*;

    #[dsm::main(session = "attribute", expect = 2 - 1)]
    fn main(session: &Session) -> Result<(), Box<dyn std::error::Error>> {
        let words = session.array::<u64>("words", 1)?;
        assert_eq!((session.name(), session.size()), ("attribute", 1));
        words.set(0, 1);
        if std::env::var_os("FAIL").is_some() {
            return Err("first line\nsecond line".into());
        }
        Ok(())
    }

    pub(super) fn run() -> std::process::ExitCode {
        main()
    }
}

#[test]
fn an_attribute_joins_and_tells_what_went_wrong_on_one_line() {
    let cluster = Cluster::new();
    for fails in [false, true] {
        let variables: &[_] = if fails { &[("FAIL", "1")] } else { &[] };
        let output = cluster.command(0, "attribute_main", variables).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(i32::from(fails)), "{said}");
        if fails {
            let line = said.lines().find(|line| line.contains("first line")).unwrap_or_default();
            assert!(line.starts_with("start-") && line.ends_with(": first line second line"), "{said}");
        }
    }
}

#[test]
fn attribute_main() {
    if !role("attribute_main") {
        return;
    }
    let code = attribute::run();
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
}
