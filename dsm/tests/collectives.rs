//! Collectives of ranks on two hosts: the results of a sequential program, whatever the number of ranks; errors when
//! ranks do not fit together, or die.
#![allow(missing_docs, reason = "test types")]

mod common;
#[path = "common/tasks.rs"]
mod tasks;

use common::{Cluster, PATIENCE, join_by_environment, role};
use dsm::collective::{Max, Min, Sum};
use dsm::{Error, Session, Team};
use futures_lite::future::{or, poll_once, zip};
use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;
use tasks::run;

#[dsm::shared]
#[derive(Debug, PartialEq)]
pub struct Particle {
    pub mass: f64,
    pub pos: [f64; 3],
}

/// Not every byte is one, and zero is none.
#[dsm::shared]
#[derive(Debug, PartialEq)]
#[repr(u8)]
pub enum Piece {
    Pawn = 1,
    Knight = 3,
    Queen = 9,
}

/// One that takes several rounds, and has what not all bytes are throughout.
#[dsm::shared]
pub struct Boards {
    pub names: [char; 20_000],
    pub pieces: [Piece; 4],
}

/// Larger than what goes in one round.
#[dsm::shared]
pub struct Large {
    pub words: [u64; 20_000],
}

/// Runs `rank` in a thread for each of `size` ranks, on two hosts by turns. Returns what they return, by rank.
fn ranks<R: Send>(size: usize, rank: impl Fn(&Session, &Team<'_>) -> R + Sync) -> Vec<R> {
    let cluster = Cluster::new();
    let sessions: Vec<Session> =
        (0..size).map(|rank| cluster.builder(rank % 2, "ranks").rank(rank).size(size).join().unwrap()).collect();
    std::thread::scope(|scope| {
        let start = |session| {
            let rank = &rank;
            scope.spawn(move || {
                let session: &Session = session;
                rank(session, &session.world().unwrap().with_timeout(PATIENCE))
            })
        };
        let threads: Vec<_> = sessions.iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// What rank `rank` has in round `round`.
fn number(rank: usize, round: usize) -> u64 {
    (rank as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(round as u32) >> 3
}

#[test]
fn values_are_those_of_a_sequential_program() {
    for size in [1, 2, 3, 5] {
        let done = ranks(size, |_, world| {
            for round in 0..20 {
                let (rank, root) = (world.rank(), round % size);
                let all: Vec<u64> = (0..size).map(|rank| number(rank, round)).collect();
                let mine = all[rank];
                assert_eq!(world.broadcast(root, mine).unwrap(), all[root]);
                assert_eq!(world.all_reduce(mine, Sum).unwrap(), all.iter().fold(0, |a: u64, b| a.wrapping_add(*b)));
                assert_eq!(world.all_reduce(mine, Min).unwrap(), *all.iter().min().unwrap());
                assert_eq!(world.all_reduce(mine, Max).unwrap(), *all.iter().max().unwrap());
                let order = |a: u64, b: u64| a.wrapping_mul(31).wrapping_sub(b);
                let reduced = world.reduce(root, mine, order).unwrap();
                assert_eq!(reduced, (rank == root).then(|| all.iter().copied().reduce(order).unwrap()));
                assert_eq!(world.gather(root, mine).unwrap(), (rank == root).then(|| all.clone()));
                assert_eq!(world.all_gather(mine).unwrap(), all);
                let given: &[u64] = if rank == root { &all } else { &[] };
                assert_eq!(world.scatter(root, given).unwrap(), mine);
                world.barrier().unwrap();
            }
            true
        });
        assert_eq!(done, vec![true; size]);
    }
}

#[test]
fn floats_give_the_same_bits_everywhere_and_structs_can_be_combined() {
    let sums = ranks(5, |_, world| {
        let rank = world.rank();
        let mine = Particle { mass: 0.1 * 1e9f64.powi(rank as i32 - 2), pos: [rank as f64 / 3.0; 3] };
        let heaviest = |a: Particle, b: Particle| if b.mass > a.mass { b } else { a };
        assert_eq!(world.all_reduce(mine, heaviest).unwrap().pos, [4.0 / 3.0; 3]);
        assert_eq!(world.broadcast(3, mine).unwrap().pos, [1.0; 3]);
        world.all_reduce(mine.mass, Sum).unwrap().to_bits()
    });
    let expected = (0..5).map(|rank| 0.1 * 1e9f64.powi(rank - 2)).reduce(|a, b| a + b).unwrap();
    assert_eq!(sums, [expected.to_bits(); 5]);
}

#[test]
fn what_not_all_bytes_are_can_be_exchanged() {
    ranks(3, |_, world| {
        let rank = world.rank();
        let all = [Piece::Pawn, Piece::Knight, Piece::Queen];
        let greatest = |a: Piece, b: Piece| if b as u8 > a as u8 { b } else { a };
        assert_eq!(world.broadcast(1, all[rank]).unwrap(), Piece::Knight);
        assert_eq!(world.all_reduce(all[rank], greatest).unwrap(), Piece::Queen);
        assert_eq!(world.gather(2, all[rank]).unwrap(), (rank == 2).then(|| all.to_vec()));
        assert_eq!(world.scatter(0, if rank == 0 { &all[..] } else { &[] }).unwrap(), all[rank]);
        assert_eq!(run(world.all_gather_async(char::from(b'a' + rank as u8))).unwrap(), ['a', 'b', 'c']);
        assert!(world.all_reduce(rank == 1, |a: bool, b: bool| a | b).unwrap());
        let mut mine = [Piece::Pawn; 5];
        let given: Vec<Piece> = (0..15).map(|at| all[at % 3]).collect();
        world.scatter_slice(2, if rank == 2 { &given } else { &[] }, &mut mine).unwrap();
        assert_eq!(mine[..], given[5 * rank..][..5]);
        let boards = |rank: usize| Boards { names: [char::from(b'A' + rank as u8); 20_000], pieces: [all[rank]; 4] };
        let largest =
            world.all_reduce(boards(rank), |a: Boards, b: Boards| if b.names[0] > a.names[0] { b } else { a });
        let largest = largest.unwrap();
        assert!(largest.names == ['C'; 20_000] && largest.pieces == [Piece::Queen; 4]);
        let given: Vec<Boards> = if rank == 1 { (0..3).map(boards).collect() } else { Vec::new() };
        let share = world.scatter(1, &given).unwrap();
        assert!(share.names == boards(rank).names && share.pieces == [all[rank]; 4]);
    });
}

#[test]
fn slices_of_any_length_and_large_values_go_in_pieces() {
    for size in [2, 3] {
        ranks(size, |_, world| {
            let rank = world.rank();
            for len in [0usize, 1, 7, 8192, 8193, 30_000] {
                let part = |rank: usize| -> Vec<u64> { (0..len).map(|at| number(rank, at)).collect() };
                let (mine, parts) = (part(rank), (0..size).map(part).collect::<Vec<_>>());
                let mut values = mine.clone();
                world.broadcast_slice(1, &mut values).unwrap();
                assert!(values == parts[1], "broadcast of {len}");
                let sum: Vec<u64> =
                    (0..len).map(|at| parts.iter().fold(0, |sum: u64, part| sum.wrapping_add(part[at]))).collect();
                values.clone_from(&mine);
                world.all_reduce_slice(&mut values, Sum).unwrap();
                assert!(values == sum, "all_reduce of {len}");
                let reduced = world.reduce_slice(0, &mine, Sum).unwrap();
                assert!(reduced == (rank == 0).then_some(sum), "reduce of {len}");
                assert!(world.all_gather_slice(&mine).unwrap() == parts.concat(), "all_gather of {len}");
                let gathered = world.gather_slice(1, &mine).unwrap();
                assert!(gathered == (rank == 1).then(|| parts.concat()), "gather of {len}");
                values.fill(0);
                let given = if rank == 0 { parts.concat() } else { Vec::new() };
                world.scatter_slice(0, &given, &mut values).unwrap();
                assert!(values == mine, "scatter of {len}");
            }
            let large = Large { words: std::array::from_fn(|at| number(rank, at)) };
            let xor = |a: Large, b: Large| Large { words: std::array::from_fn(|at| a.words[at] ^ b.words[at]) };
            let found = world.all_reduce(large, xor).unwrap();
            assert!((0..20_000).all(|at| found.words[at] == (0..size).fold(0, |all, rank| all ^ number(rank, at))));
        });
    }
}

#[test]
fn a_call_is_a_barrier_for_the_stores_before_it() {
    ranks(3, |session, world| {
        let words = session.array::<u64>("words", 3).unwrap();
        for round in 1..=100 {
            words.set(world.rank(), round);
            let _ = world.all_reduce(1u8, Sum).unwrap();
            assert!(words.iter().all(|word| word >= round), "{:?} in round {round}", words.to_vec());
        }
    });
}

#[test]
fn calls_that_do_not_fit_are_errors_for_all_and_the_team_stays_in_step() {
    let texts = ranks(3, |_, world| {
        let odd = world.rank() == 1;
        let mut texts = Vec::new();
        let mut note = |result: Result<(), Error>| match result {
            Err(Error::CollectiveMismatch(text)) => texts.push(text),
            other => panic!("{other:?}"),
        };
        note(if odd { world.barrier() } else { world.all_gather(1u32).map(drop) });
        note(world.all_reduce_slice(&mut vec![1u8; if odd { 4 } else { 200_000 }], Sum));
        note(if odd { world.broadcast(0, 1u32).map(drop) } else { world.broadcast(0, 1i32).map(drop) });
        note(world.broadcast(usize::from(odd), 1u32).map(drop));
        note(if odd { world.all_reduce(1u32, Sum).map(drop) } else { world.all_reduce(1u32, Max).map(drop) });
        assert_eq!(world.all_reduce(1u32, Sum).unwrap(), 3);
        texts
    });
    assert!(texts.iter().all(|those| *those == texts[0]), "{texts:?}");
    assert_eq!(texts[0][0], "team \"world\": in call 1, rank 0 calls all_gather of 1 value, rank 1 calls barrier");
    assert!(texts[0][1].contains("rank 1 calls all_reduce by Sum of 4 values"), "{}", texts[0][1]);
    assert!(texts[0][2].ends_with("of another type"), "{}", texts[0][2]);
    assert!(texts[0][3].contains("root 0") && texts[0][3].contains("root 1"), "{}", texts[0][3]);
}

#[test]
fn two_processes_of_one_rank_are_told() {
    let cluster = Cluster::new();
    let sessions = [0, 1].map(|host| cluster.builder(host, "twins").join().unwrap());
    std::thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(|| {
                let team = session.team("pair", 0, 2).unwrap().with_timeout(PATIENCE);
                assert!(matches!(team.all_gather(1u8), Err(Error::CollectiveMismatch(_))));
                assert!(matches!(session.team("pair", 1, 2), Err(Error::Exists(_))));
            });
        }
    });
    assert!(matches!(sessions[0].team("none", 2, 2), Err(Error::TooLarge(_))));
}

#[test]
fn a_call_that_timed_out_can_be_made_again() {
    let cluster = Cluster::new();
    let sessions = [0, 1].map(|rank| cluster.builder(rank, "late").rank(rank).size(2).join().unwrap());
    let [early, late] = sessions.each_ref().map(|session| session.world().unwrap());
    let hasty = early.clone().with_timeout(Duration::from_millis(20));
    assert!(matches!(hasty.all_gather(5u32), Err(Error::TimedOut(_))));
    assert!(matches!(run(hasty.all_gather_async(6u32)), Err(Error::TimedOut(_))));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(late.with_timeout(PATIENCE).all_gather(7u32).unwrap(), [6, 7]));
        assert_eq!(early.with_timeout(PATIENCE).all_gather(6u32).unwrap(), [6, 7]);
    });
}

