//! Storing for operations that return errors: a store that waits for room, or for the replica lock, when the session ends
//! panics; here it is an error instead. Nor need it wait for longer than its caller does.

use crate::place::Place;
use crate::region::Region;
use crate::{Error, Result};
use dsm_core::bias::Favour;
use dsm_core::limits::{LINE, PAGE};
use dsm_core::log::Writer;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// A writer that does not panic when what it waits for can no longer come, or does not come in time, but is unwound up to
/// [`patiently_by`]: without the panic hook, and so also while the thread panics already and drops a hole or a guard.
pub(crate) struct Patient<'a>(&'a Region, Option<Instant>);

/// Why it was unwound; `None` when its time is over.
struct Lost(Option<Error>);

impl Writer for Patient<'_> {
    fn number(&self) -> u32 {
        self.0.number()
    }

    fn favour(&self) -> Option<&Favour> {
        self.0.favour()
    }

    fn ring_doorbell(&self) {
        self.0.ring_doorbell();
    }

    fn stalled(&self) {
        let lost = self.0.lost();
        // A program that aborts on panics cannot be unwound: it waits on.
        let late = cfg!(panic = "unwind") && self.1.is_some_and(|deadline| Instant::now() >= deadline);
        if lost.is_some() || late {
            resume_unwind(Box::new(Lost(lost)));
        }
    }

    fn holds(&self) -> bool {
        self.0.holds()
    }

    fn let_in(&self) {
        self.0.let_in();
    }
}

/// Carries out what stores with the writer that it is given.
///
/// # Errors
/// When the session ends while that waits.
pub(crate) fn patiently(region: &Region, action: impl FnOnce(&Patient<'_>)) -> Result<()> {
    patiently_by(region, None, action).map(drop)
}

/// As [`patiently`], until the deadline; false when it was not done by then. (It is looked at every few milliseconds of
/// waiting.) What is done in several steps may be done in part.
///
/// # Errors
/// When the session ends while that waits.
pub(crate) fn patiently_by(
    region: &Region,
    deadline: Option<Instant>,
    action: impl FnOnce(&Patient<'_>),
) -> Result<bool> {
    match catch_unwind(AssertUnwindSafe(|| action(&Patient(region, deadline)))) {
        Ok(()) => Ok(true),
        Err(payload) => match payload.downcast::<Lost>() {
            Ok(lost) => lost.0.map_or(Ok(false), Err),
            Err(payload) => resume_unwind(payload),
        },
    }
}

/// Lines of a page.
const LINES: usize = (PAGE / LINE) as usize;

/// Stores all of `bytes`, in bulk; false when the deadline came first, and some of them may be stored.
///
/// # Errors
/// When the session ends while this waits for room.
pub(crate) fn publish_all(place: Place<'_>, bytes: &[u8], deadline: Option<Instant>) -> Result<bool> {
    let region = place.region();
    let publish = |writer: &Patient<'_>, at: u64, masks: &[u64], lines: &[[u8; 64]]| {
        region.with_log(|| region.log().publish(region.memory(), writer, at, masks, lines));
    };
    patiently_by(region, deadline, |writer| {
        let (mut at, mut rest) = (place.offset(), bytes);
        while !rest.is_empty() {
            let (within, left) = (at % LINE, (PAGE - at % PAGE) as usize);
            let count = if within == 0 && rest.len() as u64 >= LINE {
                let count = left.min(rest.len()) / LINE as usize;
                publish(writer, at, &[u64::MAX; LINES][..count], &rest.as_chunks::<64>().0[..count]);
                count * LINE as usize
            } else {
                let count = rest.len().min((LINE - within) as usize);
                let mut line = [0; 64];
                line[within as usize..][..count].copy_from_slice(&rest[..count]);
                publish(writer, at - within, &[dsm_core::log::in_line(at, count)], &[line]);
                count
            };
            (at, rest) = (at + count as u64, &rest[count..]);
        }
    })
}
