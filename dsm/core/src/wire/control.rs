//! Control messages: everything that is rare. `bincode` with a limit; the length is checked before and the consumed
//! bytes after. In this file alone, so that the codec can be exchanged.

use super::{FrameHeader, FrameKind};
use crate::limits::CONTROL;
use crate::segment::{OpenSegment, SegmentInfo};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub reason: Reason,
    /// For people: what was asked, what was found, what to do.
    pub text: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// A name that cannot be one.
    BadName,
    /// There is nothing by that name.
    NotFound,
    /// There is already something by that name.
    Exists,
    /// What exists holds another type.
    TypeDiffers,
    /// A limit would be exceeded.
    TooLarge,
    /// The machine does not have the memory.
    NoMemory,
    /// The daemon, the server or the connection to it is not there.
    Unavailable,
    /// Not allowed.
    Permission,
    /// The request made no sense.
    Malformed,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// From a process to its arbiter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Join a session, making it where it is not yet. Must be the first request of a process.
    Join {
        /// Name of the session.
        session: String,
        /// Address of the daemon, as the process was told; `None` for the arbiter's own.
        daemon: Option<String>,
        /// Only join what exists.
        existing: bool,
    },
    /// Open a segment.
    Open(OpenSegment),
    /// Open a semaphore or barrier.
    Sync(OpenSync),
    /// Remove the segment of this name.
    Remove(String),
    /// Say goodbye: what this process held is given back without being called a death.
    Leave,
    /// What this arbiter is doing.
    Status,
    /// What is in a session that this host has joined.
    List(String),
    /// End the arbiter, with a message to all its processes.
    Down,
    /// Give this process a bell: the arbiter sends a byte whenever something has come for those who listen.
    Bell,
}

/// What an arbiter answers. Descriptors travel beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Told {
    /// Joined. With it: the log's memory file and the doorbell.
    Joined {
        /// This process's number on the host.
        process: u16,
        /// The host's number in the session.
        host: u16,
        /// Address of the daemon.
        daemon: String,
    },
    /// The segment. With it: its memory file.
    Opened(SegmentInfo),
    /// The number of a semaphore or barrier.
    Sync(u32),
    /// As asked. With it, where a bell was asked for: a socket.
    Done,
    /// Answer to [`Ask::Status`].
    Status(Status),
    /// Answer to [`Ask::List`].
    Listing(Listing),
    /// Not done.
    Refused(Refusal),
}

/// A semaphore or barrier by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSync {
    /// Name.
    pub name: String,
    /// What it is.
    pub kind: SyncKind,
    /// Which process of the host asks; set by the arbiter.
    pub process: u32,
}

/// Kinds of synchronisation objects, with the value they start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncKind {
    /// Units at first.
    Semaphore(u32),
    /// Parties.
    Barrier(u32),
    /// A semaphore of so many units of which a reader takes one, and a writer all.
    RwLock(u32),
}

/// From an arbiter to its server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Join the session of this name: proves that we reached the right server.
    Join(String),
    /// Open a segment, and attach this host.
    Open(OpenSegment),
    /// Open a semaphore or barrier.
    Sync(OpenSync),
    /// This host could not map more of the segment than it has: the other bytes need not come.
    Detach {
        /// Number of the segment.
        segment: u32,
        /// What it has, in bytes.
        keep: u64,
    },
    /// Take the name of a segment away.
    Remove(String),
    /// What there is.
    List,
    /// End the session for everybody.
    Down,
}

/// What a server answers, at its place in the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// The number of this host.
    Joined(u16),
    /// The segment. `snapshot` says that its bytes follow, up to [`Response::SnapshotDone`].
    Opened {
        /// The segment.
        info: SegmentInfo,
        /// Bytes follow.
        snapshot: bool,
    },
    /// The bytes of this segment have all been sent.
    SnapshotDone(u32),
    /// The number of a semaphore or barrier.
    Sync(u32),
    /// Answer to [`Request::List`].
    Listing(Listing),
    /// The name is free.
    Removed,
    /// The session ends.
    Ending,
    /// Not done.
    Refused(Refusal),
}

/// From anybody to the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Find {
    /// Where the server of a session is; one is started where there is none, unless `existing`.
    Session {
        /// Name.
        name: String,
        /// Do not start one.
        existing: bool,
    },
    /// A server outside the daemon serves this session, for as long as this connection lasts.
    Register {
        /// Name.
        name: String,
        /// Where arbiters reach it.
        address: String,
    },
    /// All sessions.
    List,
    /// End one session, or all and the daemon with them.
    Down(Option<String>),
}

/// What a daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Found {
    /// Address of the server; empty for the daemon's own.
    Server(String),
    /// All sessions, by name, with the address of their server.
    Sessions(Vec<(String, String)>),
    /// As asked.
    Done,
    /// Not done.
    Refused(Refusal),
}

