//! The sequencer: gives every operation of a session its place in the one total order. A pure state machine.
//!
//! Each input is a batch of records or a request of one host; outputs are frames for hosts, to be sent in the order
//! in which they are put out. The position of an operation is the moment at which its batch is put in, so a host's
//! stream is, at any frame boundary, a prefix of the order (rule 3).
//!
//! Invariants (checked by the simulation in `tests/simulation.rs`): a host's records are taken exactly once and in
//! the order of its log (`from` must continue where the last batch ended); what is forwarded has been checked.

use crate::barrier::{Barriers, How, Passed};
use crate::limits::{HOSTS, PAGE};
use crate::op::AtomicOp;
use crate::record::{AtomicBody, BARRIER, DIED, KEPT, Kind, Malformed, Record, STILL_DIRTY, TRY, push_store};
use crate::segment::check_name;
use crate::semaphore::{Semaphores, Verdict, Waiter};
use crate::wire::control::{Reason, Refusal, Request, Response, SyncKind, frame};
use crate::wire::{FrameHeader, FrameKind, Reply, status};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

mod segments;

use segments::Segment;
pub use segments::agree;

/// To whom a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// This host.
    Host(u16),
    /// All hosts but this one.
    Others(u16),
}

/// What a frame consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// This header, and these bytes of the input's payload as they came.
    Input(FrameHeader, Range<usize>),
    /// This header and payload.
    Owned(FrameHeader, Vec<u8>),
    /// A whole frame, header included.
    Whole(Vec<u8>),
}

/// One frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// To whom.
    pub to: To,
    /// What.
    pub body: Body,
}

/// What a host did that no host of ours does. It loses its connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaved {
    /// Not a member.
    #[error("host {0} is not in the session")]
    Stranger(u16),
    /// A record is malformed.
    #[error(transparent)]
    Record(#[from] Malformed),
    /// Records are missing or repeated.
    #[error("records from log position {found}, expected {expected}")]
    Gap {
        /// Where the batch begins.
        found: u64,
        /// Where the last one ended.
        expected: u64,
    },
    /// A length that does not agree with the records.
    #[error("a batch that says {said} words and has {has}")]
    Length {
        /// By the header.
        said: u64,
        /// By the records.
        has: u64,
    },
    /// Bytes outside of every segment that the host has attached.
    #[error("an operation on {len} bytes at offset {offset:#x}, where the host has no segment")]
    Outside {
        /// First offset.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// An object that does not exist, or a payload that makes no sense for it.
    #[error("an operation of kind {0:?} that cannot be carried out")]
    Impossible(Kind),
}

#[derive(Clone, Debug, Default)]
struct Host {
    /// Log position up to which its records have their place.
    received: u64,
    /// How much of each segment it has attached, in bytes.
    attached: Vec<u64>,
    /// Segments whose bytes are still to be sent: number, next byte.
    snapshots: VecDeque<(u32, usize)>,
}

/// The state of a session.
#[derive(Clone, Debug)]
pub struct Sequencer {
    name: String,
    epoch: u32,
    ordered: u64,
    hosts: BTreeMap<u16, Host>,
    segments: Vec<Segment>,
    next_offset: u64,
    semaphores: Semaphores,
    barriers: Barriers,
    last_host: u16,
    lease: Lease,
    /// Requests of other hosts that came while the lease was on its way back: none of them may touch a segment before.
    deferred: VecDeque<(u16, u64, Request, u64)>,
}

/// Who has authority over atomics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    /// This state machine.
    Here,
    /// The only host.
    With(u16),
    /// A host that was asked to give it back.
    Returning(u16),
}

/// Requests that wait for the lease to come back.
const DEFERRED: usize = 1 << 16;

