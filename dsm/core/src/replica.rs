//! The arbiter's side of one session: drains the host log, and applies what the server sends to the host's replica.
//! A pure state machine around the log and the memory, which it is given.
//!
//! Invariant (rule 3, checked in every state by the simulation): replica = the prefix of the total order received so
//! far, overlaid with the host's own pending stores in their order.

use crate::limits::BATCH;
use crate::log::HostLog;
use crate::memory::Memory;
use crate::record::{Kind, MASKED, Malformed, Record, by_line};
use crate::segment::Extents;
use crate::sync::Ordering::Relaxed;
use crate::wire::{Frame, FrameKind, Reply};

/// What the server sent that no server of ours sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStream {
    /// A record is malformed.
    #[error(transparent)]
    Record(#[from] Malformed),
    /// An acknowledgement of what was not sent, or was acknowledged before.
    #[error("acknowledgement up to {to}, with {acked} acknowledged and {sent} sent")]
    Ack {
        /// The acknowledgement.
        to: u64,
        /// What was acknowledged before.
        acked: u64,
        /// What was sent.
        sent: u64,
    },
    /// A payload that does not fit its kind, or a frame of another epoch.
    #[error("a frame that makes no sense here")]
    Frame,
}

/// How far [`Replica::apply`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The frame is done.
    Done,
    /// Somebody holds the replica lock: call again with the same frame.
    Busy,
}

/// State of one session on one host.
#[derive(Clone, Debug)]
pub struct Replica {
    sent: u64,
    acked: u64,
    extents: Extents,
    /// Bytes of the present frame that are applied.
    at: usize,
    lease: Lease,
}

/// What is to be done about the lease of atomics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    /// Nothing.
    Settled,
    /// It was given to us, and is not in use yet.
    Begin,
    /// It was asked back.
    Return,
}

/// Records applied under one hold of the lock, in bytes of payload.
const PIECE: usize = 4096;

impl Replica {
    /// A host that has sent and received nothing.
    pub fn new() -> Self {
        Self { sent: 0, acked: 0, extents: Extents::default(), at: 0, lease: Lease::Settled }
    }

    /// A segment is mapped now.
    pub fn attach(&mut self, offset: u64, len: u64) {
        self.extents.insert(offset, len);
    }

