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
    locked: Mutex<u32>,
    number: AtomicUsize,
    pointer: AtomicPtr<u8>,
}

fn main() {}