/// Two processes that started together, on two hosts.
fn pair(cluster: &Cluster) -> [Session; 2] {
    [0, 1].map(|rank| cluster.builder(rank, "pair").rank(rank).size(2).join().unwrap())
}

/// More than what goes in two rounds.
const LONG: usize = 20_000;

/// Every collective, by tasks of one rank.
async fn all_collectives(world: &Team<'_>) {
    let (rank, size) = (world.rank(), world.size());
    for round in 0..8 {
        let (root, len) = (round % size, if round < 6 { round } else { LONG });
        let part = |rank: usize| -> Vec<u64> { (0..len).map(|at| number(rank, at + round)).collect() };
        let (mine, parts) = (part(rank), (0..size).map(part).collect::<Vec<_>>());
        let sum: Vec<u64> = (0..len).map(|at| parts.iter().fold(0, |sum, part| part[at].wrapping_add(sum))).collect();
        let all: Vec<u64> = (0..size).map(|rank| number(rank, round)).collect();
        world.barrier_async().await.unwrap();
        assert_eq!(world.broadcast_async(root, all[rank]).await.unwrap(), all[root]);
        let mut values = mine.clone();
        world.broadcast_slice_async(root, &mut values).await.unwrap();
        assert!(values == parts[root], "broadcast of {len}");
        assert_eq!(world.all_reduce_async(all[rank], Max).await.unwrap(), *all.iter().max().unwrap());
        values.clone_from(&mine);
        world.all_reduce_slice_async(&mut values, Sum).await.unwrap();
        assert!(values == sum, "all_reduce of {len}");
        let least = world.reduce_async(root, all[rank], Min).await.unwrap();
        assert_eq!(least, (rank == root).then(|| *all.iter().min().unwrap()));
        let reduced = world.reduce_slice_async(root, &mine, |a: u64, b: u64| a.wrapping_add(b)).await.unwrap();
        assert!(reduced == (rank == root).then_some(sum), "reduce of {len}");
        assert_eq!(world.gather_async(root, all[rank]).await.unwrap(), (rank == root).then(|| all.clone()));
        let gathered = world.gather_slice_async(root, &mine).await.unwrap();
        assert!(gathered == (rank == root).then(|| parts.concat()), "gather of {len}");
        assert_eq!(world.all_gather_async(all[rank]).await.unwrap(), all);
        assert!(world.all_gather_slice_async(&mine).await.unwrap() == parts.concat(), "all_gather of {len}");
        let given: &[u64] = if rank == root { &all } else { &[] };
        assert_eq!(world.scatter_async(root, given).await.unwrap(), all[rank]);
        values.fill(0);
        let given = if rank == root { parts.concat() } else { Vec::new() };
        world.scatter_slice_async(root, &given, &mut values).await.unwrap();
        assert!(values == mine, "scatter of {len}");
    }
}

