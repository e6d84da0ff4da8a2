//! The connection to the arbiter: one question at a time, with a limit on how long an answer may take.

use crate::{Error, Result};
use dsm_core::sys::passing;
use dsm_core::wire::control::{Ask, Told, frame, parse};
use dsm_core::wire::{FrameKind, Hello, Reader, Role};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an arbiter may take to answer. A large segment's bytes may have to come first.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connected socket, greeted.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    reader: Reader,
    asked: u64,
}

impl Connection {
    /// Connects to the arbiter whose socket is at `path`.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let mut socket = uninterrupted(|| UnixStream::connect(path))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.write_all(bytemuck::bytes_of(&Hello::new(Role::Process, [0; 32], false)))?;
        let mut this = Self { socket, reader: Reader::new(), asked: 0 };
        let mut none = Vec::new();
        let hello: Hello = loop {
            if let Some(bytes) = this.reader.take(size_of::<Hello>()) {
                break bytemuck::pod_read_unaligned(bytes);
            }
            this.receive(&mut none)?;
        };
        hello.check(Role::Arbiter).map_err(std::io::Error::other)?;
        Ok(this)
    }

    /// A connection to nobody, who never hangs up.
    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        let (socket, other) = UnixStream::pair().expect("two descriptors");
        std::mem::forget(other);
        Self { socket, reader: Reader::new(), asked: 0 }
    }

    fn receive(&mut self, descriptors: &mut Vec<OwnedFd>) -> std::io::Result<()> {
        // A socket with a time limit is not read on after a signal, whatever its handler's flags say.
        let count = uninterrupted(|| passing::receive(self.socket.as_fd(), self.reader.space(), descriptors))?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.reader.received(count);
        Ok(())
    }

    /// Asks, and waits for the answer and what descriptors come with it.
    pub(crate) fn ask(&mut self, ask: &Ask) -> Result<(Told, Vec<OwnedFd>)> {
        let lost = Error::system("the connection to the arbiter broke");
        self.exchange(ask).map_err(lost).and_then(|(told, descriptors)| match told {
            Told::Refused(refusal) => Err(refusal.into()),
            told => Ok((told, descriptors)),
        })
    }

    /// As [`Connection::ask`], with refusals among the answers.
    pub(crate) fn exchange(&mut self, ask: &Ask) -> std::io::Result<(Told, Vec<OwnedFd>)> {
        self.asked += 1;
        let bytes = frame(ask, self.asked, 0, 0).map_err(std::io::Error::other)?;
        self.socket.write_all(&bytes)?;
        let mut descriptors = Vec::new();
        loop {
            if let Some(frame) = self.reader.next().map_err(std::io::Error::other)?
                && frame.kind == FrameKind::Control
                && frame.header.from == self.asked
            {
                return Ok((parse(frame.payload).map_err(std::io::Error::other)?, descriptors));
            }
            self.receive(&mut descriptors)?;
        }
    }

    /// The socket, to see whether it still stands.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Tries again whenever a signal handler came in between.
fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