/// What is in a session. Names that begin with `dsm:` are the library's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Listing {
    /// Session name.
    pub session: String,
    /// Operations ordered so far.
    pub ordered: u64,
    /// Hosts joined, by number.
    pub hosts: Vec<u16>,
    /// Every value and array.
    pub segments: Vec<SegmentListing>,
    /// Every semaphore.
    pub semaphores: Vec<SemaphoreListing>,
    /// Every barrier.
    pub barriers: Vec<BarrierListing>,
}

/// A value or array in a [`Listing`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SegmentListing {
    /// Number in the session; never given twice.
    pub id: u32,
    /// Name.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Type, as in source; of an array, `[T]`.
    pub ty: String,
    /// Hosts that have it.
    pub hosts: u32,
    /// Processes of the asking host that have it.
    pub processes: u32,
}

/// A semaphore in a [`Listing`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SemaphoreListing {
    /// Name.
    pub name: String,
    /// Units that are free.
    pub units: u32,
    /// Threads that wait.
    pub waiting: u32,
}

/// A barrier in a [`Listing`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BarrierListing {
    /// Name.
    pub name: String,
    /// Parties that it is for.
    pub parties: u32,
    /// Threads that have arrived and wait.
    pub arrived: u32,
}

/// What an arbiter is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its process number.
    pub pid: u32,
    /// Address of its daemon.
    pub daemon: String,
    /// Its sessions.
    pub sessions: Vec<SessionStatus>,
}

/// One session on one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionStatus {
    /// Name.
    pub name: String,
    /// This host's number in it.
    pub host: u16,
    /// Process numbers of its processes here.
    pub processes: Vec<u32>,
    /// Stores captured at the direct door.
    pub direct: u64,
    /// Stores captured at the trap door.
    pub trapped: u64,
    /// Bulk records published.
    pub bulk: u64,
    /// Records of other hosts applied.
    pub applied: u64,
    /// Frames received from the server.
    pub frames: u64,
    /// Bytes received from the server.
    pub bytes_in: u64,
    /// Bytes sent to the server.
    pub bytes_out: u64,
}

/// Bytes that are no such message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a control message that makes no sense: {0}")]
pub struct BadMessage(String);

/// A whole frame with this message. `id` comes back with the answer.
///
/// # Errors
/// [`BadMessage`] when it would be larger than [`CONTROL`].
pub fn frame<T: Serialize>(message: &T, id: u64, origin: u16, epoch: u32) -> Result<Vec<u8>, BadMessage> {
    let config = bincode::config::standard().with_fixed_int_encoding().with_limit::<CONTROL>();
    let body = bincode::serde::encode_to_vec(message, config).map_err(|error| BadMessage(error.to_string()))?;
    if body.len() > CONTROL - 8 {
        return Err(BadMessage(format!("{} bytes, at most {} are allowed", body.len(), CONTROL - 8)));
    }
    let len = 8 + body.len().next_multiple_of(8);
    let mut out = Vec::with_capacity(size_of::<FrameHeader>() + len);
    out.extend_from_slice(bytemuck::bytes_of(&FrameHeader::new(FrameKind::Control, origin, epoch, len, id, 0)));
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    out.extend_from_slice(&body);
    out.resize(size_of::<FrameHeader>() + len, 0);
    Ok(out)
}

/// The message in the payload of a control frame.
///
/// # Errors
/// [`BadMessage`] when the bytes are none, or more than one.
pub fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, BadMessage> {
    let bad = |text: &str| BadMessage(text.to_owned());
    let (len, rest) = payload.split_first_chunk::<8>().ok_or_else(|| bad("it is empty"))?;
    let len = u64::from_le_bytes(*len);
    let body = usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or_else(|| bad("it is cut off"))?;
    if body.len() > CONTROL || rest.len() - body.len() >= 8 {
        return Err(bad("its length is not what its frame says"));
    }
    let config = bincode::config::standard().with_fixed_int_encoding().with_limit::<CONTROL>();
    let (message, used) =
        bincode::serde::decode_from_slice(body, config).map_err(|error| BadMessage(error.to_string()))?;
    if used != body.len() {
        return Err(bad("there are bytes left over"));
    }
    Ok(message)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_and_nonsense_does_not() {
        let ask = Ask::Join { session: "game".into(), daemon: None, existing: false };
        let bytes = frame(&ask, 7, 0, 0).unwrap();
        let payload = &bytes[size_of::<FrameHeader>()..];
        assert_eq!(parse::<Ask>(payload).unwrap(), ask);
        for cut in 0..payload.len() {
            assert!(parse::<Ask>(&payload[..cut]).is_err() || cut + 8 > payload.len(), "cut at {cut}");
        }
        let mut longer = payload.to_vec();
        longer.extend_from_slice(&[0; 8]);
        assert!(parse::<Ask>(&longer).is_err());
        let mut state = 1u64;
        for round in 0..if cfg!(miri) { 20 } else { 20_000 } {
            let mut noisy = payload.to_vec();
            for _ in 0..1 + round % 4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % noisy.len();
                noisy[at] = (state >> 40) as u8;
            }
            let _ = parse::<Ask>(&noisy);
            let _ = parse::<Response>(&noisy);
        }
    }
}