#[test]
fn tasks_of_one_thread_get_the_values_of_a_sequential_program() {
    let cluster = Cluster::new();
    let sessions = pair(&cluster);
    let [one, other] = sessions.each_ref().map(|session| session.world().unwrap());
    // Each would wait for the other for ever if one blocked.
    run(zip(all_collectives(&one), all_collectives(&other)));
    drop(sessions);
}

#[test]
fn tasks_and_threads_meet_in_one_call_and_those_of_one_rank_take_turns() {
    let cluster = Cluster::new();
    let sessions = pair(&cluster);
    let [one, other] = sessions.each_ref().map(|session| session.world().unwrap());
    std::thread::scope(|scope| {
        let task = scope.spawn(|| run(zip(one.all_gather_async(1u32), one.all_gather_async(1u32))));
        let thread = scope.spawn(|| one.all_gather(1u32));
        for _ in 0..3 {
            assert_eq!(other.all_gather(2u32).unwrap(), [1, 2]);
        }
        let (first, second) = task.join().unwrap();
        for gathered in [first, second, thread.join().unwrap()] {
            assert_eq!(gathered.unwrap(), [1, 2]);
        }
    });
    drop(sessions);
}

#[test]
fn futures_of_collectives_go_to_other_threads() {
    fn anywhere<T: Send>(_: T) {}
    let cluster = Cluster::new();
    let [session, _other] = pair(&cluster);
    let world = session.world().unwrap();
    // Not polled: not begun.
    anywhere(world.barrier_async());
    anywhere(world.broadcast_slice_async(0, &mut [1u32]));
    anywhere(world.all_reduce_slice_async(&mut [1u32], |a: u32, b: u32| a ^ b));
    anywhere(world.gather_slice_async(0, &[1u32]));
    anywhere(world.scatter_slice_async(0, &[1u32, 2], &mut [0]));
}

