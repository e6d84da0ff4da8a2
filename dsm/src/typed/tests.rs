//! Everything typed, over plain memory of this process: what Miri can run of the argument at the head of [`crate::typed`].
//! What the library does to shared bytes breaks no rule of the language, whoever else does the same meanwhile.
//!
//! Here view and alias are one, so that Miri sees both sides of every race. All words that race are of one width, as those
//! of one field are.

use super::*;
use crate::place::Place;
use crate::prelude::*;
use crate::region::Region;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

/// Rounds of a thread.
const ROUNDS: u32 = if cfg!(miri) { 20 } else { 20_000 };

#[crate::shared(crate = crate)]
#[derive(Debug, PartialEq)]
#[repr(u8)]
pub(crate) enum Phase {
    Setup = 1,
    Play = 2,
}

#[crate::shared(crate = crate)]
#[derive(Debug, PartialEq)]
pub(crate) struct Point {
    pub x: f32,
    pub y: f32,
}

#[crate::shared(crate = crate)]
pub(crate) struct Pair<T: SharedType, const N: usize> {
    pub left: T,
    pub right: [T; N],
}

#[crate::shared(crate = crate)]
pub(crate) struct Board {
    #[dsm(align = 64)]
    pub turn: u32,
    pub wide: u128,
    pub total: AtomicU64,
    pub scores: [[u16; 3]; 4],
    pub flag: bool,
    pub phase: Phase,
    pub letter: [u8; 2],
    pub initial: char,
    pub point: Point,
    pub pair: Pair<u32, 3>,
    pub best: Pointer<Point>,
    pub name: Text<12>,
    pub moves: List<u16, 8>,
    #[dsm(read_only)]
    pub limit: f64,
    pub state: Versioned<[u64; 3]>,
    pub locked: crate::field::Mutex<u64>,
    #[dsm(skip_accessors)]
    pub rest: [u8; 40],
}

