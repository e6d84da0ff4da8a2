use dsm::typed::Shared;
use std::sync::atomic::Ordering::SeqCst;

#[dsm::shared]
struct Board {
    turn: u32,
    phase: u32,
    scores: [u64; 4],
}

fn play(board: Shared<'_, Board>, next: usize) {
    board.set_turn(next);
    board.turn_atomic().fetch_add(1u64, SeqCst);
    board.set_scores(&[1, 2, 3]);
    board.set_scores([1, 2, 3, 4]);
    board.load().turn = "first";
}

fn main() {}
