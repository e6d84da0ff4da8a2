//! What wakes asynchronous waits: a socket on which the arbiter sends a byte when something has come for this process.
//!
//! Invariant: a future whose answer has come is woken. It (1) enters its waker in the list, (2) asks for the socket to be
//! watched, (3) says in shared memory that it listens, and (4) looks. What comes after (4) makes the arbiter ring. Then
//! the socket is readable, until a future takes the bytes off it, and that one wakes all in the list.

use crate::region::Region;
use crate::{Error, Result};
use async_io::{Async, Readable};
use dsm_core::wire::control::Ask;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The bell of this process, and who listens.
#[derive(Debug)]
pub(crate) struct Bell {
    socket: Async<UnixStream>,
    /// Process number of the system: a child of `fork` shares socket and reactor, and may touch neither.
    process: u32,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// A place in the list.
struct Seat<'a> {
    bell: &'a Bell,
    number: u64,
    readable: Option<Readable<'a, UnixStream>>,
}

/// What was on the socket.
enum Heard {
    Something,
    Nothing,
    /// The arbiter has closed it.
    End,
}

impl Bell {
    /// The bell of this process. Asks the arbiter for one at first, and waits for the answer.
    pub(crate) fn of(region: &Region) -> Result<&Self> {
        if region.listening.get().is_none() {
            // Held, so that one is asked for once.
            let mut connection = region.connection();
            if region.listening.get().is_none() {
                let (_, descriptors) = region.ask_by(&mut connection, &Ask::Bell)?;
                let socket = descriptors.into_iter().next();
                let socket = socket.ok_or_else(|| Error::Unavailable("the arbiter's answer lacks its bell".into()))?;
                let socket = Async::new(UnixStream::from(socket)).map_err(Error::system("cannot listen for a bell"))?;
                let bell = Self { socket, process: std::process::id(), listeners: Mutex::default() };
                // Nobody else can have been here.
                let _ = region.listening.set(bell);
            }
        }
        match region.listening.get() {
            Some(bell) if bell.ours() => Ok(bell),
            _ => Err(not_ours()),
        }
    }

    fn ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// Ends it, if it is this process's.
    pub(crate) fn close(self) {
        if !self.ours() {
            // What the reactor watches would be forgotten for the parent, too.
            std::mem::forget(self);
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is on the socket off it.
    fn hear(&self) -> Heard {
        let mut heard = Heard::Nothing;
        let mut bytes = [0; 256];
        loop {
            match self.socket.get_ref().read(&mut bytes) {
                Ok(0) => return Heard::End,
                Ok(_) => heard = Heard::Something,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return heard,
                Err(_) => return Heard::End,
            }
        }
    }
}

pub(crate) fn not_ours() -> Error {
    let text = "asynchronous waits of a process end with its `fork`: the child has to use those that block";
    Error::Unavailable(text.into())
}

impl<'a> Seat<'a> {
    fn new(bell: &'a Bell) -> Self {
        let mut listeners = bell.listeners();
        listeners.next += 1;
        Self { bell, number: listeners.next, readable: None }
    }

    /// From now on the task is woken when the bell rings. False when it never will again.
    fn listen(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.bell.listeners().wakers.insert(self.number, cx.waker().clone());
        // Not under the lock: dropping a waker may drop its task, with seats in it.
        drop(before);
        loop {
            let readable = self.readable.get_or_insert_with(|| self.bell.socket.readable());
            match Pin::new(readable).poll(cx) {
                Poll::Pending => return true,
                Poll::Ready(Err(_)) => return false,
                Poll::Ready(Ok(())) => self.readable = None,
            }
            match self.bell.hear() {
                Heard::Nothing => {}
                Heard::End => return false,
                Heard::Something => {
                    let mut others = std::mem::take(&mut self.bell.listeners().wakers);
                    let own = others.remove(&self.number);
                    others.into_values().for_each(Waker::wake);
                    let before = own.and_then(|own| self.bell.listeners().wakers.insert(self.number, own));
                    drop(before);
                }
            }
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let waker = self.bell.listeners().wakers.remove(&self.number);
        drop(waker);
    }
}

/// Waits until `look` has something. `arm` says in shared memory that the bell is to be rung when that may be so.
pub(super) async fn until<R>(region: &Region, arm: impl Fn(), mut look: impl FnMut() -> Option<R>) -> Result<R> {
    if let Some(found) = look() {
        return Ok(found);
    }
    if let Some(error) = region.lost() {
        return Err(error);
    }
    let mut seat = Seat::new(Bell::of(region)?);
    poll_fn(move |cx| {
        if let Some(found) = look() {
            return Poll::Ready(Ok(found));
        }
        if !seat.bell.ours() {
            return Poll::Ready(Err(not_ours()));
        }
        let rings = seat.listen(cx);
        arm();
        match look() {
            Some(found) => Poll::Ready(Ok(found)),
            None if rings && region.log().ended().is_none() => Poll::Pending,
            None => {
                let gone = || Error::ArbiterGone { session: region.name.clone() };
                Poll::Ready(Err(region.lost().unwrap_or_else(gone)))
            }
        }
    })
    .await
}
