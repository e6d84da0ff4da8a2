//! The accessors of every kind of field.
use dsm::typed::{Atomic, Shared, Slice};
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

type Score = u16;
const LEN: usize = 4;

#[dsm::shared]
#[derive(Default)]
struct Pos {
    x: f32,
    y: f32,
}

#[dsm::shared(protocol = "replicated")]
struct Board {
    turn: u32,
    speed: f32,
    scores: [u64; LEN * 2],
    grid: [[u8; 8]; 8],
    pos: Pos,
    trail: [Pos; LEN],
    wide: u128,
    score: Score,
    lengths: [Score; 7],
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn accessors<'s>(board: &Shared<'s, Board>) {
    let _: u32 = board.turn();
    board.set_turn(board.turn() + 1);
    let _: Shared<'s, u32> = board.turn_ref();
    let _: Atomic<'s, u32> = board.turn_atomic();
    let _: u32 = board.turn_atomic().fetch_add(1, SeqCst);
    let _: Result<u32, u32> = board.turn_atomic().compare_exchange(1, 2, Acquire, Relaxed);
    let _: Atomic<'s, u128> = board.wide_atomic();

    let _: f32 = board.speed();
    board.set_speed(1.5);
    board.speed_ref().set(2.5);

    let _: Slice<'s, u64> = board.scores();
    board.scores().set(3, 42);
    board.scores().atomic(3).fetch_max(7, SeqCst);
    board.set_scores(&[0; 8]);
    let _: u64 = board.scores().range(2..=4).iter().sum();
    for score in board.scores().chunk(1, 3) {
        let _: u64 = score;
    }
    let _: Shared<'s, [u64; 8]> = board.scores_ref();

    let _: Shared<'s, [u8; 8]> = board.grid().at(1);
    let _: u8 = board.grid().at(1).get(2);
    let _: Slice<'s, u8> = board.grid().at(1).as_slice().range(2..);
    let _: Slice<'s, u8> = board.grid().as_flattened();

    let _: Shared<'s, Pos> = board.pos();
    board.set_pos(&Pos { x: 1.0, ..board.pos().load() });
    board.pos().set_x(board.pos().y());

    let _: Slice<'s, Pos> = board.trail();
    board.trail().at(1).set_y(0.0);
    board.trail().fill(Pos::default());
    board.trail().handles().rev().for_each(|pos| pos.set_x(0.5));

    // Through an alias, a number is a number.
    let _: u16 = board.score();
    board.set_score(3);
    let _: Atomic<'s, u16> = board.score_ref().atomic();
    board.lengths().atomic(0).store(1, SeqCst);

    let copy: Board = board.load();
    board.store(&Board { turn: 9, ..copy });
    let _: *mut Board = board.as_ptr();
    let _: bool = Shared::ptr_eq(board.pos(), board.pos_ref());
}

/// A handle that was reached through another one is good for as long as the session.
#[expect(dead_code, reason = "that it compiles is the test")]
fn longer_than_the_handle<'s>(board: Shared<'s, Board>) -> (Slice<'s, u64>, Atomic<'s, u32>, Shared<'s, f32>) {
    let copy = board;
    (copy.scores(), copy.turn_atomic(), copy.pos().x_ref())
}

#[test]
fn handles_are_light_and_go_anywhere() {
    fn goes_anywhere<T: Copy + Send + Sync + std::fmt::Debug>() {}
    goes_anywhere::<Shared<'_, Board>>();
    goes_anywhere::<Board_Fields<'_>>();
    goes_anywhere::<Slice<'_, Pos>>();
    goes_anywhere::<Atomic<'_, i64>>();
    // An address and the session.
    assert_eq!(size_of::<Shared<'_, Board>>(), 2 * size_of::<usize>());
    assert_eq!(size_of::<Option<Atomic<'_, u8>>>(), 2 * size_of::<usize>());
}
