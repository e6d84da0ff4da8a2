//! Values of which not all bytes are one, atomics of std, and handles that only read: across two hosts.

mod common;

use common::{Cluster, eventually};
use dsm::prelude::*;
use dsm::{InvalidValue, typed::SharedType};
use std::sync::atomic::{AtomicBool, AtomicI16, AtomicU64};

#[dsm::shared]
#[derive(Debug, PartialEq, Eq)]
#[repr(u16)]
enum Phase {
    Idle = 0,
    Play = 258,
}

#[dsm::shared]
#[derive(Debug, PartialEq)]
struct State {
    phase: Phase,
    is_on: bool,
    marks: [bool; 5],
    symbol: char,
    number: u32,
}

#[dsm::shared]
struct Counters {
    hits: AtomicU64,
    levels: [AtomicI16; 3],
    stop: AtomicBool,
    bytes: [u8; 1],
}

#[dsm::shared]
struct Table<const N: usize> {
    #[dsm(align = 64)]
    turn: u32,
    rows: [[u64; N]; 2],
}

/// Two of anything that can be shared.
#[dsm::shared]
#[derive(Debug, PartialEq)]
struct Pair<T: dsm::SharedType> {
    one: T,
    other: T,
}

#[dsm::shared]
struct Pairs {
    numbers: Pair<u64>,
    tables: Pair<[u32; 3]>,
    nested: [Pair<Pair<u32>>; 2],
    phases: Pair<Phase>,
    locked: Pair<dsm::field::Mutex<u16>>,
}

/// Stores bytes as a program does that has another idea of what lies there.
fn scribble<T: SharedType>(at: Shared<'_, T>, bytes: &[u8]) {
    for (index, byte) in bytes.iter().enumerate() {
        // SAFETY: within the value, by what the tests pass; the store is captured.
        unsafe { at.as_ptr().cast::<u8>().wrapping_add(index).write_volatile(*byte) };
    }
}

#[test]
fn what_another_host_stored_is_checked() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "checked"), cluster.join(1, "checked"));
    let (here, there) = (a.open::<State>("state").unwrap(), b.open::<State>("state").unwrap());
    assert_eq!((here.phase(), here.symbol(), here.is_on()), (Ok(Phase::Idle), Ok('\0'), false));
    let state =
        State { phase: Phase::Play, is_on: true, marks: [true, false, true, true, false], symbol: 'ß', number: 7 };
    here.store(&state);
    eventually("the other host has it", || there.number() == 7);
    assert_eq!((there.try_load(), there.phase()), (Ok(state), Ok(Phase::Play)));

    // Bytes that make no value, from a program that does not use this type.
    scribble(here.phase_ref(), &[1, 1]);
    scribble(here.symbol_ref(), &0xd800_u32.to_ne_bytes());
    scribble(here.is_on_ref(), &[2]);
    scribble(here.marks_ref(), &[0, 9, 255, 1, 0]);
    here.set_number(8);
    eventually("the other host has it", || there.number() == 8);
    assert!(there.is_on() && there.is_on_ref().load());
    assert_eq!(there.marks().to_vec(), [false, true, true, true, false]);
    assert_eq!(there.marks().iter().filter(|mark| *mark).count(), 3);
    let InvalidValue { type_name, bits, .. } = there.phase().unwrap_err();
    assert_eq!((type_name, bits), ("Phase", 0x0101));
    assert_eq!(there.symbol().unwrap_err().type_name, "char");
    assert!(there.try_load().is_err());
    assert!(matches!(there.hole(), Err(Error::InvalidValue(_))));

    // The hole that was refused is in nobody's way, and what it would have read can be set right.
    there.set_phase(Phase::Idle);
    there.set_symbol('x');
    let mut hole = there.hole().unwrap();
    assert_eq!((hole.is_on, hole.marks[2], hole.phase, hole.symbol), (true, true, Phase::Idle, 'x'));
    hole.marks[0] = true;
    hole.number = 9;
    // Handles are many, so it is at run time that a second hole over the same value is refused.
    assert!(matches!(there.hole(), Err(Error::HolesOverlap { .. })));
    assert!(matches!(there.marks().hole(), Err(Error::HolesOverlap { .. })));
    hole.fill().unwrap();
    eventually("the other host has it", || here.number() == 9);
    assert_eq!(here.marks().to_vec(), [true, true, true, true, false]);
    // What the hole read as `true` and did not change is as it was: it is not a change.
    // SAFETY: within the value; any byte is a `u8`.
    let raw = unsafe { here.is_on_ref().as_ptr().cast::<u8>().read_volatile() };
    assert_eq!(raw, 2);
}