impl Sequencer {
    /// A session without anything in it. `epoch` counts the servers that it has had.
    pub fn new(name: &str, epoch: u32) -> Self {
        Self {
            name: name.to_owned(),
            epoch,
            ordered: 0,
            hosts: BTreeMap::new(),
            segments: Vec::new(),
            // Offset 0 is nobody's, so that it can mean "none".
            next_offset: PAGE,
            semaphores: Semaphores::default(),
            barriers: Barriers::default(),
            last_host: 0,
            lease: Lease::Here,
            deferred: VecDeque::new(),
        }
    }

    /// Name of the session.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hosts now in the session.
    pub fn hosts(&self) -> impl Iterator<Item = u16> {
        self.hosts.keys().copied()
    }

    /// Was any host ever in the session?
    pub fn had_hosts(&self) -> bool {
        self.last_host != 0
    }

    /// A host joins. `None` when the session is full.
    pub fn join(&mut self) -> Option<u16> {
        let free = |id: &u16| !self.hosts.contains_key(id);
        // Numbers are not reused while others are free, so that logs of different hosts are told apart.
        let id = (self.last_host + 1..=HOSTS).find(free).or_else(|| (1..=HOSTS).find(free))?;
        self.last_host = id;
        self.hosts.insert(id, Host::default());
        Some(id)
    }

    /// Leases authority over atomics to a host that is alone, or asks it back. To be called after a host has joined and
    /// been told so.
    pub fn settle_lease(&mut self, out: &mut Vec<Output>) {
        let alone = if self.hosts.len() == 1 { self.hosts.keys().next().copied() } else { None };
        let (host, given) = match (self.lease, alone) {
            (Lease::Here, Some(host)) => {
                self.lease = Lease::With(host);
                (host, 1)
            }
            (Lease::With(host), None) => {
                self.lease = Lease::Returning(host);
                (host, 0)
            }
            _ => return,
        };
        let header = FrameHeader::new(FrameKind::Lease, host, self.epoch, 0, given, 0);
        out.push(Output { to: To::Host(host), body: Body::Owned(header, Vec::new()) });
    }

    /// The lease is back: its host has yielded or is gone.
    fn lease_returned(&mut self, out: &mut Vec<Output>) {
        self.lease = Lease::Here;
        for (host, id, request, available) in std::mem::take(&mut self.deferred) {
            self.request(host, id, request, available, out);
        }
        self.settle_lease(out);
    }

    /// A host is gone (`died`: its connection broke). What its processes held is given back.
    pub fn leave(&mut self, host: u16, died: bool, out: &mut Vec<Output>) {
        self.deferred.retain(|(from, ..)| *from != host);
        if self.hosts.remove(&host).is_some() {
            self.forget_removed();
            let verdicts = self.semaphores.gone(|owner| owner.0 == host, died);
            self.verdicts(verdicts, out);
            let passed = self.barriers.gone(|owner| owner.0 == host, died);
            self.passed(passed, out);
            if matches!(self.lease, Lease::With(holder) | Lease::Returning(holder) if holder == host) {
                self.lease_returned(out);
            } else {
                self.settle_lease(out);
            }
        }
    }

