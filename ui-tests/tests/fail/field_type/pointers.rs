// One error a field, and none from what uses the struct.
use dsm::prelude::*;

#[dsm::shared]
#[derive(Debug)]
struct Board {
    name: &str,
    bytes: &'static [u8],
    raw: *mut u8,
    callback: fn(u32) -> u32,
    number: &u64,
    turn: u64,
}

fn play(session: &Session) -> dsm::Result<&'static str> {
    let board = session.open::<Board>("board")?;
    board.set_turn(board.load().turn + 1);
    board.set_name("A");
    board.store(&Board { turn: 3, ..board.load() });
    Ok(board.name())
}

#[dsm::shared]
struct Owner {
    boxed: Box<u64>,
}

fn main() {}