#[test]
fn a_dropped_call_is_taken_back_or_has_been_made() {
    let cluster = Cluster::new();
    let sessions = pair(&cluster);
    let [one, other] = sessions.each_ref().map(|session| session.world().unwrap().with_timeout(PATIENCE));
    for round in 0..4u32 {
        // Alone in the call: taken back, and made again with another value, by a thread or a task.
        assert!(run(poll_once(one.all_gather_async(round))).is_none());
        // Taken back before the other comes, or it would have met that call.
        sessions[0].fence().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(other.all_gather(round).unwrap(), [round + 10, round]));
            let again = if round % 2 == 0 { one.all_gather(round + 10) } else { run(one.all_gather_async(round + 10)) };
            assert_eq!(again.unwrap(), [round + 10, round]);
        });
        // All have come: the others have its part.
        run(async {
            let mut late = Box::pin(one.all_gather_async(round + 20));
            assert!(poll_once(late.as_mut()).await.is_none());
            assert_eq!(other.all_gather(round).unwrap(), [round + 20, round]);
            drop(late);
        });
        // In step.
        let (here, there) = run(zip(one.all_gather_async(round), other.all_gather_async(round)));
        assert_eq!((here.unwrap(), there.unwrap()), (vec![round; 2], vec![round; 2]));
    }
    drop(sessions);
}

