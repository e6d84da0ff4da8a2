use dsm::typed::Shared;
use std::sync::atomic::AtomicU64;

#[dsm::shared]
struct Counters {
    hits: AtomicU64,
}

#[dsm::shared]
struct Board {
    counters: Counters,
}

fn copy(board: Shared<'_, Board>, fresh: Counters) {
    let _ = board.load();
    board.set_counters(&fresh);
    board.counters().set_hits(1);
}

fn main() {}