#[test]
fn atomics_of_std_count_on_all_hosts() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "atomics"), cluster.join(1, "atomics"));
    let (here, there) = (a.open::<Counters>("counters").unwrap(), b.open::<Counters>("counters").unwrap());
    std::thread::scope(|scope| {
        for counters in [here, there] {
            scope.spawn(move || {
                for _ in 0..100 {
                    counters.hits().fetch_add(1, SeqCst);
                    // By the trap door: the same integer.
                    counters.hits_ref().as_std().fetch_add(1, SeqCst);
                    counters.levels().at(1).atomic().fetch_sub(1, SeqCst);
                }
            });
        }
    });
    assert_eq!(here.hits().fetch_add(0, SeqCst), 400);
    assert_eq!(there.levels().at(1).as_std().fetch_add(0, SeqCst), -200);

    assert!(!here.stop().swap(true, SeqCst));
    assert_eq!(there.stop().compare_exchange(true, false, SeqCst, SeqCst), Ok(true));
    assert_eq!(here.stop().compare_exchange(true, false, SeqCst, SeqCst), Err(false));
    assert!(!here.stop().fetch_not(SeqCst));
    scribble(here.stop_ref(), &[8]);
    assert!(here.stop().fetch_and(true, SeqCst) && here.stop().fetch_or(false, SeqCst));
    assert_eq!(here.stop().compare_exchange(true, false, SeqCst, SeqCst), Ok(true));
    assert!(!there.stop().fetch_xor(true, SeqCst) && here.stop().fetch_xor(true, SeqCst));

    // In a hole they are private.
    let mut hole = here.hole().unwrap();
    *hole.hits.get_mut() += 5;
    hole.fill().unwrap();
    eventually("the other host has it", || there.hits().load(SeqCst) == 405);
}

#[test]
fn updates_are_repeated_until_nothing_came_between() {
    const EACH: u64 = 200;
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "updates"), cluster.join(1, "updates"));
    let (here, there) = (a.open::<Counters>("counters").unwrap(), b.open::<Counters>("counters").unwrap());
    // What two hosts do to one word; anything that was overwritten would be missing at the end.
    std::thread::scope(|scope| {
        for counters in [here, there] {
            scope.spawn(move || {
                for _ in 0..EACH {
                    counters.hits().fetch_update(SeqCst, SeqCst, |hits| Some(hits + 2)).unwrap();
                    let mut seen = counters.hits().load(SeqCst);
                    while let Err(now) = counters.hits().compare_exchange_weak(seen, seen + 1, SeqCst, SeqCst) {
                        seen = now;
                    }
                }
            });
        }
    });
    let all = 2 * EACH * 3;
    assert_eq!(there.hits().fetch_update(SeqCst, SeqCst, |hits| (hits != all).then_some(0)), Err(all));
    assert_eq!(here.hits().fetch_update(SeqCst, SeqCst, |hits| hits.checked_mul(2)), Ok(all));
    assert_eq!(there.hits().compare_exchange_weak(2 * all, 0b1100, SeqCst, SeqCst), Ok(2 * all));
    assert_eq!(here.hits().compare_exchange_weak(2 * all, 1, SeqCst, SeqCst), Err(0b1100));
    assert_eq!(there.hits().fetch_nand(0b1010, SeqCst), 0b1100);
    assert_eq!(here.hits().fetch_nand(u64::MAX, SeqCst), !0b1000);
    assert_eq!(there.hits().fetch_add(0, SeqCst), 0b1000);
    // Of a narrow one, beside others in the same word.
    let level = here.levels().at(1).atomic();
    assert_eq!((level.swap(-4, SeqCst), level.fetch_nand(0b110, SeqCst)), (0, -4));
    assert_eq!(there.levels().at(1).atomic().fetch_update(SeqCst, SeqCst, |level| Some(level - 1)), Ok(!0b100));
    assert_eq!(here.levels().at(1).atomic().fetch_add(0, SeqCst), !0b100 - 1);
    assert!([0, 2].map(|at| here.levels().at(at).atomic().fetch_add(0, SeqCst)) == [0, 0], "others were changed");
}