/// A region with a `T` (zeros) in it, which is known to be there.
fn with<T: SharedType>(test: impl FnOnce(Shared<'_, T>)) {
    let region = Region::plain((3 * 4096 + size_of::<T>()).next_multiple_of(4096));
    region.types.know(4096, size_of::<T>() as u64, T::LAYOUT);
    // SAFETY: at a page, and within the region.
    test(unsafe { Shared::new(Place::new(&region, 4096)) });
    // SAFETY: the handle is gone.
    unsafe { region.close() };
}

/// Has the arbiter's word that everything logged has its place: there is room again.
fn acknowledge(region: &Region) {
    let log = region.log();
    log.acknowledge(log.control().producer.tail.load(SeqCst));
}

#[test]
fn fields_of_every_kind_are_loaded_and_stored() {
    with::<Board>(|board| {
        board.set_turn(7);
        board.update_turn(|turn| turn + 1);
        board.set_wide(u128::MAX - 5);
        board.scores().at(2).set(1, 300);
        board.set_flag(true);
        board.set_phase(Phase::Play);
        board.set_initial('ß');
        board.point().store(&Point { x: 1.5, y: -2.5 });
        board.point().set_y(0.25);
        board.pair().set_left(9);
        board.pair().right().fill(4);
        board.pair().right().range(1..).copy_from_slice(&[5, 6]);
        board.letter().copy_from_slice(b"ab");
        assert_eq!((board.turn(), board.wide(), board.flag()), (8, u128::MAX - 5, true));
        assert_eq!(board.scores().as_flattened().to_vec(), [0, 0, 0, 0, 0, 0, 0, 300, 0, 0, 0, 0]);
        assert_eq!((board.phase(), board.initial()), (Ok(Phase::Play), Ok('ß')));
        assert_eq!(board.point().load(), Point { x: 1.5, y: 0.25 });
        assert_eq!((board.pair().left(), board.pair().right().iter().sum::<u32>()), (9, 15));
        assert_eq!(board.letter().to_vec(), b"ab");
        let reader = board.read_only();
        assert_eq!((reader.turn(), reader.limit(), reader.scores().at(2).get(1)), (8, 0.0, 300));
        // SAFETY: one thread.
        unsafe { (*board.as_ptr()).limit = 2.5 };
        assert_eq!(reader.limit(), 2.5);
    });
}

#[test]
fn bytes_that_make_no_value_are_refused() {
    with::<Board>(|board| {
        assert!(board.phase().is_err());
        // SAFETY: one thread; the bytes may be anything.
        unsafe { board.as_ptr().cast::<u8>().write_bytes(0xff, size_of::<Board>()) };
        assert!(board.flag() && board.phase().is_err() && board.initial().is_err());
        assert!(board.hole().is_err());
        assert!(board.name().get().is_err());
        assert_eq!((board.name().len(), board.moves().len()), (12, 8));
        assert_eq!((board.name().get_lossy().len(), board.moves().to_vec()), (36, vec![u16::MAX; 8]));
        assert!(matches!(board.best().follow(), Err(BadPointer::Misaligned(u64::MAX))));
        assert!(board.point().x().is_nan());
        board.set_flag(true);
        board.set_initial('x');
        assert_eq!((board.initial(), board.flag()), (Ok('x'), true));
    });
}

#[test]
fn texts_lists_and_pointers() {
    with::<Board>(|board| {
        board.name().set("größe").unwrap();
        board.name().push_str("!").unwrap();
        assert_eq!(board.name().get().unwrap(), "größe!");
        assert!(board.name().push_str("12345").is_err());
        let moves = board.moves();
        moves.extend_from_slice(&[1, 2, 3]).unwrap();
        moves.push(4).unwrap();
        moves.at(0).unwrap().set(9);
        assert_eq!((moves.pop(), moves.to_vec(), moves.get(7)), (Some(4), vec![9, 2, 3], None));
        board.best().point_to(Some(board.point())).unwrap();
        board.point().set_x(3.0);
        assert_eq!(board.best().follow().unwrap().unwrap().x(), 3.0);
        let whole = board.best().swap(Pointer::null(), SeqCst);
        assert!(board.best().follow().unwrap().is_none() && !whole.is_null());
    });
}

#[test]
fn atomics_of_every_width_under_the_lease() {
    with::<Board>(|board| {
        assert_eq!(board.turn_atomic().fetch_add(5, SeqCst), 0);
        assert_eq!(board.turn_atomic().compare_exchange(5, 6, SeqCst, SeqCst), Ok(5));
        assert_eq!(board.wide_atomic().swap(1 << 90, SeqCst), 0);
        assert_eq!(board.wide_atomic().fetch_or(1, SeqCst), 1 << 90);
        assert_eq!(board.total().fetch_max(70, SeqCst), 0);
        assert_eq!(board.scores().at(1).as_slice().atomic(1).fetch_sub(1, SeqCst), 0);
        assert_eq!(board.letter().atomic(1).fetch_xor(0x41, SeqCst), 0);
        assert!(!board.flag_ref().swap(true, SeqCst));
        let before = Shared::swap_whole(board.point(), Point { x: 1.0, y: 2.0 }, SeqCst);
        assert_eq!((before, board.point().y()), (Point { x: 0.0, y: 0.0 }, 2.0));
        assert_eq!((board.turn(), board.wide(), board.total().load(SeqCst)), (6, 1 << 90 | 1, 70));
        assert_eq!((board.scores().at(1).get(1), board.letter().get(1)), (u16::MAX, 0x41));
    });
}

#[test]
fn holes_are_private_and_publish_what_changed() {
    with::<Board>(|board| {
        board.set_phase(Phase::Setup);
        board.state().raise(&[1, 2, 3]).unwrap();
        let mut hole = board.hole().unwrap();
        assert!(board.hole().is_err());
        *hole.turn = 5;
        hole.scores[3] = [7; 3];
        hole.phase = Phase::Play;
        *hole.total.get_mut() = 12;
        hole.name = "hole".try_into().unwrap();
        hole.moves.push(3).unwrap();
        // Meanwhile somebody else stores to what the hole leaves alone.
        board.set_wide(99);
        board.state().raise(&[4, 5, 6]).unwrap();
        assert_eq!((board.turn(), hole.wide), (0, 0));
        hole.fill().unwrap();
        assert_eq!((board.turn(), board.wide(), board.phase()), (5, 99, Ok(Phase::Play)));
        assert_eq!((board.scores().at(3).load(), board.total().load(SeqCst)), ([7; 3], 12));
        assert_eq!((board.name().get().unwrap().as_str(), board.moves().to_vec()), ("hole", vec![3]));
        assert_eq!(board.state().snapshot().unwrap(), [4, 5, 6]);
        // One that is dropped, over a slice.
        board.scores().hole().unwrap().iter_mut().for_each(|row| row[0] += 1);
        assert_eq!(board.scores().as_flattened().to_vec(), [1, 0, 0, 1, 0, 0, 1, 0, 0, 8, 7, 7]);
        board.scores().hole().unwrap().discard();
    });
    with::<[u64; 600]>(|numbers| {
        let mut hole = numbers.as_slice().range(3..590).hole().unwrap();
        hole.iter_mut().zip(3..).for_each(|(number, at)| *number = at);
        hole.fill().unwrap();
        let expected = (0..600).map(|at| if (3..590).contains(&at) { at } else { 0 });
        assert!(numbers.as_slice().iter().eq(expected));
    });
}

#[test]
fn input_is_stored_by_way_of_private_memory() {
    with::<[u16; 100]>(|numbers| {
        let text: Vec<u8> = (0..150).collect();
        assert_eq!(crate::io::read_into(&mut &text[..], numbers.as_slice()).unwrap(), 150);
        assert_eq!((numbers.as_slice().get(74), numbers.as_slice().get(75)), (u16::from_le_bytes([148, 149]), 0));
        let mut out = Vec::new();
        crate::io::write_all_from(&mut out, numbers.as_slice().range(..75)).unwrap();
        assert_eq!(out, text);
    });
}

#[test]
fn threads_share_fields() {
    with::<Board>(|board| {
        thread::scope(|scope| {
            // One counts where the other looks; neither waits.
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    board.set_turn(round);
                    board.set_wide(u128::from(round) << 64 | u128::from(round));
                    board.letter().set(0, round as u8);
                    board.total().fetch_add(1, SeqCst);
                    board.point().set_x(round as f32);
                    acknowledge(board.place().region());
                }
            });
            let (mut turn, mut x) = (0, 0.0);
            for _ in 0..ROUNDS {
                let (next, far) = (board.turn(), board.point().x());
                assert!(next >= turn && far >= x);
                (turn, x) = (next, far);
                let wide = board.wide();
                // (Miri has no access of 16 bytes that is atomic.)
                assert!(cfg!(miri) || wide >> 64 == wide & u128::from(u64::MAX), "torn: {wide:#x}");
                let _ = board.letter().get(0);
                board.total().fetch_add(1, SeqCst);
                let _ = board.read_only().wide();
                board.pair().set_left(next);
            }
        });
        assert_eq!((board.turn(), board.total().load(SeqCst)), (ROUNDS, u64::from(2 * ROUNDS)));
    });
}

#[test]
fn threads_share_an_atomic_of_std() {
    with::<AtomicU64>(|count| {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(move || (0..ROUNDS).for_each(|_| _ = count.as_std().fetch_add(1, Relaxed)));
            }
            // By the library's own way at the same time. (Its lock does not keep the others out: loads alone.)
            (0..ROUNDS).for_each(|_| assert!(count.atomic().load(SeqCst) <= u64::from(2 * ROUNDS)));
        });
        assert_eq!(count.atomic().load(SeqCst), u64::from(2 * ROUNDS));
    });
}

#[test]
fn what_is_published_is_read_whole() {
    with::<Versioned<[u64; 3]>>(|state| {
        thread::scope(|scope| {
            scope.spawn(move || {
                for round in 1..=u64::from(ROUNDS) {
                    state.raise(&[round, 2 * round, 3 * round]).unwrap();
                    acknowledge(state.place().region());
                }
            });
            let mut last = 0;
            while last < u64::from(ROUNDS) {
                let (version, [one, two, three]) = state.snapshot_with_version().unwrap();
                assert_eq!((one, two, three), (version, 2 * version, 3 * version));
                assert!(version >= last);
                last = version;
            }
        });
    });
}
