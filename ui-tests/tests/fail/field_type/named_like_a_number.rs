// What a type is called says nothing of what it is: not all bytes make a `Board`.
#![allow(non_camel_case_types)]
use dsm::typed::{List, Shared};

#[dsm::shared]
#[repr(u8)]
enum Phase {
    Play = 1,
}

type u8 = Phase;

#[dsm::shared]
struct Board {
    #[dsm(skip_accessors)]
    phase: u8,
}

fn zeroed() -> List<Board, 4> {
    List::new()
}

fn load(board: Shared<'_, Board>) -> Board {
    board.load()
}

fn main() {}