/// Has rank 0 of two give up a call half way, which is its `number`th; `give_up` gets its team, and what lets the other
/// rank go on. Then both make another.
fn half_way(number: u32, give_up: impl FnOnce(&Session, &Team<'_>, &dyn Fn())) {
    let cluster = Cluster::new();
    let sessions = pair(&cluster);
    let [one, other] = sessions.each_ref().map(|session| session.world().unwrap().with_timeout(PATIENCE));
    let open = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            let patient = |a: u64, b: u64| {
                while !open.load(Relaxed) {
                    std::thread::yield_now();
                }
                a + b
            };
            let ended = other.all_reduce_slice(&mut vec![2; LONG], patient);
            (ended, other.all_gather(7u8))
        });
        give_up(&sessions[0], &one, &|| open.store(true, Relaxed));
        assert_eq!(one.all_gather(6u8).unwrap(), [6, 7]);
        let (ended, next) = there.join().unwrap();
        let text = format!("team \"world\": rank 0 has given up call {number} half way");
        assert!(matches!(&ended, Err(Error::CollectiveMismatch(found)) if *found == text), "{ended:?}");
        assert_eq!(next.unwrap(), [6, 7]);
    });
    drop(sessions);
}

/// Begins a call, and drops it when its first round is over and its second has begun.
fn drop_half_way(world: &Team<'_>) {
    let combined = Cell::new(false);
    let combine = |a: u64, b: u64| {
        combined.set(true);
        a + b
    };
    let mut values = vec![1; LONG];
    let done = run(or(
        async { Some(world.all_reduce_slice_async(&mut values, combine).await) },
        poll_fn(|_| if combined.get() { Poll::Ready(None) } else { Poll::Pending }),
    ));
    assert!(done.is_none(), "{done:?}");
}

#[test]
fn a_call_that_is_dropped_half_way_ends_for_all_and_the_team_stays_in_step() {
    half_way(1, |_, world, go_on| {
        drop_half_way(world);
        go_on();
    });
}

#[test]
fn a_call_that_is_given_up_by_a_panic_or_a_timeout_half_way_ends_for_all() {
    half_way(1, |_, world, go_on| {
        let panicking = |_: u64, _: u64| -> u64 { resume_unwind(Box::new("half way")) };
        let call = AssertUnwindSafe(|| world.all_reduce_slice(&mut vec![1; LONG], panicking));
        assert!(catch_unwind(call).is_err());
        go_on();
    });
    half_way(1, |_, world, go_on| {
        let (combined, hasty) = (Cell::new(false), world.clone().with_timeout(Duration::from_millis(20)));
        let combine = |a: u64, b: u64| {
            combined.set(true);
            a + b
        };
        // Until the first round was in time.
        while !combined.get() {
            let call = hasty.all_reduce_slice(&mut vec![1; LONG], combine);
            assert!(matches!(call, Err(Error::TimedOut(_))), "{call:?}");
        }
        go_on();
    });
}

