//! Connections that carry frames, never waiting: what cannot go now is queued, what has come is cut into frames.

use async_io::Async;
use dsm_core::sys::passing;
use dsm_core::wire::{FrameHeader, FrameKind, Reader};
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::task::Context;
use std::time::{Duration, Instant};

/// Above this many queued bytes, whoever fills the queue is made to wait.
pub const HIGH: usize = 1 << 20;
/// Below this many queued bytes, snapshots go on.
pub const LOW: usize = 512 << 10;

/// From this payload on, a frame is sent without being copied, when it can go at once.
const DIRECT: usize = 16 << 10;

/// A TCP connection to another node.
#[derive(Debug)]
pub struct Link {
    io: Async<TcpStream>,
    /// What has come.
    pub reader: Reader,
    out: Vec<u8>,
    sent: usize,
    broken: bool,
    heard: Instant,
    spoke: Instant,
    /// We have looked whether something came, since the last tick.
    listened: bool,
    flow: Flow,
}

/// Whether a queue for whose sake others wait still moves.
#[derive(Debug, Default)]
pub struct Flow {
    moved: bool,
    stuck: Option<Instant>,
}

impl Flow {
    /// Something was taken from the queue.
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// Have more than [`HIGH`] bytes waited for `patience`, of which nothing was taken? To be asked with every tick.
    pub fn stuck(&mut self, queued: usize, now: Instant, patience: Duration) -> bool {
        if std::mem::take(&mut self.moved) || queued <= HIGH {
            self.stuck = None;
            return false;
        }
        now.duration_since(*self.stuck.get_or_insert(now)) > patience
    }
}

impl Link {
    /// Takes over a connection that has been greeted.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(stream: TcpStream) -> std::io::Result<Self> {
        let now = Instant::now();
        let io = Async::new(stream)?;
        Ok(Self {
            io,
            reader: Reader::new(),
            out: Vec::new(),
            sent: 0,
            broken: false,
            heard: now,
            spoke: now,
            listened: false,
            flow: Flow::default(),
        })
    }

    /// Queues a frame.
    pub fn queue(&mut self, header: &FrameHeader, payload: &[u8]) {
        let header = bytemuck::bytes_of(header);
        let mut sent = 0;
        if payload.len() >= DIRECT && self.queued() == 0 && !self.broken {
            // Large and nothing before it: from where it lies, without a copy of ours in between.
            match self.io.get_ref().write_vectored(&[IoSlice::new(header), IoSlice::new(payload)]) {
                Ok(count) => sent = count,
                Err(error) => self.broken |= !later(&error),
            }
        }
        self.out.extend_from_slice(header.get(sent..).unwrap_or_default());
        self.out.extend_from_slice(payload.get(sent.saturating_sub(header.len())..).unwrap_or_default());
    }

    /// Queues whole frames.
    pub fn queue_whole(&mut self, frames: &[u8]) {
        self.out.extend_from_slice(frames);
    }

    /// Bytes that wait to be sent.
    pub fn queued(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Sends what can be sent now, in one write. Returns whether anything went.
    pub fn flush(&mut self) -> bool {
        if self.queued() == 0 || self.broken {
            return false;
        }
        match (&mut self.io.get_ref()).write(&self.out[self.sent..]) {
            Ok(0) => self.broken = true,
            Ok(count) => {
                self.sent += count;
                self.flow.moved();
                if self.sent == self.out.len() {
                    self.out.clear();
                    self.sent = 0;
                } else if self.sent > HIGH {
                    self.out.drain(..self.sent);
                    self.sent = 0;
                }
                return true;
            }
            Err(error) => self.broken |= !later(&error),
        }
        false
    }

    /// Receives what is there, in one read. Returns how many bytes came.
    pub fn receive(&mut self) -> usize {
        if self.broken {
            return 0;
        }
        self.listened = true;
        let result = (&mut self.io.get_ref()).read(self.reader.space());
        match result {
            Ok(0) => self.broken = true,
            Ok(count) => {
                self.reader.received(count);
                return count;
            }
            Err(error) => self.broken |= !later(&error),
        }
        0
    }

    /// Notes that the peer was heard, at `now`.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// To be called a few times within `patience`: sends a sign of life, and breaks the link to a peer that gave none
    /// for that long. Silence counts only while we listen: a peer whose words we leave in the socket, because somebody
    /// else is slow, is not silent.
    pub fn tick(&mut self, now: Instant, patience: Duration) {
        if !std::mem::take(&mut self.listened) {
            self.heard = now;
        }
        if now.duration_since(self.heard) > patience {
            self.broken = true;
        }
        if self.queued() == 0 && now.duration_since(self.spoke) >= patience.min(Duration::from_secs(4)) / 4 {
            self.queue(&FrameHeader::new(FrameKind::Ping, 0, 0, 0, 0, 0), &[]);
            self.spoke = now;
        }
    }

    /// Is the peer one for whose sake others wait in vain? See [`Flow::stuck`].
    pub fn stuck(&mut self, now: Instant, patience: Duration) -> bool {
        let queued = self.queued();
        self.flow.stuck(queued, now, patience)
    }

    /// Is the connection over?
    pub fn broken(&self) -> bool {
        self.broken
    }

    /// Ends the connection. The other side sees it now: whoever holds this may need it for longer.
    pub fn cut(&mut self) {
        self.broken = true;
        let _ = self.io.get_ref().shutdown(Shutdown::Both);
    }

    /// Is there anything to do for this link? Else asks to be woken. `intake`: whether reading is wanted.
    pub fn poll(&self, cx: &mut Context<'_>, intake: bool) -> bool {
        self.broken
            || (intake && self.io.poll_readable(cx).is_ready())
            || (self.queued() > 0 && self.io.poll_writable(cx).is_ready())
    }
}

