// One error a field, and none from what uses the struct.
use dsm::prelude::*;
use std::collections::HashMap;

#[dsm::shared]
#[derive(Debug)]
struct Board {
    scores: Vec<u64>,
    name: String,
    players: HashMap<u32, u32>,
    turn: u64,
}

#[dsm::shared]
struct Hall {
    boards: [Board; 3],
}

fn play(session: &Session) -> dsm::Result<String> {
    let hall = session.open::<Hall>("hall")?;
    let board = hall.boards().at(1);
    board.set_turn(board.turn() + 1);
    board.set_name(String::from("A"));
    board.hole()?.scores.push(1);
    println!("{:?}", session.open_read_only::<Board>("board")?);
    Ok(board.name() + "B")
}

fn main() {}