#[test]
fn structs_with_parameters_lines_and_readers() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "tables"), cluster.join(1, "tables"));
    let here = a.open::<Table<4>>("table").unwrap();
    assert!(matches!(b.open::<Table<8>>("table"), Err(Error::TypeDiffers(_))));
    let there = b.open::<Table<4>>("table").unwrap().read_only();
    assert_eq!((here.turn_ref().as_ptr().addr() % 64, here.rows_ref().as_ptr().addr() % 64), (0, 0));
    here.rows().at(1).set(3, 11);
    here.rows().as_flattened().update(0, |cell| cell + 5);
    here.update_turn(|turn| turn + 3);
    eventually("the other host has it", || there.turn() == 3);
    assert_eq!(there.rows().get(1), [0, 0, 0, 11]);
    assert_eq!(there.rows().as_flattened().to_vec(), [5, 0, 0, 0, 0, 0, 0, 11]);
    assert_eq!(there.load().rows[1][3], 11);
    let chunks: Vec<u64> = there.rows().as_flattened().chunks(3).map(|chunk| chunk.iter().sum()).collect();
    assert_eq!(chunks, [5, 0, 11]);
    let mut hole = here.hole().unwrap();
    *hole.turn += 1;
    hole.fill().unwrap();
    eventually("the other host has it", || there.turn() == 4);
}

#[test]
fn structs_of_any_type() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "pairs"), cluster.join(1, "pairs"));
    let here = a.open::<Pair<u32>>("pair").unwrap();
    let differs = b.open::<Pair<i32>>("pair").unwrap_err();
    assert!(matches!(&differs, Error::TypeDiffers(_)) && differs.to_string().contains("`one`"), "{differs}");
    assert!(matches!(b.open::<Pair<Pair<u32>>>("pair"), Err(Error::TypeDiffers(_))));
    let there = b.open::<Pair<u32>>("pair").unwrap();
    here.set_one(7);
    here.one_ref().atomic().fetch_add(1, SeqCst);
    here.update_other(|other| other + 3);
    eventually("the other host has it", || there.load() == Pair { one: 8, other: 3 });

    let (here, there) = (a.open::<Pairs>("pairs").unwrap(), b.open::<Pairs>("pairs").unwrap());
    here.numbers().set_other(u64::MAX);
    here.tables().set_one(&[1, 2, 3]);
    here.tables().other().set(2, 9);
    here.nested().at(1).other().set_one(5);
    here.nested().at(0).store(&Pair { one: Pair { one: 1, other: 2 }, other: Pair { one: 3, other: 4 } });
    here.phases().set_one(Phase::Play);
    scribble(here.phases().other_ref(), &[1, 1]);
    here.locked().other().lock().unwrap().value().set(6);
    assert_eq!(there.locked().other().lock().unwrap().value().get(), 6);
    // Who has had the lock sees all that was stored before.
    assert_eq!(there.numbers().load(), Pair { one: 0, other: u64::MAX });
    assert_eq!((there.tables().one().to_vec(), there.tables().other().to_vec()), (vec![1, 2, 3], vec![0, 0, 9]));
    assert_eq!((there.nested().at(1).other().one(), there.nested().get(0).other.one), (5, 3));
    assert_eq!((there.phases().one(), there.phases().try_load().is_err()), (Ok(Phase::Play), true));
}