    /// Do these bytes lie in mapped segments?
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        self.extents.contains(offset, len)
    }

    /// Log position up to which records were drained.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Log position up to which records are ordered.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Moves new records of the log to `out`. Returns their log positions, if there were any.
    ///
    /// # Errors
    /// [`Malformed`] when the log makes no sense, or a store lies outside of the mapped segments.
    pub fn drain<const R: usize, const I: usize, const P: usize, const S: usize>(
        &mut self,
        log: &HostLog<'_, R, I, P, S>,
        out: &mut Vec<u8>,
    ) -> Result<Option<(u64, u64)>, Malformed> {
        if !log.has_news(self.sent) {
            return Ok(None);
        }
        let from = self.sent;
        let to = log.drain(from, BATCH / 8, out)?;
        self.sent = to;
        Ok((to != from).then_some((from, to)))
    }

    /// Applies a frame. `lock` tries to take the replica lock and says whether it did; it is released here.
    /// Control frames are not for us.
    ///
    /// # Errors
    /// [`BadStream`]: nothing further from this server can be trusted.
    pub fn apply<const R: usize, const I: usize, const P: usize, const S: usize>(
        &mut self,
        log: &HostLog<'_, R, I, P, S>,
        memory: &impl Memory,
        frame: &Frame<'_>,
        mut lock: impl FnMut() -> bool,
    ) -> Result<Progress, BadStream> {
        match frame.kind {
            FrameKind::Records => loop {
                if self.at >= frame.payload.len() {
                    break;
                }
                if !lock() {
                    return Ok(Progress::Busy);
                }
                let result = self.piece(log, memory, frame.payload);
                log.lock().release();
                result?;
            },
            FrameKind::Ack => self.acknowledge(log, frame.header.to)?,
            FrameKind::Reply => {
                if !lock() {
                    return Ok(Progress::Busy);
                }
                let result = self.reply(log, memory, frame);
                log.lock().release();
                let reply = result?;
                let slot = log.slots().get((reply.token & 0xffff) as usize);
                slot.map(|slot| slot.deliver(reply.token, &reply, log.barrier()));
            }
            FrameKind::Snapshot => {
                let (offset, len) = (frame.header.from, frame.payload.len() as u64);
                // What could not be mapped here is still on its way until the server hears of it.
                let wanted = self.extents.contains(offset, len);
                while wanted && self.at < frame.payload.len() {
                    if !lock() {
                        return Ok(Progress::Busy);
                    }
                    let rest = frame.payload.get(self.at..).unwrap_or_default();
                    let piece = rest.get(..PIECE).unwrap_or(rest);
                    for (offset, line) in by_line(offset + self.at as u64, piece) {
                        overlay(log, memory, offset, line, u64::MAX);
                    }
                    self.at += piece.len();
                    log.lock().release();
                }
            }
            FrameKind::Lease => {
                self.lease = if frame.header.from == 0 { Lease::Return } else { Lease::Begin };
            }
            FrameKind::Control | FrameKind::Ping => {}
        }
        self.at = 0;
        Ok(Progress::Done)
    }

    /// Is there something for [`Replica::settle`] to do?
    pub fn unsettled(&self) -> bool {
        self.lease != Lease::Settled
    }

    /// Begins to use the lease of atomics, or gives it back, as the server said last; to be called again when that was
    /// not possible. Returns whether it was.
    pub fn settle<const R: usize, const I: usize, const P: usize, const S: usize>(
        &mut self,
        log: &HostLog<'_, R, I, P, S>,
    ) -> bool {
        let done = match self.lease {
            Lease::Settled => return false,
            Lease::Begin => log.try_lease(),
            Lease::Return => log.try_yield(),
        };
        if done {
            self.lease = Lease::Settled;
        }
        done
    }

    fn acknowledge<const R: usize, const I: usize, const P: usize, const S: usize>(
        &mut self,
        log: &HostLog<'_, R, I, P, S>,
        to: u64,
    ) -> Result<(), BadStream> {
        if to < self.acked || to > self.sent {
            return Err(BadStream::Ack { to, acked: self.acked, sent: self.sent });
        }
        if to != self.acked {
            self.acked = to;
            log.acknowledge(to);
        }
        Ok(())
    }

    /// The result of an own operation: visible here before its issuer returns.
    fn reply<const R: usize, const I: usize, const P: usize, const S: usize>(
        &mut self,
        log: &HostLog<'_, R, I, P, S>,
        memory: &impl Memory,
        frame: &Frame<'_>,
    ) -> Result<Reply, BadStream> {
        let reply: Reply = bytemuck::try_pod_read_unaligned(frame.payload).map_err(|_| BadStream::Frame)?;
        self.acknowledge(log, frame.header.to)?;
        let new = crate::record::whole(reply.new).to_le_bytes();
        let bytes = new.get(..reply.width as usize).ok_or(BadStream::Frame)?;
        if !bytes.is_empty() {
            if !self.extents.contains(reply.offset, u64::from(reply.width)) {
                return Err(BadStream::Frame);
            }
            for (offset, piece) in by_line(reply.offset, bytes) {
                overlay(log, memory, offset, piece, u64::MAX);
            }
        }
        Ok(reply)
    }

    fn piece<const R: usize, const I: usize, const P: usize, const S: usize>(
        &mut self,
        log: &HostLog<'_, R, I, P, S>,
        memory: &impl Memory,
        payload: &[u8],
    ) -> Result<(), BadStream> {
        let end = self.at + PIECE;
        let mut applied = 0;
        while self.at < end && self.at < payload.len() {
            let record = Record::parse(payload.get(self.at..).unwrap_or_default())?;
            let (offset, len) = record.extent().ok_or(BadStream::Frame)?;
            // Segments that this host has not attached are not its business.
            if self.extents.contains(offset, len) {
                match record.kind {
                    // Nothing pending, nothing masked: all at once.
                    Kind::Bulk if record.flags & MASKED == 0 && log.nothing_pending() => {
                        memory.write(offset, record.payload);
                    }
                    Kind::Store => overlay(log, memory, offset, record.payload, u64::MAX),
                    Kind::Bulk => record.lines().for_each(|(at, mask, line)| overlay(log, memory, at, line, mask)),
                    _ => return Err(BadStream::Frame),
                }
            }
            self.at += record.words * 8;
            applied += 1;
        }
        let counter = &log.control().arbiter.applied;
        counter.store(counter.load(Relaxed).wrapping_add(applied), Relaxed);
        Ok(())
    }
}

impl Default for Replica {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes those bytes, at most one line of them, that `mask` selects and no own pending store covers.
#[inline]
fn overlay<const R: usize, const I: usize, const P: usize, const S: usize>(
    log: &HostLog<'_, R, I, P, S>,
    memory: &impl Memory,
    offset: u64,
    bytes: &[u8],
    mask: u64,
) {
    let within = offset % crate::limits::LINE;
    let ones = if bytes.len() >= 64 { u64::MAX } else { (1 << bytes.len()) - 1 };
    let wanted = mask & ones;
    let covered = log.covered(offset, wanted << within) >> within;
    if covered == 0 && wanted == ones {
        memory.write(offset, bytes);
    } else {
        memory.write_masked(offset, bytes, wanted & !covered);
    }
}
