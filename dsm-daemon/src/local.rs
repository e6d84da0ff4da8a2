//! Asking this host's arbiter over its socket and waiting for the answer: for those who are no process of a session.

use crate::runtime::SOCKET;
use crate::{Error, Result};
use dsm_core::wire::control::{Ask, Listing, Status, Told, frame, parse};
use dsm_core::wire::{FrameKind, Hello, Reader, Role};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an arbiter may take to answer. What is asked here needs no other host but a server's for a listing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to an arbiter.
#[derive(Debug)]
pub struct Local {
    socket: UnixStream,
    path: PathBuf,
    reader: Reader,
    asked: u64,
}

impl Local {
    /// Connects to the arbiter in `dir`; `None` when none is alive there.
    ///
    /// # Errors
    /// When there is one that does not let us in, or speaks another version.
    pub fn connect(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(SOCKET);
        let cannot = |error| Error::System { what: format!("cannot talk to the arbiter at {}", path.display()), error };
        let socket = match UnixStream::connect(&path) {
            Ok(socket) => socket,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(cannot(error)),
        };
        socket.set_read_timeout(Some(PATIENCE)).map_err(cannot)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(cannot)?;
        let mut this = Self { socket, path: path.clone(), reader: Reader::new(), asked: 0 };
        match this.greet() {
            Ok(hello) => hello
                .check(Role::Arbiter)
                .map_err(|error| Error::Unavailable(format!("the arbiter at {}: {error}", path.display())))?,
            // It was about to end when we came.
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(cannot(error)),
        }
        Ok(Some(this))
    }

    fn greet(&mut self) -> std::io::Result<Hello> {
        self.socket.write_all(bytemuck::bytes_of(&Hello::new(Role::Process, [0; 32], false)))?;
        loop {
            if let Some(bytes) = self.reader.take(size_of::<Hello>()) {
                return Ok(bytemuck::pod_read_unaligned(bytes));
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> std::io::Result<()> {
        match self.socket.read(self.reader.space())? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.reader.received(count);
                Ok(())
            }
        }
    }

    fn exchange(&mut self, ask: &Ask) -> std::io::Result<Told> {
        self.asked += 1;
        let bytes = frame(ask, self.asked, 0, 0).map_err(std::io::Error::other)?;
        self.socket.write_all(&bytes)?;
        loop {
            if let Some(frame) = self.reader.next().map_err(std::io::Error::other)?
                && frame.kind == FrameKind::Control
                && frame.header.from == self.asked
            {
                return parse(frame.payload).map_err(std::io::Error::other);
            }
            self.receive()?;
        }
    }

    /// Asks. Descriptors that come with an answer are lost: joining is the library's business.
    ///
    /// # Errors
    /// [`Error::Refused`] when the arbiter refuses, [`Error::System`] when it does not answer.
    pub fn ask(&mut self, ask: &Ask) -> Result<Told> {
        match self.exchange(ask) {
            Ok(Told::Refused(refusal)) => Err(Error::Refused(refusal)),
            Ok(told) => Ok(told),
            Err(error) => {
                let what = format!("the arbiter at {} does not answer", self.path.display());
                Err(Error::System { what, error })
            }
        }
    }

    fn nonsense(&self) -> Error {
        Error::Unavailable(format!("the arbiter at {} sent what makes no sense", self.path.display()))
    }

    /// What the arbiter is doing.
    ///
    /// # Errors
    /// As [`Local::ask`].
    pub fn status(&mut self) -> Result<Status> {
        match self.ask(&Ask::Status)? {
            Told::Status(status) => Ok(status),
            _ => Err(self.nonsense()),
        }
    }

    /// What is in a session that the arbiter has joined.
    ///
    /// # Errors
    /// As [`Local::ask`].
    pub fn list(&mut self, session: &str) -> Result<Listing> {
        match self.ask(&Ask::List(session.to_owned()))? {
            Told::Listing(listing) => Ok(listing),
            _ => Err(self.nonsense()),
        }
    }

    /// Ends the arbiter. Returns when it is gone.
    ///
    /// # Errors
    /// When it does not answer, or does not go.
    pub fn down(mut self) -> Result<()> {
        match self.ask(&Ask::Down)? {
            Told::Done => {}
            _ => return Err(self.nonsense()),
        }
        // It hangs up when it ends, after it has removed what is to be removed.
        loop {
            match self.receive() {
                Ok(()) => {}
                Err(error) if gone(&error) => return Ok(()),
                Err(error) => {
                    let what = format!("the arbiter at {} does not end", self.path.display());
                    return Err(Error::System { what, error });
                }
            }
        }
    }
}

fn gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
