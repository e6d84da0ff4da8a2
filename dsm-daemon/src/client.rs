//! Asking over a TCP connection and waiting for the answer: for those who have nothing else to do.

use crate::auth::{Key, PATIENCE, greet};
use crate::config::address;
use crate::{Error, Result};
use dsm_core::limits::FRAME;
use dsm_core::wire::control::{Find, Found, Reason, Refusal, Request, Response, frame, parse};
use dsm_core::wire::{FrameHeader, FrameKind, Role};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{Read, Write};
use std::net::TcpStream;

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    there: String,
}

impl Client {
    /// Connects to the daemon at `there`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when nobody listens, [`Error::Permission`] when we are not welcome.
    pub fn daemon(there: &str, key: Option<&Key>) -> Result<Self> {
        Self::connect(there, Role::Directory, Role::Daemon, key)
    }

    fn connect(there: &str, role: Role, expected: Role, key: Option<&Key>) -> Result<Self> {
        let address = address(there)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| {
            let text = format!(
                "nothing of dsm answers at {there}: {error}; start `dsm daemon --listen {there}`, or name another address \
                 (DSM_DAEMON)"
            );
            let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
            if refused && expected == Role::Daemon { Error::NobodyThere(text) } else { Error::Unavailable(text) }
        })?;
        greet(&mut stream, role, expected, key)?;
        Ok(Self { stream, there: there.to_owned() })
    }

    /// Sends a message and waits for the answer.
    fn ask<Q: Serialize, A: DeserializeOwned>(&mut self, question: &Q) -> Result<A> {
        let lost = |error| Error::System { what: format!("the connection to {} broke", self.there), error };
        let bytes = frame(question, 1, 0, 0).map_err(|error| Error::Usage(error.to_string()))?;
        self.stream.write_all(&bytes).map_err(lost)?;
        self.stream.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
        loop {
            let mut header = [0; size_of::<FrameHeader>()];
            self.stream.read_exact(&mut header).map_err(lost)?;
            let header: FrameHeader = bytemuck::pod_read_unaligned(&header);
            if header.len as usize > FRAME {
                return Err(Error::Unavailable(format!("{} sent what makes no sense", self.there)));
            }
            let mut payload = vec![0; header.len as usize];
            self.stream.read_exact(&mut payload).map_err(lost)?;
            if header.kind == FrameKind::Control as u8 {
                self.stream.set_read_timeout(None).map_err(lost)?;
                return parse(&payload).map_err(|error| Error::Unavailable(format!("{}: {error}", self.there)));
            }
        }
    }

    /// Asks the daemon.
    ///
    /// # Errors
    /// [`Error::Refused`] when it refuses.
    pub fn find(&mut self, find: &Find) -> Result<Found> {
        match self.ask(find)? {
            Found::Refused(refusal) => Err(Error::Refused(refusal)),
            found => Ok(found),
        }
    }

    /// Sends a sign of life and sees whether the connection still stands.
    ///
    /// # Errors
    /// [`Error::System`] when it does not.
    pub fn ping(&mut self) -> Result<()> {
        let ping = FrameHeader::new(FrameKind::Ping, 0, 0, 0, 0, 0);
        let lost = Error::system(format!("the connection to {} broke", self.there));
        self.stream.write_all(bytemuck::bytes_of(&ping)).map_err(lost)
    }
}

/// Joins the server of a session as an arbiter. Returns the connection and this host's number.
///
/// # Errors
/// Why not, in words for people.
pub fn join(daemon: &str, session: &str, existing: bool, key: Option<&Key>) -> Result<(TcpStream, u16)> {
    let find = Find::Session { name: session.to_owned(), existing };
    match Client::daemon(daemon, key)?.find(&find)? {
        Found::Server(address) if address.is_empty() => join_server(daemon, session, key),
        Found::Server(address) => join_server(&address, session, key),
        _ => Err(Error::Unavailable(format!("the daemon at {daemon} sent what makes no sense"))),
    }
}

/// As [`join`], when the server's address is known.
///
/// # Errors
/// Why not, in words for people.
pub fn join_server(server: &str, session: &str, key: Option<&Key>) -> Result<(TcpStream, u16)> {
    let mut client = Client::connect(server, Role::Arbiter, Role::Server, key)?;
    match client.ask(&Request::Join(session.to_owned()))? {
        Response::Joined(host) => Ok((client.stream, host)),
        Response::Refused(refusal) => Err(Error::Refused(refusal)),
        _ => Err(Error::Unavailable(format!("the server at {server} sent what makes no sense"))),
    }
}

/// What a process is told when its arbiter could not do something.
pub fn refusal(error: Error) -> Refusal {
    match error {
        Error::Refused(refusal) => refusal,
        Error::Permission(text) => Refusal::new(Reason::Permission, text),
        error => Refusal::new(Reason::Unavailable, error.to_string()),
    }
}
