//! The server of one session: the sequencer with its links.

use crate::link::{Flow, HIGH, LOW, Link};
use dsm_core::sequencer::{Body, Output, Sequencer, To};
use dsm_core::sys::map;
use dsm_core::wire::control::{Reason, Refusal, Request, Response, frame, parse};
use dsm_core::wire::{FrameHeader, FrameKind};
use std::collections::VecDeque;
use std::task::Context;
use std::time::{Duration, Instant};

/// The way to a host.
#[derive(Debug)]
enum Way {
    /// Over a socket.
    Remote(Link),
    /// To the arbiter in this process, through memory.
    Local(Queue),
}

/// Frames for the arbiter in this process.
#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<(FrameHeader, Vec<u8>)>,
    /// Bytes of their payloads.
    queued: usize,
    flow: Flow,
}

#[derive(Debug)]
struct Member {
    host: u16,
    way: Way,
    /// To be removed, with the reason.
    lost: Option<String>,
}

/// A session's server.
#[derive(Debug)]
pub struct Server {
    sequencer: Sequencer,
    members: Vec<Member>,
    /// Kept for its memory.
    outputs: Vec<Output>,
    ending: bool,
    made: Instant,
}

/// How long a session without hosts waits for the first.
const FRESH: Duration = Duration::from_secs(5);

impl Server {
    /// A server for a new session.
    pub fn new(name: &str) -> Self {
        Self {
            sequencer: Sequencer::new(name, 1),
            members: Vec::new(),
            outputs: Vec::new(),
            ending: false,
            made: Instant::now(),
        }
    }

    /// Hosts in the session.
    pub fn hosts(&self) -> usize {
        self.members.len()
    }

    /// Has nobody come yet, and is it not too late?
    pub fn fresh(&self, now: Instant) -> bool {
        !self.ending && !self.sequencer.had_hosts() && now.duration_since(self.made) < FRESH
    }

    /// Was the session ended by somebody?
    pub fn ending(&self) -> bool {
        self.ending
    }

    /// Ends the session: tells all hosts.
    pub fn end(&mut self) {
        self.ending = true;
        for at in 0..self.members.len() {
            let host = self.members[at].host;
            let mut outputs = Vec::new();
            self.sequencer.respond(host, 0, &Response::Ending, &mut outputs);
            self.dispatch(outputs, &[]);
        }
        for member in &mut self.members {
            if let Way::Remote(link) = &mut member.way {
                link.flush();
            }
        }
    }

    /// A host joins over a connection that has asked for this session with request `id`.
    pub fn join_remote(&mut self, mut link: Link, id: u64) {
        let Some(host) = self.sequencer.join() else {
            let full = Response::Refused(Refusal::new(Reason::TooLarge, "the session is full"));
            if let Ok(bytes) = frame(&full, id, 0, 0) {
                link.queue_whole(&bytes);
                link.flush();
            }
            return;
        };
        self.members.push(Member { host, way: Way::Remote(link), lost: None });
        let mut outputs = Vec::new();
        self.sequencer.respond(host, id, &Response::Joined(host), &mut outputs);
        self.sequencer.settle_lease(&mut outputs);
        self.dispatch(outputs, &[]);
    }

    /// The arbiter in this process joins. Returns the host's number.
    pub fn join_local(&mut self) -> Option<u16> {
        let host = self.sequencer.join()?;
        self.members.push(Member { host, way: Way::Local(Queue::default()), lost: None });
        let mut outputs = Vec::new();
        self.sequencer.settle_lease(&mut outputs);
        self.dispatch(outputs, &[]);
        Some(host)
    }

    /// The arbiter in this process leaves.
    pub fn leave_local(&mut self, host: u16) {
        if !self.has_local(host) {
            return;
        }
        self.members.retain(|member| member.host != host);
        let mut outputs = Vec::new();
        self.sequencer.leave(host, false, &mut outputs);
        self.dispatch(outputs, &[]);
    }

