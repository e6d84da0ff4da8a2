//! The control block: the words of a session that all processes of one host and their arbiter share.

use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, AtomicU64};
use crate::sys::robust::{self, Mark};
use crate::watch::Watch;
use crate::wire::control::SessionStatus;
use std::fmt;

/// First word of a control block, and of every connection.
pub const MAGIC: u64 = u64::from_le_bytes(*b"dsm-log1");

/// Why a session has ended on this host; 0 while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u32)]
pub enum Ended {
    /// The connection to the server broke.
    ServerGone = 1,
    /// The arbiter was told to stop.
    ArbiterStopped = 2,
    /// The log held bytes that make no sense.
    LogCorrupt = 3,
    /// The server sent what makes no sense, or said that we did.
    Refused = 4,
    /// Somebody ended the session (`dsm down`).
    ShutDown = 5,
}

impl Ended {
    /// The reason that a word of shared memory names; an unknown one counts as corruption.
    pub fn from_u32(value: u32) -> Option<Self> {
        use Ended::*;
        match value {
            0 => None,
            _ => Some(
                [ServerGone, ArbiterStopped, Refused, ShutDown]
                    .into_iter()
                    .find(|why| *why as u32 == value)
                    .unwrap_or(LogCorrupt),
            ),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerGone => "the connection to its server broke",
            Self::ArbiterStopped => "the arbiter was told to stop",
            Self::LogCorrupt => "a process wrote nonsense into the host's log",
            Self::Refused => "server and arbiter do not understand each other",
            Self::ShutDown => "somebody ended it",
        })
    }
}

/// The shared words. Grouped by who writes them, a group a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Control {
    /// Set once, before anybody else sees the block.
    pub fixed: Fixed,
    /// Written by whoever holds the replica lock.
    pub producer: Producer,
    /// Written by the arbiter.
    pub arbiter: Arbiter,
    /// Written on the rare paths.
    pub rare: Rare,
    /// Who waits for a word to change.
    pub watch: Watch,
}

impl Control {
    /// What has been done on this host, for those who watch.
    pub fn status(&self, name: String, host: u16, processes: Vec<u32>) -> SessionStatus {
        let Self { producer, arbiter, .. } = self;
        SessionStatus {
            name,
            host,
            processes,
            direct: producer.direct.load(Relaxed),
            trapped: producer.trapped.load(Relaxed),
            bulk: producer.bulk.load(Relaxed),
            applied: arbiter.applied.load(Relaxed),
            frames: arbiter.frames.load(Relaxed),
            bytes_in: arbiter.bytes_in.load(Relaxed),
            bytes_out: arbiter.bytes_out.load(Relaxed),
        }
    }
}

/// What never changes after the arbiter made the block.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Fixed {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`FINGERPRINT`] of the layouts that the arbiter was built with.
    pub layout: AtomicU64,
    /// This host's number in the session.
    pub host: AtomicU32,
    /// 1 when all parties use membarrier, 0 when all use full fences.
    pub asymmetric: AtomicU32,
}

/// The lock and what it protects. On one line: who comes for the lock needs the rest too.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Producer {
    /// The replica lock: 0 free, else who holds it, or to whom it is biased. See [`crate::lock`].
    pub lock: AtomicU32,
    /// How many sleep, or are about to, on `lock`.
    pub lock_waiters: AtomicU32,
    /// Log position (words since the start) up to which records are whole.
    pub tail: AtomicU64,
    /// `tail + 1` while the record at `tail` is whole, but perhaps neither indexed, stored nor published; with the highest
    /// bit set, the two records from there on.
    pub intent: AtomicU64,
    /// A recent value of `acked`, so that a store need not touch the arbiter's line.
    pub acked_seen: AtomicU64,
    /// Stores captured at the direct door.
    pub direct: AtomicU64,
    /// Stores captured at the trap door.
    pub trapped: AtomicU64,
    /// Bulk records published from holes.
    pub bulk: AtomicU64,
    /// 1 while authority over atomics is leased to this host.
    pub leased: AtomicU32,
    /// The thread that had the lock last, as the kernel numbers it; 0 for one that it will not be biased to.
    pub last: AtomicU32,
}