/// The connection of a process to its arbiter. Answers may carry descriptors.
#[derive(Debug)]
pub struct Seat {
    io: Async<UnixStream>,
    /// What has come.
    pub reader: Reader,
    out: VecDeque<(Vec<u8>, usize, Vec<OwnedFd>)>,
    broken: bool,
}

impl Seat {
    /// Takes over an accepted connection.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        Ok(Self { io: Async::new(stream)?, reader: Reader::new(), out: VecDeque::new(), broken: false })
    }

    /// The socket.
    pub fn socket(&self) -> &UnixStream {
        self.io.get_ref()
    }

    /// Queues bytes; the descriptors go with the first of them.
    pub fn queue(&mut self, bytes: Vec<u8>, descriptors: Vec<OwnedFd>) {
        self.out.push_back((bytes, 0, descriptors));
    }

    /// Sends what can be sent now.
    pub fn flush(&mut self) {
        while let Some((bytes, sent, descriptors)) = self.out.front_mut() {
            let fds: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match passing::send(self.io.get_ref().as_fd(), bytes.get(*sent..).unwrap_or_default(), &fds) {
                Ok(count) => {
                    descriptors.clear();
                    *sent += count;
                    if *sent >= bytes.len() {
                        self.out.pop_front();
                    }
                }
                Err(error) => {
                    self.broken |= !later(&error);
                    return;
                }
            }
        }
    }

    /// Receives what is there. Returns whether anything came.
    pub fn receive(&mut self) -> bool {
        let result = (&mut self.io.get_ref()).read(self.reader.space());
        match result {
            Ok(0) => self.broken = true,
            Ok(count) => {
                self.reader.received(count);
                return true;
            }
            Err(error) => self.broken |= !later(&error),
        }
        false
    }

    /// Is the connection over?
    pub fn broken(&self) -> bool {
        self.broken
    }

    /// Ends the connection.
    pub fn cut(&mut self) {
        self.broken = true;
    }

    /// Is there anything to do? Else asks to be woken.
    pub fn poll(&self, cx: &mut Context<'_>) -> bool {
        self.broken
            || self.io.poll_readable(cx).is_ready()
            || (!self.out.is_empty() && self.io.poll_writable(cx).is_ready())
    }
}

fn later(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