    /// Puts a batch of `host` in order: its records from log position `from` to `to`.
    ///
    /// # Errors
    /// [`Misbehaved`]: the caller ends the connection and calls [`Sequencer::leave`]. What was ordered before the
    /// offending record stays ordered.
    pub fn records(
        &mut self,
        host: u16,
        from: u64,
        to: u64,
        payload: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<(), Misbehaved> {
        let expected = self.hosts.get(&host).ok_or(Misbehaved::Stranger(host))?.received;
        if from != expected {
            return Err(Misbehaved::Gap { found: from, expected });
        }
        let (said, has) = (to.wrapping_sub(from), (payload.len() / 8) as u64);
        if said != has || !payload.len().is_multiple_of(8) {
            return Err(Misbehaved::Length { said, has });
        }
        let mut run = 0..0;
        let mut acked = from;
        let result = loop {
            let Some(rest) = payload.get(run.end..).filter(|rest| !rest.is_empty()) else { break Ok(()) };
            let record = match Record::parse(rest) {
                Ok(record) => record,
                Err(malformed) => break Err(malformed.into()),
            };
            let end = run.end + record.words * 8;
            if matches!(record.kind, Kind::Store | Kind::Bulk) {
                if let Err(outside) = self.apply(host, &record) {
                    break Err(outside);
                }
                run.end = end;
                continue;
            }
            self.forward(host, from, run, out);
            acked = from + (end / 8) as u64;
            if let Some(host) = self.hosts.get_mut(&host) {
                host.received = acked;
            }
            self.ordered += 1;
            self.special(host, &record, out)?;
            run = end..end;
        };
        let done = from + (run.end / 8) as u64;
        self.forward(host, from, run, out);
        if let Some(host) = self.hosts.get_mut(&host) {
            host.received = done;
        }
        if done != acked {
            let header = FrameHeader::new(FrameKind::Ack, host, self.epoch, 0, from, done);
            out.push(Output { to: To::Host(host), body: Body::Owned(header, Vec::new()) });
        } else if acked != from {
            // The last record was special: its answer may come later or never, so say here how far we are.
            let header = FrameHeader::new(FrameKind::Ack, host, self.epoch, 0, from, acked);
            out.push(Output { to: To::Host(host), body: Body::Owned(header, Vec::new()) });
        }
        result
    }

    fn forward(&mut self, host: u16, from: u64, run: Range<usize>, out: &mut Vec<Output>) {
        if !run.is_empty() && self.hosts.len() > 1 {
            let (first, last) = (from + (run.start / 8) as u64, from + (run.end / 8) as u64);
            let header = FrameHeader::new(FrameKind::Records, host, self.epoch, run.len(), first, last);
            out.push(Output { to: To::Others(host), body: Body::Input(header, run) });
        }
    }

    #[inline]
    fn apply(&mut self, host: u16, record: &Record<'_>) -> Result<(), Misbehaved> {
        let (offset, len) = record.extent().ok_or(Misbehaved::Impossible(record.kind))?;
        let (segment, start) = self.segment_at(host, offset, len)?;
        let place = segment.get_mut(start..start + len as usize).ok_or(Misbehaved::Outside { offset, len })?;
        if record.payload.len() == place.len() {
            // A store, or lines of which all bytes count.
            place.copy_from_slice(record.payload);
            self.ordered += 1;
            return Ok(());
        }
        for ((_, mask, line), place) in record.lines().zip(place.as_chunks_mut::<64>().0) {
            if mask == u64::MAX {
                *place = *line;
                continue;
            }
            for (bit, (to, from)) in place.iter_mut().zip(line).enumerate() {
                if mask >> bit & 1 == 1 {
                    *to = *from;
                }
            }
        }
        self.ordered += 1;
        Ok(())
    }

    fn special(&mut self, host: u16, record: &Record<'_>, out: &mut Vec<Output>) -> Result<(), Misbehaved> {
        let impossible = Misbehaved::Impossible(record.kind);
        if let Some(body) = record.atomic() {
            let op = body.op().ok_or(impossible)?;
            return self.atomic(host, record.place, &body, &op, out);
        }
        let sync = record.sync().ok_or(impossible.clone())?;
        let id = record.object().ok_or(impossible.clone())?;
        let owner = (host, sync.process);
        match record.kind {
            Kind::Acquire => {
                let waiter = Waiter { owner, token: sync.token, units: sync.amount };
                let verdicts = self.semaphores.acquire(id, waiter, record.flags & TRY == 0).ok_or(impossible)?;
                self.verdicts(verdicts, out);
            }
            Kind::Release if record.flags & KEPT != 0 => {
                self.semaphores.keep(id, owner, sync.amount).ok_or(impossible)?;
            }
            Kind::Release => {
                let clean = record.flags & STILL_DIRTY == 0;
                let verdicts = self.semaphores.release(id, owner, sync.amount, clean).ok_or(impossible)?;
                self.verdicts(verdicts, out);
            }
            Kind::Cancel if record.flags & BARRIER == 0 => {
                let verdicts = self.semaphores.cancel(id, owner, sync.token, sync.amount).ok_or(impossible)?;
                self.verdicts(verdicts, out);
            }
            Kind::Cancel => {
                let passed = self.barriers.cancel(id, owner, sync.token).ok_or(impossible)?;
                self.passed(passed, out);
            }
            Kind::Arrive => {
                let passed = self.barriers.arrive(id, owner, sync.token).ok_or(impossible)?;
                self.passed(passed, out);
            }
            Kind::Fence => self.reply(host, bytemuck::Zeroable::zeroed(), sync.token, status::OK, out),
            Kind::Yield if self.lease == Lease::Returning(host) => self.lease_returned(out),
            Kind::Gone => {
                // Nobody is left to use what it has asked for.
                let asked = |request: &Request| matches!(request, Request::Sync(sync) if sync.process == id);
                let (gone, left): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.deferred)
                    .into_iter()
                    .partition(|(from, _, request, _)| *from == host && asked(request));
                self.deferred = left;
                for (host, id, ..) in gone {
                    let refusal = Refusal::new(Reason::Unavailable, "the process that asked is gone");
                    self.respond(host, id, &Response::Refused(refusal), out);
                }
                let gone = |owner| owner == (host, id);
                let died = record.flags & DIED != 0;
                let verdicts = self.semaphores.gone(gone, died);
                self.verdicts(verdicts, out);
                let passed = self.barriers.gone(gone, died);
                self.passed(passed, out);
            }
            Kind::Store | Kind::Bulk | Kind::Atomic | Kind::Yield => return Err(impossible),
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        host: u16,
        offset: u64,
        body: &AtomicBody,
        op: &AtomicOp,
        out: &mut Vec<Output>,
    ) -> Result<(), Misbehaved> {
        let width = usize::from(op.width);
        let (segment, start) = self.segment_at(host, offset, width as u64)?;
        let place = segment.get_mut(start..start + width).ok_or(Misbehaved::Outside { offset, len: width as u64 })?;
        let mut bytes = [0; 16];
        bytes[..width].copy_from_slice(place);
        let old = u128::from_le_bytes(bytes);
        let new = op.apply(old);
        place.copy_from_slice(&new.to_le_bytes()[..width]);
        if new != old && self.hosts.len() > 1 {
            let mut payload = Vec::new();
            push_store(&mut payload, offset, &new.to_le_bytes()[..width]);
            let at = self.hosts.get(&host).map_or(0, |host| host.received);
            let header = FrameHeader::new(FrameKind::Records, host, self.epoch, payload.len(), at, at);
            out.push(Output { to: To::Others(host), body: Body::Owned(header, payload) });
        }
        let halves = |value: u128| [value as u64, (value >> 64) as u64];
        let reply =
            Reply { width: width as u32, offset, old: halves(old), new: halves(new), ..bytemuck::Zeroable::zeroed() };
        self.reply(host, reply, body.token, status::OK, out);
        Ok(())
    }

    fn reply(&self, host: u16, reply: Reply, token: u64, status: u32, out: &mut Vec<Output>) {
        // How far the host's own records are ordered by now: its own atomic among them.
        let Some(to) = self.hosts.get(&host).map(|host| host.received) else { return };
        let reply = Reply { token, status, ..reply };
        let header = FrameHeader::new(FrameKind::Reply, host, self.epoch, size_of::<Reply>(), to, to);
        out.push(Output { to: To::Host(host), body: Body::Owned(header, bytemuck::bytes_of(&reply).to_vec()) });
    }

    fn verdicts(&self, verdicts: Vec<Verdict>, out: &mut Vec<Output>) {
        for verdict in verdicts {
            let (waiter, status, fence) = match verdict {
                Verdict::Granted { waiter, dirty: true, fence } => (waiter, status::OWNER_DIED, fence),
                Verdict::Granted { waiter, dirty: false, fence } => (waiter, status::OK, fence),
                Verdict::Busy(waiter) => (waiter, status::BUSY, 0),
                Verdict::Cancelled(waiter) => (waiter, status::CANCELLED, 0),
            };
            let reply = Reply { fence, ..bytemuck::Zeroable::zeroed() };
            self.reply(waiter.owner.0, reply, waiter.token, status, out);
        }
    }

    fn passed(&self, passed: Vec<Passed>, out: &mut Vec<Output>) {
        for Passed { owner, token, how } in passed {
            let status = match how {
                How::Through { leader: true } => status::LEADER,
                How::Through { leader: false } => status::OK,
                How::Broken => status::BROKEN,
                How::Cancelled => status::CANCELLED,
            };
            self.reply(owner.0, bytemuck::Zeroable::zeroed(), token, status, out);
        }
    }

    /// Answers a request of `host`. `available` is the memory in bytes that this machine could still give.
    pub fn request(&mut self, host: u16, id: u64, request: Request, available: u64, out: &mut Vec<Output>) {
        if matches!(self.lease, Lease::Returning(holder) if holder != host) {
            if self.deferred.len() < DEFERRED {
                self.deferred.push_back((host, id, request, available));
            } else {
                let refusal = Refusal::new(Reason::TooLarge, "too many requests at once");
                self.respond(host, id, &Response::Refused(refusal), out);
            }
            return;
        }
        let response = match request {
            Request::Join(_) => Err(Refusal::new(Reason::Malformed, "this host has already joined")),
            Request::Open(open) => self.open(host, open, available),
            Request::Sync(sync) => self.open_sync(host, &sync.name, sync.kind, sync.process).map(Response::Sync),
            Request::Detach { segment, keep } => {
                self.detach(host, segment, keep);
                return;
            }
            Request::Remove(name) => self.remove(&name).map(|()| Response::Removed),
            Request::List => Ok(Response::Listing(self.list())),
            Request::Down => Ok(Response::Ending),
        };
        self.respond(host, id, &response.unwrap_or_else(Response::Refused), out);
    }

    /// Puts out a response at the present position.
    pub fn respond(&self, host: u16, id: u64, response: &Response, out: &mut Vec<Output>) {
        let refused = |text: String| Response::Refused(Refusal::new(Reason::TooLarge, text));
        let whole = frame(response, id, host, self.epoch)
            .or_else(|error| frame(&refused(error.to_string()), id, host, self.epoch));
        if let Ok(whole) = whole {
            out.push(Output { to: To::Host(host), body: Body::Whole(whole) });
        }
    }

    fn open_sync(&mut self, host: u16, name: &str, kind: SyncKind, process: u32) -> Result<u32, Refusal> {
        check_name(name).map_err(|bad| Refusal::new(Reason::BadName, bad.to_string()))?;
        match kind {
            SyncKind::Semaphore(value) => self.semaphores.open(name, value, 1),
            SyncKind::RwLock(units) => self.semaphores.open(name, units, units),
            SyncKind::Barrier(parties) => self.barriers.open(name, parties, (host, process)),
        }
        .map_err(|text| Refusal::new(Reason::TooLarge, format!("{name:?}: {text}")))
    }

    /// The bytes of a segment in the total order, for checks.
    pub fn bytes(&self, segment: u32) -> &[u8] {
        self.segments.get(segment as usize).map_or(&[], Segment::bytes)
    }

    /// Semaphores and barriers, for checks.
    pub fn sync(&self) -> (&Semaphores, &Barriers) {
        (&self.semaphores, &self.barriers)
    }
}