    /// Records from the arbiter in this process.
    pub fn local_records(&mut self, host: u16, from: u64, to: u64, payload: &[u8]) -> Result<(), String> {
        self.ordered(host, from, to, payload)
    }

    /// A request from the arbiter in this process.
    pub fn local_request(&mut self, host: u16, id: u64, request: Request) {
        self.request(host, id, request);
    }

    /// The next frame for the arbiter in this process.
    pub fn local_frame(&mut self, host: u16) -> Option<(FrameHeader, Vec<u8>)> {
        let member = self.members.iter_mut().find(|member| member.host == host)?;
        let Way::Local(queue) = &mut member.way else { return None };
        let frame = queue.frames.pop_front()?;
        queue.queued = queue.queued.saturating_sub(frame.1.len());
        queue.flow.moved();
        Some(frame)
    }

    /// Is there one?
    pub fn has_local_frame(&self, host: u16) -> bool {
        let member = self.members.iter().find(|member| member.host == host);
        member.is_some_and(|member| matches!(&member.way, Way::Local(queue) if !queue.frames.is_empty()))
    }

    /// Is the arbiter in this process in the session, as this host?
    pub fn has_local(&self, host: u16) -> bool {
        self.members.iter().any(|member| member.host == host && matches!(member.way, Way::Local(_)))
    }

    /// Must those who send wait, because somebody does not read?
    pub fn congested(&self) -> bool {
        self.members.iter().any(|member| member.way.queued() > HIGH)
    }

    fn ordered(&mut self, host: u16, from: u64, to: u64, payload: &[u8]) -> Result<(), String> {
        let mut outputs = std::mem::take(&mut self.outputs);
        let result = self.sequencer.records(host, from, to, payload, &mut outputs);
        self.dispatch(outputs, payload);
        result.map_err(|error| error.to_string())
    }

    fn request(&mut self, host: u16, id: u64, request: Request) {
        if request == Request::Down {
            self.end();
            return;
        }
        let mut outputs = Vec::new();
        self.sequencer.request(host, id, request, map::available(), &mut outputs);
        self.dispatch(outputs, &[]);
    }

    fn dispatch(&mut self, mut outputs: Vec<Output>, payload: &[u8]) {
        for Output { to, body } in outputs.drain(..) {
            let (header, bytes) = match &body {
                Body::Input(header, range) => (Some(header), payload.get(range.clone()).unwrap_or_default()),
                Body::Owned(header, bytes) => (Some(header), bytes.as_slice()),
                Body::Whole(bytes) => (None, bytes.as_slice()),
            };
            for member in &mut self.members {
                let wanted = match to {
                    To::Host(host) => member.host == host,
                    To::Others(host) => member.host != host,
                };
                if wanted {
                    member.way.queue(header, bytes);
                }
            }
        }
        self.outputs = outputs;
    }

    /// Does what can be done now. Returns whether there was anything.
    pub fn pump(&mut self, now: Instant) -> bool {
        let mut busy = false;
        for at in 0..self.members.len() {
            if !self.congested() {
                busy |= self.take_in(at, now);
            }
            let Member { host, way, .. } = &self.members[at];
            if way.queued() < LOW && self.sequencer.has_snapshot(*host) {
                let (host, mut outputs) = (*host, Vec::new());
                self.sequencer.snapshot(host, &mut outputs);
                self.dispatch(outputs, &[]);
                busy = true;
            }
        }
        busy | self.flush()
    }

    /// Sends what can be sent, and buries who cannot be reached. Returns whether there was anything to do.
    pub fn flush(&mut self) -> bool {
        let mut busy = false;
        for member in &mut self.members {
            if let Way::Remote(link) = &mut member.way {
                busy |= link.flush();
                if link.broken() && member.lost.is_none() {
                    member.lost = Some("the connection is over".into());
                }
            }
        }
        busy | self.bury()
    }

