//! What the server sends: applied frame by frame, each when the replica lock can be had.

use super::{FRAMES, HostSession, Uplink};
use crate::directory::Servers;
use dsm_core::control::Ended;
use dsm_core::lock::ARBITER;
use dsm_core::replica::Progress;
use dsm_core::sync::Ordering::Relaxed;
use dsm_core::sync::spin;
use dsm_core::sys::futex;
use dsm_core::wire::control::{Response, Told, parse};
use dsm_core::wire::{Frame, FrameHeader, FrameKind};
use std::time::Instant;

impl HostSession {
    /// Applies what the server has sent.
    pub(super) fn take_in(&mut self, now: Instant, servers: &mut Servers) -> bool {
        let mut busy = false;
        if let Some((header, payload)) = self.stash.take() {
            if !self.frame(header, &payload, servers) {
                return false;
            }
            busy = true;
        }
        if matches!(self.uplink, Uplink::Local) {
            for _ in 0..FRAMES {
                let frame = servers.get_mut(&self.name).and_then(|server| server.local_frame(self.host));
                let Some((header, payload)) = frame else { break };
                busy = true;
                self.count_in(size_of::<FrameHeader>() + payload.len());
                if !self.frame(header, &payload, servers) {
                    break;
                }
            }
            return busy;
        }
        let Uplink::Remote(link) = &mut self.uplink else { return busy };
        let count = link.receive();
        if count > 0 {
            link.heard(now);
            busy = true;
        }
        self.count_in(count);
        let Uplink::Remote(link) = &mut self.uplink else { return busy };
        let mut reader = std::mem::take(&mut link.reader);
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let header = frame.header;
                    busy = true;
                    if !self.frame(header, frame.payload, servers) {
                        break;
                    }
                }
                Err(bad) => {
                    self.end(Ended::Refused, &format!("its server sent {bad}"));
                    break;
                }
            }
        }
        if let Uplink::Remote(link) = &mut self.uplink {
            link.reader = reader;
        }
        busy
    }

    fn count_in(&self, count: usize) {
        let bytes = &self.area.control().arbiter.bytes_in;
        bytes.store(bytes.load(Relaxed).wrapping_add(count as u64), Relaxed);
    }

    /// Handles one frame. False when it could not be done now; it is kept then.
    fn frame(&mut self, header: FrameHeader, payload: &[u8], servers: &mut Servers) -> bool {
        let kind = match header.kind {
            kind if kind == FrameKind::Control as u8 => {
                self.control(header.from, payload, servers);
                return self.ended.is_none();
            }
            kind if kind == FrameKind::Records as u8 => FrameKind::Records,
            kind if kind == FrameKind::Ack as u8 => FrameKind::Ack,
            kind if kind == FrameKind::Reply as u8 => FrameKind::Reply,
            kind if kind == FrameKind::Snapshot as u8 => FrameKind::Snapshot,
            kind if kind == FrameKind::Lease as u8 => FrameKind::Lease,
            _ => FrameKind::Ping,
        };
        let (log, memory) = (self.area.log(), self.memory());
        let frames = &log.control().arbiter.frames;
        frames.store(frames.load(Relaxed).wrapping_add(1), Relaxed);
        let lock = log.lock();
        let patient = || {
            for round in 0..64 {
                if lock.try_acquire(ARBITER) {
                    return true;
                }
                if round < 16 { spin() } else { futex::give_way() }
            }
            false
        };
        match self.replica.apply(&log, &memory, &Frame { kind, header, payload }, patient) {
            Ok(Progress::Done) => {
                self.done(kind, payload);
                true
            }
            Ok(Progress::Busy) => {
                self.free_from_strangers();
                self.stash = Some((header, payload.to_vec()));
                false
            }
            Err(bad) => {
                self.end(Ended::Refused, &format!("its server sent {bad}"));
                false
            }
        }
    }

    fn control(&mut self, id: u64, payload: &[u8], servers: &mut Servers) {
        let response = match parse::<Response>(payload) {
            Ok(response) => response,
            Err(bad) => return self.end(Ended::Refused, &format!("its server sent {bad}")),
        };
        match response {
            Response::Opened { info, snapshot } => self.opened(id, info, snapshot, servers),
            Response::SnapshotDone(segment) => {
                if let Some(held) = self.segments.get_mut(&segment) {
                    held.ready = true;
                }
                self.serve_ready();
            }
            Response::Sync(object) => self.respond(id, |_| (Told::Sync(object), Vec::new())),
            Response::Listing(mut listing) => {
                for segment in &mut listing.segments {
                    segment.processes = self.segments.get(&segment.id).map_or(0, |held| held.users.len() as u32);
                }
                self.respond(id, |_| (Told::Listing(listing), Vec::new()));
            }
            Response::Removed => self.respond(id, |_| (Told::Done, Vec::new())),
            Response::Refused(refusal) => self.respond(id, |_| (Told::Refused(refusal), Vec::new())),
            Response::Ending => self.end(Ended::ShutDown, "somebody ended it"),
            Response::Joined(_) => self.end(Ended::Refused, "its server sent a welcome twice"),
        }
    }
}
