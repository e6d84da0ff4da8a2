//! The connection to the arbiter: one question at a time, with a limit on how long an answer may take.

use crate::{Error, Result};
use dsm_core::sys::passing;
use dsm_core::wire::control::{Ask, Told, frame, parse};
use dsm_core::wire::{FrameKind, Hello, Reader, Role};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an arbiter may take to answer. A large segment's bytes may have to come first.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to greet.
const GREETING: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };

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
        // An arbiter that lives greets at once.
        socket.set_read_timeout(Some(GREETING))?;
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
        this.socket.set_read_timeout(Some(PATIENCE))?;
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
        let count = uninterrupted(|| passing::receive(self.socket.as_fd(), self.reader.space(), descriptors));
        let count = count.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                let patience = self.socket.read_timeout().ok().flatten().unwrap_or(PATIENCE);
                std::io::Error::new(ErrorKind::TimedOut, format!("no answer for {patience:?}: is it stopped?"))
            }
            _ => error,
        })?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
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
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "opens sockets")]
    fn an_arbiter_that_is_stopped_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("arbiter.sock");
        // Connections are accepted by the kernel, as those of a stopped process.
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = Connection::open(&path).unwrap_err();
        assert!(error.kind() == ErrorKind::TimedOut && error.to_string().contains("stopped"), "{error}");
    }
}