    fn take_in(&mut self, at: usize, now: Instant) -> bool {
        let Member { host, way: Way::Remote(link), .. } = &mut self.members[at] else { return false };
        let host = *host;
        if link.receive() == 0 {
            return false;
        }
        link.heard(now);
        // The reader moves out while its frames are used: what they cause goes to the other links.
        let mut reader = std::mem::take(&mut link.reader);
        let lost = loop {
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(bad) => break Some(bad.to_string()),
            };
            let header = frame.header;
            let result = match frame.kind {
                FrameKind::Records => self.ordered(host, header.from, header.to, frame.payload),
                FrameKind::Control => match parse::<Request>(frame.payload) {
                    Ok(request) => {
                        self.request(host, header.from, request);
                        Ok(())
                    }
                    Err(bad) => Err(bad.to_string()),
                },
                FrameKind::Ping => Ok(()),
                FrameKind::Ack | FrameKind::Reply | FrameKind::Snapshot | FrameKind::Lease => {
                    Err("a frame that only servers send".into())
                }
            };
            if let Err(why) = result {
                break Some(why);
            }
        };
        let member = &mut self.members[at];
        if let Way::Remote(link) = &mut member.way {
            link.reader = reader;
        }
        if let Some(why) = lost {
            crate::role::note(&format!("session {:?}: host {host} is cut off: {why}", self.sequencer.name()));
            member.lost = Some(why);
        }
        true
    }

    fn bury(&mut self) -> bool {
        let lost: Vec<u16> = self.members.iter().filter(|m| m.lost.is_some()).map(|m| m.host).collect();
        self.members.retain(|member| member.lost.is_none());
        for host in &lost {
            let mut outputs = Vec::new();
            self.sequencer.leave(*host, true, &mut outputs);
            self.dispatch(outputs, &[]);
        }
        !lost.is_empty()
    }

    /// Signs of life, a few times within `patience`. A host for which all others have waited that long, because it took
    /// nothing of what is there for it, is lost: they go on without it.
    pub fn tick(&mut self, now: Instant, patience: Duration) {
        for member in &mut self.members {
            let stuck = match &mut member.way {
                Way::Remote(link) => {
                    link.tick(now, patience);
                    link.stuck(now, patience)
                }
                Way::Local(queue) => queue.flow.stuck(queue.queued, now, patience),
            };
            if stuck && member.lost.is_none() {
                let why = format!("it has taken nothing for {} ms, and others wait for it", patience.as_millis());
                crate::role::note(&format!(
                    "session {:?}: host {} is cut off: {why}",
                    self.sequencer.name(),
                    member.host
                ));
                member.lost = Some(why);
            }
        }
    }

    /// Is there anything to do? Else asks to be woken.
    pub fn poll(&self, cx: &mut Context<'_>) -> bool {
        let intake = !self.congested();
        // Every link must be asked, so that each of them can wake us.
        self.members.iter().fold(false, |ready, member| match &member.way {
            Way::Remote(link) => link.poll(cx, intake) || ready,
            // The arbiter says so itself, which knows whether it can take them.
            Way::Local(_) => ready,
        })
    }
}

impl Way {
    fn queued(&self) -> usize {
        match self {
            Self::Remote(link) => link.queued(),
            Self::Local(queue) => queue.queued,
        }
    }

    fn queue(&mut self, header: Option<&FrameHeader>, bytes: &[u8]) {
        match (self, header) {
            (Self::Remote(link), Some(header)) => link.queue(header, bytes),
            (Self::Remote(link), None) => link.queue_whole(bytes),
            (Self::Local(queue), Some(header)) => queue.push(*header, bytes),
            (Self::Local(queue), None) => {
                if let Some((header, payload)) = bytes.split_at_checked(size_of::<FrameHeader>()) {
                    queue.push(bytemuck::pod_read_unaligned(header), payload);
                }
            }
        }
    }
}

impl Queue {
    fn push(&mut self, header: FrameHeader, payload: &[u8]) {
        self.queued += payload.len();
        self.frames.push_back((header, payload.to_vec()));
    }
}