#[test]
fn giving_up_can_be_given_up() {
    half_way(1, |session, world, go_on| {
        drop_half_way(world);
        for _ in 0..3 {
            assert!(run(poll_once(world.all_gather_async(5u8))).is_none());
            session.fence().unwrap();
        }
        let hasty = world.clone().with_timeout(Duration::from_millis(20));
        assert!(matches!(hasty.all_gather(5u8), Err(Error::TimedOut(_))));
        assert!(matches!(run(hasty.all_gather_async(5u8)), Err(Error::TimedOut(_))));
        go_on();
    });
}

#[test]
fn calls_that_are_dropped_at_any_stage_leave_the_ranks_in_step() {
    const END: u64 = u64::MAX;
    for len in [1, LONG] {
        let cluster = Cluster::new();
        let sessions = pair(&cluster);
        let [one, other] = sessions.each_ref().map(|session| session.world().unwrap().with_timeout(PATIENCE));
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                let mut made = 0;
                loop {
                    match other.all_gather_slice(&vec![0; len]) {
                        Ok(all) if all[0] == END => return made,
                        Ok(all) => {
                            assert!(all[..len].iter().all(|value| *value == all[0]), "pieces of several calls");
                            made += 1;
                        }
                        Err(Error::CollectiveMismatch(text)) => assert!(text.contains("given up"), "{text}"),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            run(async {
                for round in 1..=150u64 {
                    let values = vec![round; len];
                    let mut call = pin!(one.all_gather_slice_async(&values));
                    if round % 10 == 0 {
                        assert_eq!(call.await.unwrap()[0], round);
                        continue;
                    }
                    for turn in 0..round * 7 % 60 {
                        // By turns dropped without having looked whether it is done, and in the middle of what follows.
                        if turn % (1 + round % 9) == 0 && poll_once(call.as_mut()).await.is_some() {
                            break;
                        }
                        std::thread::yield_now();
                    }
                }
            });
            assert_eq!(one.all_gather_slice(&vec![END; len]).unwrap()[len..], vec![0; len]);
            assert!(there.join().unwrap() >= 15);
        });
        let (here, there) = run(zip(one.all_gather_async(1u8), other.all_gather_async(2u8)));
        assert_eq!((here.unwrap(), there.unwrap()), (vec![1, 2], vec![1, 2]));
        drop(sessions);
    }
}

#[test]
fn the_death_of_a_rank_is_an_error_for_the_others() {
    for calls in ["0", "3"] {
        let cluster = Cluster::new();
        let sessions = [0, 1].map(|rank| cluster.builder(rank, "mortal").rank(rank).size(3).join().unwrap());
        let third = cluster.spawn(1, "mortal_rank", &[("DSM_RANK", "2"), ("DSM_SIZE", "3"), ("CALLS", calls)]);
        std::thread::scope(|scope| {
            let [one, other] = &sessions;
            scope.spawn(|| {
                let world = one.world().unwrap().with_timeout(PATIENCE);
                for _ in 0..calls.parse().unwrap() {
                    world.barrier().unwrap();
                }
                assert!(matches!(world.all_reduce(1u32, Sum), Err(Error::TeamBroken(_))));
                assert!(matches!(world.barrier(), Err(Error::TeamBroken(_))));
            });
            scope.spawn(|| {
                let world = other.world().unwrap();
                run(async {
                    for _ in 0..calls.parse().unwrap() {
                        world.barrier_async().await.unwrap();
                    }
                    assert!(matches!(world.all_reduce_async(1u32, Sum).await, Err(Error::TeamBroken(_))));
                    assert!(matches!(world.barrier_async().await, Err(Error::TeamBroken(_))));
                });
            });
            // It is joined when its mark is seen, and never makes the call that the others wait in.
            let mark = sessions[0].open::<u64>("mark").unwrap();
            common::eventually("the third rank has made its calls", || mark.get() == 1);
            third.kill();
        });
    }
}

#[test]
fn mortal_rank() {
    if !role("mortal_rank") {
        return;
    }
    let session = join_by_environment("mortal");
    let calls: usize = std::env::var("CALLS").unwrap().parse().unwrap();
    if calls > 0 {
        let world = session.world().unwrap();
        (0..calls).for_each(|_| world.barrier().unwrap());
    }
    session.open::<u64>("mark").unwrap().set(1);
    std::thread::sleep(PATIENCE);
}
