#![deny(unused_must_use)]
use dsm::prelude::*;

fn ignored(sem: &Semaphore<'_>, numbers: dsm::Slice<'_, u64>) -> dsm::Result<()> {
    numbers.hole()?;
    match sem.lock() {
        Ok(guard) => guard,
        Err(_) => return Ok(()),
    };
    Ok(())
}

fn main() {}
