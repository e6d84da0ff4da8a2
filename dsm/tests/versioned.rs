//! Published states: never a mix of two, on any host, whoever publishes and whoever dies.
#![allow(missing_docs, reason = "test types")]

mod common;

use common::{Cluster, PATIENCE, eventually, role};
use dsm::prelude::*;
use dsm::{Shared, Versioned};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Longer than a line and than what one record carries; all words of a state are the same.
#[dsm::shared]
#[derive(Debug)]
pub struct State {
    pub words: [u64; 100],
}

impl State {
    fn of(word: u64) -> Self {
        Self { words: [word; 100] }
    }

    #[track_caller]
    fn whole(&self) -> u64 {
        assert!(self.words.iter().all(|word| *word == self.words[0]), "a mix: {:?}", self.words);
        self.words[0]
    }
}

#[dsm::shared]
pub struct Holder {
    pub before: u32,
    pub pair: u32,
    pub state: Versioned<[u16; 2]>,
}

#[test]
fn nobody_sees_a_mix_of_two_published_states() {
    const EACH: u64 = 120;
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "mix"), cluster.join(1, "mix"));
    let [here, there] = [&a, &b].map(|session| session.open::<Versioned<State>>("state").unwrap());
    let writing = AtomicU64::new(4);
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (number, state) in [here, there, here, there].into_iter().enumerate() {
            let writing = &writing;
            scope.spawn(move || {
                for round in 0..EACH {
                    let word = round * 4 + number as u64 + 1;
                    if round % 3 == 0 {
                        let mut draft = state.draft_timeout(PATIENCE).unwrap();
                        draft.whole();
                        draft.words.fill(word);
                        draft.publish().unwrap();
                    } else {
                        state.publish_timeout(&State::of(word), PATIENCE).unwrap();
                    }
                }
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for state in [here, there] {
            let (writing, seen) = (&writing, &seen);
            scope.spawn(move || {
                let mut last = 0;
                while writing.load(Ordering::Relaxed) > 0 {
                    let (version, value) = state.snapshot_with_version().unwrap();
                    value.whole();
                    assert!(version >= last, "versions go backwards");
                    seen.fetch_add(u64::from(version != last), Ordering::Relaxed);
                    last = version;
                }
            });
        }
    });
    // Every publication counted once: none was lost between two hosts.
    eventually("all is here", || here.version() == 4 * EACH && there.version() == 4 * EACH);
    assert_eq!(here.snapshot().unwrap().whole(), there.snapshot().unwrap().whole());
    assert!(seen.into_inner() > 0, "the readers have seen nothing new");
    drop((a, b));
}

#[test]
fn updates_of_two_hosts_are_not_lost_and_readers_can_sleep_for_them() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "count"), cluster.join(1, "count"));
    let [here, there] = [&a, &b].map(|session| session.open::<Holder>("holder").unwrap());
    assert_eq!(here.state().snapshot().unwrap(), [0, 0]);
    std::thread::scope(|scope| {
        for holder in [here, there] {
            scope.spawn(move || {
                for _ in 0..100 {
                    holder.state().publish_with(|[count, twice]| (*count, *twice) = (*count + 1, *twice + 2)).unwrap();
                }
            });
        }
        scope.spawn(move || {
            let mut version = 0;
            while version < 200 {
                let (now, [count, twice]) = there.state().newer_than(version, PATIENCE).unwrap();
                assert!(now > version && twice == 2 * count && u64::from(count) == now, "{now} {count} {twice}");
                version = now;
            }
        });
    });
    let late = here.state().newer_than(200, Duration::from_millis(20));
    assert!(matches!(late, Err(Error::TimedOut(_))), "{late:?}");
    // What is not published changes nothing; nor does it keep others from publishing.
    let mut draft = here.state().draft().unwrap();
    *draft = [9, 9];
    assert!(matches!(there.state().publish_timeout(&[1, 1], Duration::from_millis(20)), Err(Error::TimedOut(_))));
    drop(draft);
    assert_eq!(there.state().snapshot().unwrap(), [200, 400]);
    there.state().publish_timeout(&[1, 1], PATIENCE).unwrap();
    eventually("it arrives", || here.state().snapshot().unwrap() == [1, 1]);
    // A host may store anything: the version is not trusted with more than it can break.
    // SAFETY: a plain store into shared memory, of a type for which any bytes will do.
    unsafe { here.state().as_ptr().cast::<u64>().write_volatile(u64::MAX) };
    assert_eq!(here.state().version(), u64::MAX);
    here.state().snapshot().unwrap();
    here.state().publish(&[5, 5]).unwrap();
    assert_eq!(here.state().snapshot().unwrap(), [5, 5]);
    assert_eq!((here.before(), here.pair()), (0, 0));
    drop((a, b));
}

#[dsm::shared]
#[derive(Debug, PartialEq)]
#[repr(u8)]
enum Light {
    Red = 1,
    Green = 2,
}

#[dsm::shared]
#[derive(Debug, PartialEq)]
struct Crossing {
    lights: [Light; 3],
    open: bool,
    sign: char,
}