/// The arbiter's side of the ring.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Arbiter {
    /// Log position up to which records have their place in the order: before it the ring is free.
    pub acked: AtomicU64,
    /// Frames received, for those who watch.
    pub frames: AtomicU64,
    /// Bytes received from the server.
    pub bytes_in: AtomicU64,
    /// Bytes sent to the server.
    pub bytes_out: AtomicU64,
    /// Records applied that other hosts wrote.
    pub applied: AtomicU64,
}

/// Flags that are read at every store and written seldom.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Rare {
    /// Is the arbiter there, and awake? Number of its thread, [`ASLEEP`], [`GONE`]. On the way of a store it is looked
    /// at once: a value beyond [`AWAKE`] means that something is to be done.
    pub arbiter: Mark,
    /// [`Ended`], or 0.
    pub ended: AtomicU32,
    /// How many wait for room in the ring.
    pub room_waiters: AtomicU32,
    /// Counts up when room was made; what those sleep on.
    pub room: AtomicU32,
    /// Log position after the newest atomic that the server was asked for. Written by who holds the replica lock.
    pub atomics: AtomicU64,
}

/// In [`Rare::arbiter`]: the arbiter sleeps and wants its doorbell rung.
pub const ASLEEP: u32 = robust::FREE;
/// In [`Rare::arbiter`]: the session has ended on this host, or the arbiter has, in whichever way (the kernel says so).
/// Never cleared.
pub const GONE: u32 = robust::DIED;
/// The largest value of [`Rare::arbiter`] with neither.
pub const AWAKE: u32 = GONE - 1;

/// Changes whenever a layout in shared memory or on the wire does.
pub const FINGERPRINT: u64 = {
    let parts = [
        size_of::<Control>() as u64,
        size_of::<crate::slot::Slot>() as u64,
        (size_of::<crate::bias::Bias>() * crate::bias::BIASES) as u64,
        crate::limits::RING_WORDS as u64,
        crate::limits::LINE_INDEX as u64,
        crate::limits::PAGE_INDEX as u64,
        crate::limits::SLOTS as u64,
        size_of::<crate::wire::FrameHeader>() as u64,
        size_of::<crate::wire::Reply>() as u64,
        crate::wire::VERSION as u64,
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut i = 0;
    while i < parts.len() {
        hash = (hash ^ parts[i]).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
};

#[cfg(not(loom))]
mod layout {
    use super::*;
    use std::mem::offset_of;
    const _: () = assert!(size_of::<Control>() == 576);
    const _: () = assert!(offset_of!(Control, producer) == 64 && size_of::<Producer>() == 64);
    const _: () = assert!(offset_of!(Control, arbiter) == 128 && size_of::<Arbiter>() == 64);
    const _: () = assert!(offset_of!(Control, rare) == 192 && size_of::<Rare>() == 64);
    const _: () = assert!(offset_of!(Control, watch) == 256 && size_of::<Watch>() == 320);
    const _: () = assert!(offset_of!(Producer, tail) == 8 && offset_of!(Producer, intent) == 16);
}

impl Control {
    /// A block as the arbiter makes it. All else starts at zero.
    pub fn new(host: u16, asymmetric: bool) -> Self {
        let (word, long) = (AtomicU32::new, AtomicU64::new);
        Self {
            fixed: Fixed {
                magic: long(MAGIC),
                layout: long(FINGERPRINT),
                host: word(u32::from(host)),
                asymmetric: word(u32::from(asymmetric)),
            },
            producer: Producer {
                lock: word(0),
                lock_waiters: word(0),
                tail: long(0),
                intent: long(0),
                acked_seen: long(0),
                direct: long(0),
                trapped: long(0),
                bulk: long(0),
                leased: word(0),
                last: word(0),
            },
            arbiter: Arbiter {
                acked: long(0),
                frames: long(0),
                bytes_in: long(0),
                bytes_out: long(0),
                applied: long(0),
            },
            rare: Rare {
                arbiter: Mark::new(0),
                ended: word(0),
                room_waiters: word(0),
                room: word(0),
                atomics: long(0),
            },
            watch: Watch::new(),
        }
    }
}
