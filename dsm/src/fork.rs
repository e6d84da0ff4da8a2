//! `fork`: the child is a process of its own. It inherits the mappings, and joins each session again, by itself, before
//! `fork` returns in it.
//!
//! The library's own locks are held across the call, so that no other thread of the parent, which the child does not
//! have, holds one in the child. The replica lock is none of them: it is the parent's, in shared memory, and whatever
//! thread of the parent holds it goes on.
//!
//! Signals are blocked for the same time: a handler that stored in the child before it has a number of its own would do
//! so under its parent's, and if the child died in the middle of it, nobody would complete that store.

use crate::connection::Connection;
use crate::hands::hands;
use crate::region::{Locks, Region};
use crate::signals::{self, Turn};
use crate::trap::{self, Pinned};
use crate::{Error, Result};
use dsm_core::wire::control::{Ask, Told};
use std::cell::RefCell;
use std::mem::ManuallyDrop;

/// What is held across `fork`.
#[derive(Default)]
struct Held {
    regions: Vec<Frozen>,
    /// Handlers are adopted by nobody meanwhile; unless this thread was at it, and goes on in parent and child.
    turn: Option<Turn>,
    /// What was blocked before.
    blocked: u64,
}

/// A region, and its locks (unless they could not be had).
struct Frozen {
    // Dropped in this order: the locks are in the region.
    locks: Option<Locks<'static>>,
    pinned: Pinned,
}

thread_local! {
    /// What this thread holds between the beginning and the end of `fork`. Without a destructor, so that it is there also
    /// for one that calls `fork`, of another of the thread's locals; nothing is left in it when a thread ends.
    static HELD: ManuallyDrop<RefCell<Held>> =
        const { ManuallyDrop::new(RefCell::new(Held { regions: Vec::new(), turn: None, blocked: 0 })) };
}

/// Registers the handlers, once.
pub(crate) fn install() -> Result<()> {
    // SAFETY: the handlers are functions of this program, which is not unloaded.
    let result = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    match result {
        0 => Ok(()),
        code => Err(Error::System { what: "pthread_atfork".into(), source: std::io::Error::from_raw_os_error(code) }),
    }
}

extern "C" fn before() {
    let blocked = signals::keep_away();
    HELD.with(|held| {
        let mut held = held.borrow_mut();
        held.blocked = blocked;
        held.regions.extend(trap::pin().map(|pinned| {
            let locks = pinned.region().freeze();
            Frozen { locks, pinned }
        }));
        // The last, as threads that adopt wait for nothing else.
        held.turn = Turn::wait();
    });
}

extern "C" fn in_parent() {
    let Held { regions, turn, blocked } = HELD.with(|held| held.take());
    drop((regions, turn));
    signals::set_mask(blocked);
}

extern "C" fn in_child() {
    let Held { regions, turn, blocked } = HELD.with(|held| held.take());
    match turn {
        Some(turn) => drop(turn),
        None => signals::keep_turn(),
    }
    let torn = hands().busy();
    if torn {
        // A signal handler interrupted a store, and called `fork`. The parent goes on with that store; if the child
        // did, too, it would give back a lock that is not its own.
        trap::tear();
    }
    for Frozen { locks, pinned } in regions {
        let region = pinned.region();
        // The parent's connection: were it to stay open here, the arbiter could not see the parent end.
        // SAFETY: the descriptor is this process's copy; nobody uses it any more, since it is replaced below.
        unsafe { libc::close(region.socket()) };
        let joined = match locks {
            Some(mut locks) if !torn => {
                locks.objects.clear();
                locks.unsaid.clear();
                join(region)
            }
            _ => None,
        };
        // SAFETY: the child of a fork has one thread, and it is here.
        unsafe { region.reborn(joined) };
        if torn {
            region.seal();
        }
    }
    trap::after_fork();
    signals::set_mask(blocked);
}

/// A number of our own. On failure the region is marked, and the first store says so.
fn join(region: &Region) -> Option<(Connection, u16)> {
    let mut connection = Connection::open(&region.arbiter).ok()?;
    let ask = Ask::Join { session: region.name.clone(), daemon: None, existing: true };
    match connection.exchange(&ask) {
        Ok((Told::Joined { process, .. }, _descriptors)) => Some((connection, process)),
        _ => None,
    }
}
