use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, AtomicUsize};
use std::sync::{Arc, Mutex};

#[dsm::shared]
struct Board {
    counted: Rc<u64>,
    atomically: Arc<u64>,
    cell: Cell<u32>,
    ref_cell: RefCell<[u8; 4]>,
    locked: std::sync::Mutex<u32>,
    number: AtomicUsize,
    pointer: AtomicPtr<u8>,
    turn: u64,
}

// Of this name there is one in `dsm::field`, too, so it is the compiler that finds which it is.
#[dsm::shared]
struct Locked {
    number: Mutex<u32>,
}

fn turn(session: &dsm::Session) -> dsm::Result<u64> {
    Ok(session.open::<Board>("board")?.turn())
}

fn main() {}
