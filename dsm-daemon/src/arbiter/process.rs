//! A process that is connected to the arbiter.

use crate::arbiter::Descriptors;
use crate::link::Seat;
use async_io::Async;
use dsm_core::sys::process::{ended, maps, peer, peer_pidfd};
use dsm_core::wire::control::{Ask, Reason, Refusal, Told, frame, parse};
use dsm_core::wire::{FrameKind, Hello, Role};
use std::os::fd::{AsFd, OwnedFd};
use std::task::Context;

/// The connection, and what is known of the process behind it.
#[derive(Debug)]
pub(super) struct Client {
    seat: Seat,
    alive: Async<OwnedFd>,
    pid: u32,
    greeted: bool,
    /// Session that it has joined.
    pub(super) session: Option<String>,
    /// Its number there.
    pub(super) process: u16,
    /// It has said goodbye.
    pub(super) left: bool,
    /// Numbers of questions to be answered, in order.
    open: std::collections::VecDeque<u64>,
}

/// A process whose connection is over, and which may still be storing: it has not said goodbye.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) client: u64,
    /// Its number in the session.
    pub(super) process: u16,
    alive: Async<OwnedFd>,
    pid: u32,
}

impl Leaving {
    /// Has it ended?
    pub(super) fn ended(&self) -> bool {
        ended(self.alive.get_ref())
    }

    /// Is it out of reach of this log, for good?
    pub(super) fn gone(&self, log: &OwnedFd) -> bool {
        self.ended() || !maps(self.pid, log)
    }

    /// Has it ended? Else asks to be woken.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> bool {
        self.alive.poll_readable(cx).is_ready()
    }
}

impl Client {
    /// A new connection; `None` when it is not of our user, or already over.
    pub(super) fn new(seat: Seat) -> Option<Self> {
        let who = peer(seat.socket().as_fd()).ok()?;
        let ours = nix::unistd::getuid().as_raw();
        if who.uid != ours && who.uid != 0 {
            crate::role::note(&format!("refused process {} of user {}", who.pid, who.uid));
            return None;
        }
        let alive = Async::new(peer_pidfd(seat.socket().as_fd()).ok()?).ok()?;
        Some(Self {
            seat,
            alive,
            pid: who.pid.unsigned_abs(),
            greeted: false,
            session: None,
            process: 0,
            left: false,
            open: std::collections::VecDeque::new(),
        })
    }

    /// Closes the connection, and keeps an eye on the process.
    pub(super) fn leaving(self, client: u64) -> Leaving {
        Leaving { client, process: self.process, alive: self.alive, pid: self.pid }
    }

    /// Number of the process, for people.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Receives and sends what it can. Returns whether anything came.
    pub(super) fn pump(&mut self) -> bool {
        let came = self.seat.receive();
        self.seat.flush();
        came
    }

    /// The next question.
    pub(super) fn next(&mut self) -> Option<Ask> {
        if !self.greeted {
            let hello: Hello = bytemuck::pod_read_unaligned(self.seat.reader.take(size_of::<Hello>())?);
            // Said in any case, so that another release can tell its user what does not fit.
            self.seat.queue(bytemuck::bytes_of(&Hello::new(Role::Arbiter, [0; 32], false)).to_vec(), Vec::new());
            self.seat.flush();
            if hello.check(Role::Process).is_err() {
                self.seat.cut();
                return None;
            }
            self.greeted = true;
        }
        let ask = match self.seat.reader.next() {
            Ok(None) => return None,
            Ok(Some(frame)) if frame.kind == FrameKind::Control => {
                parse::<Ask>(frame.payload).ok().map(|ask| (ask, frame.header.from))
            }
            Ok(Some(_)) | Err(_) => None,
        };
        let Some((ask, id)) = ask else {
            // Nonsense costs the connection, and nobody else anything.
            self.seat.cut();
            return None;
        };
        self.open.push_back(id);
        Some(ask)
    }

    /// Answers the oldest question.
    pub(super) fn tell(&mut self, told: &Told, descriptors: Descriptors) {
        let Some(id) = self.open.pop_front() else { return };
        let too_long = |text| Told::Refused(Refusal::new(Reason::TooLarge, text));
        let bytes = frame(told, id, 0, 0).or_else(|error| frame(&too_long(error.to_string()), id, 0, 0));
        match bytes {
            Ok(bytes) => self.seat.queue(bytes, descriptors),
            Err(_) => self.seat.cut(),
        }
        self.seat.flush();
    }

    /// Looks whether the process has ended while somebody else (a child) keeps its connection open.
    pub(super) fn check_alive(&mut self) {
        if ended(self.alive.get_ref()) {
            self.seat.cut();
        }
    }

    /// Is it gone?
    pub(super) fn gone(&self) -> bool {
        self.seat.broken()
    }

    /// Is there anything to do? Else asks to be woken.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> bool {
        let ready = self.seat.poll(cx);
        self.alive.poll_readable(cx).is_ready() || ready
    }
}