#[test]
fn what_is_checked_can_be_published() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "checked"), cluster.join(1, "checked"));
    let [here, there] = [&a, &b].map(|session| session.open::<Versioned<Crossing>>("crossing").unwrap());
    // Zeros are no light.
    assert!(matches!(here.snapshot(), Err(Error::InvalidValue(_))));
    assert!(matches!(there.draft(), Err(Error::InvalidValue(_))));
    let crossing = |light, sign| Crossing { lights: [light; 3], open: light == Light::Green, sign };
    here.publish(&crossing(Light::Red, 'a')).unwrap();
    assert_eq!(here.snapshot().unwrap(), crossing(Light::Red, 'a'));
    assert_eq!(there.newer_than(0, PATIENCE).unwrap(), (1, crossing(Light::Red, 'a')));
    there.publish_with_timeout(|crossing| crossing.lights[1] = Light::Green, PATIENCE).unwrap();
    assert_eq!(here.newer_than(1, PATIENCE).unwrap().1.lights, [Light::Red, Light::Green, Light::Red]);
    // A state is whole, and a value, whoever publishes meanwhile.
    std::thread::scope(|scope| {
        let publishers = [(here, Light::Red, 'r'), (there, Light::Green, 'g')].map(|(state, light, sign)| {
            scope.spawn(move || {
                for _ in 0..200 {
                    state.publish_timeout(&crossing(light, sign), PATIENCE).unwrap();
                }
            })
        });
        here.newer_than(2, PATIENCE).unwrap();
        while publishers.iter().any(|publisher| !publisher.is_finished()) {
            for state in [here, there] {
                let Ok((version, Crossing { lights, open, sign })) = state.snapshot_with_version() else {
                    panic!("a mix")
                };
                let whole = lights == [Light::Red; 3] && !open && sign == 'r'
                    || lights == [Light::Green; 3] && open && sign == 'g';
                assert!(whole || version <= 2);
            }
        }
    });
    drop((a, b));
}

#[test]
fn publishers_and_readers_can_be_awaited_on_one_thread() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "awaited"), cluster.join(1, "awaited"));
    let [here, there] = [&a, &b].map(|session| session.open::<Versioned<[u64; 20]>>("state").unwrap());
    // They answer each other: if one blocked, they would for ever.
    let one = async {
        for round in 0..30u64 {
            let version = here.publish_async(&[2 * round + 1; 20]).await.unwrap();
            assert_eq!(version, 2 * round + 1);
            let (version, state) = here.newer_than_async(version).await.unwrap();
            assert_eq!((version, state), (2 * round + 2, [2 * round + 2; 20]));
        }
    };
    let other = async {
        for round in 0..30u64 {
            let (version, _) = there.read_only().newer_than_async(2 * round).await.unwrap();
            assert_eq!(version, 2 * round + 1);
            if round % 2 == 0 {
                there.publish_with_async(|words| words.iter_mut().for_each(|word| *word += 1)).await.unwrap();
            } else {
                let mut draft = there.draft_async().await.unwrap();
                draft.iter_mut().for_each(|word| *word += 1);
                draft.publish().unwrap();
            }
        }
    };
    async_io::block_on(futures_lite::future::zip(one, other));
    assert_eq!(here.version(), 60);
    // One that is dropped while it waits in line has published nothing, and holds up nobody.
    let draft = here.draft().unwrap();
    let waiting = async_io::block_on(futures_lite::future::poll_once(there.publish_async(&[0; 20])));
    assert!(waiting.is_none());
    drop(draft);
    assert_eq!(here.publish_timeout(&[9; 20], PATIENCE).unwrap(), 61);
    drop((a, b));
}

#[test]
fn a_publisher_that_dies_in_the_middle_stops_nobody() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "death"), cluster.join(1, "death"));
    let [here, there] = [&a, &b].map(|session| session.open::<Versioned<State>>("state").unwrap());
    let steps = a.array::<u64>("steps", 1).unwrap();
    for round in 0..8u64 {
        here.publish(&State::of(1000 + round)).unwrap();
        let version = here.version();
        let dying = cluster.spawn((round % 2) as usize, "dying_publisher", &[("ROUND", &round.to_string())]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for state in [here, there] {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        assert_ne!(state.snapshot_timeout(PATIENCE).unwrap().whole(), 7);
                    }
                });
            }
            eventually("it is in the middle", || steps.get(0) == round + 1);
            // Readers get the last state while it is there and after it is gone.
            assert_eq!(here.snapshot().unwrap().whole(), 1000 + round);
            dying.kill();
            assert_eq!(there.publish_timeout(&State::of(2000 + round), PATIENCE).unwrap(), version + 1);
            eventually("it arrives", || here.snapshot().unwrap().whole() == 2000 + round);
            stop.store(true, Ordering::Relaxed);
        });
    }
    drop((a, b));
}

#[test]
fn dying_publisher() {
    if !role("dying_publisher") {
        return;
    }
    let round: u64 = std::env::var("ROUND").unwrap().parse().unwrap();
    let session = common::join_by_environment("death");
    let state: Shared<'_, Versioned<State>> = session.open("state").unwrap();
    let draft = state.draft_timeout(PATIENCE).unwrap();
    // What `publish` does, up to its middle: words of the copy that does not count (behind 16 bytes).
    let back = ((state.version() + 1) % 2) as usize;
    let copy = state.as_ptr().cast::<u64>().wrapping_add(2 + 100 * back);
    for at in 0..100 * round as usize / 8 {
        // SAFETY: within the value, of a type for which any bytes will do; the store traps.
        unsafe { copy.wrapping_add(at).write_volatile(7) };
    }
    session.array::<u64>("steps", 1).unwrap().set(0, round + 1);
    session.fence().unwrap();
    std::thread::sleep(PATIENCE);
    drop(draft);
}
