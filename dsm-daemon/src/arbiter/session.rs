//! One session on one host: the log, the replica, the way to the server.

mod deaths;
mod receiving;
mod segments;
mod waking;

use crate::arbiter::Descriptors;
use crate::directory::Servers;
use crate::link::{HIGH, Link};
use crate::server::Server;
use crate::{Error, Result};
use async_io::Async;
use dsm_core::control::{ASLEEP, Control, Ended, GONE};
use dsm_core::limits::{BATCH, PROCESSES, SPACE};
use dsm_core::log::{SharedArea, SharedLog};
use dsm_core::memory::Mapped;
use dsm_core::replica::Replica;
use dsm_core::sync::Barrier;
use dsm_core::sync::Ordering::{Relaxed, Release};
use dsm_core::sys::{event, futex, map, membarrier, robust};
use dsm_core::watch::Lines;
use dsm_core::wire::control::{Ask, Reason, Refusal, Request, SessionStatus, Told, frame};
use dsm_core::wire::{FrameHeader, FrameKind};
use segments::Held;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Context;
use std::time::{Duration, Instant};
use waking::Bells;

/// The way to the server.
#[derive(Debug)]
pub enum Uplink {
    /// It is in this process.
    Local,
    /// Over a socket.
    Remote(Box<Link>),
}

/// Who waits for the answer to a request.
#[derive(Debug)]
struct Waiting {
    request: u64,
    client: u64,
    /// Set once the segment is known but its bytes are still on the way.
    segment: Option<u32>,
}

/// The log's memory, mapped; and the barrier that was chosen for it: what stands in the log, any process can write.
#[derive(Debug)]
struct AreaMap(map::Range, Barrier);

impl AreaMap {
    fn control(&self) -> &Control {
        &self.area().control
    }

    fn area(&self) -> &SharedArea {
        // SAFETY: the range is a mapping of at least this size (made in `HostSession::new`), page-aligned, sealed
        // against shrinking and never unmapped while `self` lives; all fields are atomics, valid for any bytes.
        unsafe { &*self.0.base().cast::<SharedArea>() }
    }

    fn log(&self) -> SharedLog<'_> {
        self.area().log_with(self.1)
    }

    /// Has the kernel tell all processes when this thread ends, however it does.
    fn watch_thread(&self) {
        // SAFETY: mapped at one place until `self` is dropped, which takes it back. A node and its sessions stay in
        // one thread.
        unsafe { robust::mark(&self.control().rare.arbiter) };
    }
}

impl Drop for AreaMap {
    fn drop(&mut self) {
        // Nobody is left, or everybody has been told already; unless this thread panics.
        self.control().rare.arbiter.word.fetch_or(GONE, Release);
        robust::forget(&self.control().rare.arbiter);
    }
}

/// One session on one host.
#[derive(Debug)]
pub struct HostSession {
    name: String,
    host: u16,
    uplink: Uplink,
    file: OwnedFd,
    bell: Async<OwnedFd>,
    area: AreaMap,
    /// Where the arbiter maps the segments, for writing.
    space: map::Range,
    replica: Replica,
    segments: BTreeMap<u32, Held>,
    /// Processes: number -> connection, process number of the system.
    processes: BTreeMap<u16, (u64, u32)>,
    bells: Bells,
    /// Processes that have gone and are not cleaned up after yet; true when they died.
    departed: Vec<(u16, bool)>,
    waiting: Vec<Waiting>,
    answers: Vec<(u64, Told, Descriptors)>,
    next_request: u64,
    /// A frame that has to wait for the replica lock.
    stash: Option<(FrameHeader, Vec<u8>)>,
    batch: Vec<u8>,
    ended: Option<Ended>,
    /// When to look for more of what somebody writes in a row.
    look: Instant,
}

/// Batches that one round drains from the log before it looks at what has come.
const BATCHES: usize = 4;
/// Frames that one round applies before it looks at the log.
const FRAMES: usize = 64;
/// Bytes of records that have come since the last look when somebody writes them in a row and we have caught up.
const ROW: std::ops::Range<usize> = 1024..BATCH / 2;
/// Between two looks at the log then. Each takes the line with the lock and the tail away from the writer, for as long as
/// he needs for a dozen stores.
const PAUSE: Duration = Duration::from_micros(2);

impl HostSession {
    /// A session that the server has let this host join.
    ///
    /// # Errors
    /// When the machine has no memory or addresses for it.
    pub fn new(name: &str, host: u16, uplink: Uplink) -> Result<Self> {
        let what = |what: &str| Error::system(format!("session {name:?}: {what}"));
        let len = size_of::<SharedArea>();
        let file = map::memory_file("dsm-log", len as u64).map_err(what("no memory for the log"))?;
        let asymmetric = membarrier::available() && membarrier::register();
        let mapped = map::Range::of_file(&file, len).map_err(what("cannot map the log"))?;
        let area = AreaMap(mapped, Barrier::new(asymmetric));
        let fixed = &area.control().fixed;
        fixed.magic.store(dsm_core::control::MAGIC, Relaxed);
        fixed.layout.store(dsm_core::control::FINGERPRINT, Relaxed);
        fixed.host.store(u32::from(host), Relaxed);
        fixed.asymmetric.store(u32::from(asymmetric), Relaxed);
        area.watch_thread();
        let bell = event::doorbell().and_then(Async::new).map_err(what("no doorbell"))?;
        let space = map::Range::reserve(SPACE as usize, None).map_err(what("no address space"))?;
        Ok(Self {
            name: name.to_owned(),
            host,
            uplink,
            file,
            bell,
            area,
            space,
            replica: Replica::new(),
            segments: BTreeMap::new(),
            processes: BTreeMap::new(),
            bells: Bells::new(),
            departed: Vec::new(),
            waiting: Vec::new(),
            answers: Vec::new(),
            next_request: 1,
            stash: None,
            batch: Vec::new(),
            ended: None,
            look: Instant::now(),
        })
    }

    /// This host's number.
    pub fn host(&self) -> u16 {
        self.host
    }

    /// Makes a connected client a process. Returns its number, and the log's file and doorbell.
    ///
    /// # Errors
    /// When there are too many.
    pub fn admit(&mut self, client: u64, pid: u32) -> std::result::Result<(u16, Descriptors), Refusal> {
        let taken = |number: &u16| {
            self.processes.contains_key(number) || self.departed.iter().any(|(departed, _)| departed == number)
        };
        let number = (1..=PROCESSES).find(|number| !taken(number)).ok_or_else(|| {
            Refusal::new(Reason::TooLarge, format!("the session already has {PROCESSES} processes on this host"))
        })?;
        let copy = |fd: &OwnedFd| fd.try_clone();
        let descriptors =
            [copy(&self.file), copy(self.bell.get_ref())].into_iter().collect::<std::io::Result<Vec<_>>>();
        let descriptors = descriptors
            .map_err(|error| Refusal::new(Reason::TooLarge, format!("the arbiter has no descriptors left: {error}")))?;
        self.processes.insert(number, (client, pid));
        Ok((number, descriptors))
    }

    /// Has the session ended on this host?
    pub fn over(&self) -> bool {
        self.ended.is_some()
    }

    /// Does it still have processes?
    pub fn has_processes(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Is there nobody left, and everything that they did on its way?
    pub fn unused(&self) -> bool {
        self.processes.is_empty()
            && self.departed.is_empty()
            && !self.area.log().has_news(self.replica.sent())
            && match &self.uplink {
                Uplink::Local => true,
                Uplink::Remote(link) => link.queued() == 0 && self.replica.acked() == self.replica.sent(),
            }
    }

    /// Leaves the server.
    pub fn disconnect(&mut self, servers: &mut Servers) {
        match &mut self.uplink {
            Uplink::Local => {
                if let Some(server) = servers.get_mut(&self.name) {
                    server.leave_local(self.host);
                }
            }
            Uplink::Remote(link) => link.cut(),
        }
    }

    /// Ends the session on this host. Processes see it in the control block.
    pub fn end(&mut self, why: Ended, text: &str) {
        if self.ended.is_none() {
            crate::role::note(&format!("session {:?} has ended on this host: {text}", self.name));
            self.ended = Some(why);
            let rare = &self.area.control().rare;
            rare.ended.store(why as u32, Release);
            // Whoever stores from now on comes by and sees that it is over.
            rare.arbiter.word.fetch_or(GONE, Release);
            rare.room.fetch_add(1, Relaxed);
            futex::wake(&rare.room, u32::MAX >> 1);
            self.wake_all();
        }
        for waiting in std::mem::take(&mut self.waiting) {
            let refusal = Refusal::new(Reason::Unavailable, format!("session {:?} has ended: {text}", self.name));
            self.answers.push((waiting.client, Told::Refused(refusal), Vec::new()));
        }
    }

    /// Answers that have become known: for whom, what, with which descriptors.
    pub fn answers(&mut self) -> Vec<(u64, Told, Descriptors)> {
        std::mem::take(&mut self.answers)
    }

    /// A question of a process. `None` when the answer comes later.
    pub fn ask(&mut self, client: u64, ask: Ask, servers: &mut Servers) -> Option<Told> {
        let request = match ask {
            // Always the server's to say: another host may have removed it, or made it longer.
            Ask::Open(open) => Request::Open(open),
            Ask::Remove(name) => Request::Remove(name),
            Ask::Sync(mut sync) => {
                let process = self.processes.iter().find(|(_, (owner, _))| *owner == client);
                sync.process = process.map_or(0, |(number, _)| u32::from(*number));
                Request::Sync(sync)
            }
            Ask::List(_) => Request::List,
            Ask::Bell => return self.give_bell(client),
            Ask::Join { .. } | Ask::Leave | Ask::Status | Ask::Down => {
                return Some(Told::Refused(Refusal::new(Reason::Malformed, "not now")));
            }
        };
        let id = self.next_request;
        self.next_request += 1;
        self.waiting.push(Waiting { request: id, client, segment: None });
        self.request(id, request, servers);
        None
    }

    fn request(&mut self, id: u64, request: Request, servers: &mut Servers) {
        match &mut self.uplink {
            Uplink::Local => {
                if let Some(server) = servers.get_mut(&self.name) {
                    server.local_request(self.host, id, request);
                }
            }
            Uplink::Remote(link) => match frame(&request, id, self.host, 0) {
                Ok(bytes) => link.queue_whole(&bytes),
                Err(error) => {
                    let refusal = Refusal::new(Reason::TooLarge, error.to_string());
                    self.respond(id, |_| (Told::Refused(refusal), Vec::new()));
                }
            },
        }
    }

    fn respond(&mut self, request: u64, told: impl FnOnce(&Self) -> (Told, Descriptors)) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.request == request) {
            let waiting = self.waiting.remove(at);
            let (told, descriptors) = told(self);
            self.answers.push((waiting.client, told, descriptors));
        }
    }

    /// Does what can be done now. Returns whether there was anything.
    pub fn pump(&mut self, now: Instant, servers: &mut Servers) -> bool {
        if self.ended.is_some() {
            let forgotten = !self.departed.is_empty();
            self.departed.clear();
            return forgotten;
        }
        let mut busy = self.clean_up();
        let local = matches!(self.uplink, Uplink::Local);
        if local && !servers.get(&self.name).is_some_and(|server| server.has_local(self.host)) {
            self.end(Ended::ServerGone, "its server has cut it off");
            return true;
        }
        busy |= self.ship(now, servers);
        busy |= self.take_in(now, servers);
        busy |= self.replica.settle(&self.area.log());
        if let Uplink::Remote(link) = &mut self.uplink {
            busy |= link.flush();
            if link.broken() {
                self.end(Ended::ServerGone, "the connection to its server broke");
            }
        }
        busy
    }

    fn memory(&self) -> Mapped {
        // SAFETY: only offsets that `replica.contains` has checked are used, and those are mapped in `space`.
        unsafe { Mapped::new(self.space.base()) }
    }

    /// Must what is new in the log wait, because somebody does not read? Whoever it is wakes us when that is over.
    fn congested(&self, servers: &Servers) -> bool {
        match &self.uplink {
            Uplink::Local => servers.get(&self.name).is_none_or(Server::congested),
            Uplink::Remote(link) => link.queued() > HIGH,
        }
    }

    /// Sends what is new in the log.
    fn ship(&mut self, now: Instant, servers: &mut Servers) -> bool {
        let mut busy = false;
        if now < self.look {
            return busy;
        }
        for _ in 0..BATCHES {
            if self.congested(servers) {
                break;
            }
            self.batch.clear();
            let log = self.area.log();
            let (from, to) = match self.replica.drain(&log, &mut self.batch) {
                Ok(Some(positions)) => positions,
                Ok(None) => break,
                Err(malformed) => {
                    self.end(Ended::LogCorrupt, &format!("the log is corrupt: {malformed}"));
                    return true;
                }
            };
            busy = true;
            self.changed(|| Lines::of_records(&self.batch));
            let out = &self.area.control().arbiter.bytes_out;
            out.store(out.load(Relaxed).wrapping_add(self.batch.len() as u64), Relaxed);
            match &mut self.uplink {
                Uplink::Local => {
                    let Some(server) = servers.get_mut(&self.name) else { break };
                    if let Err(why) = server.local_records(self.host, from, to, &self.batch) {
                        server.leave_local(self.host);
                        self.end(Ended::LogCorrupt, &why);
                        return true;
                    }
                }
                Uplink::Remote(link) => {
                    let header = FrameHeader::new(FrameKind::Records, self.host, 0, self.batch.len(), from, to);
                    link.queue(&header, &self.batch);
                    link.flush();
                }
            }
            if ROW.contains(&self.batch.len()) {
                self.look = now + PAUSE;
                break;
            }
        }
        busy
    }

    /// For those who watch.
    pub fn status(&self) -> SessionStatus {
        let processes = self.processes.values().map(|(_, pid)| *pid).collect();
        self.area.control().status(self.name.clone(), self.host, processes)
    }

    /// Signs of life, and a look at the lock.
    pub fn tick(&mut self, now: Instant, patience: Duration) {
        self.free_from_strangers();
        if let Uplink::Remote(link) = &mut self.uplink {
            link.tick(now, patience);
        }
    }

    /// About to sleep: producers shall ring, unless what they write could not be sent anyway.
    pub fn doze(&self, servers: &Servers) {
        if self.over() || self.congested(servers) {
            return;
        }
        self.area.control().rare.arbiter.word.fetch_or(ASLEEP, Relaxed);
        self.area.1.heavy();
    }

    /// Not asleep.
    pub fn wake(&self) {
        if self.over() {
            return;
        }
        self.area.control().rare.arbiter.word.fetch_and(!ASLEEP, Relaxed);
        event::silence(self.bell.get_ref().as_fd());
    }

    /// Is there anything new in the log that can be sent?
    pub fn has_news(&self, servers: &Servers) -> bool {
        self.area.log().has_news(self.replica.sent()) && !self.congested(servers)
    }

    /// Does something wait for the replica lock?
    pub fn impatient(&self) -> bool {
        self.stash.is_some() || !self.departed.is_empty() || self.replica.unsettled()
    }

    /// Is there anything to do? Else asks to be woken.
    pub fn poll(&self, cx: &mut Context<'_>, servers: &Servers) -> bool {
        let ready = self.bell.poll_readable(cx).is_ready();
        // While a frame waits for the replica lock, more of them are no news.
        let intake = self.stash.is_none();
        match &self.uplink {
            Uplink::Local => {
                let server = servers.get(&self.name);
                intake && server.is_some_and(|server| server.has_local_frame(self.host)) || ready
            }
            Uplink::Remote(link) => link.poll(cx, intake) || ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unwinding takes the word out of the kernel's list, and the thread's end is no longer the arbiter's.
    #[test]
    fn an_arbiter_that_panics_says_that_it_is_gone() {
        let (sender, file) = std::sync::mpsc::channel();
        let arbiter = std::thread::spawn(move || {
            let session = HostSession::new("panics", 1, Uplink::Local).unwrap();
            sender.send(session.log_file().try_clone().unwrap()).unwrap();
            std::panic::resume_unwind(Box::new("in the middle of something"));
        });
        let mapped = map::Range::of_file(&file.recv().unwrap(), size_of::<SharedArea>()).unwrap();
        let area = AreaMap(mapped, Barrier::new(false));
        assert!(arbiter.join().is_err());
        assert_ne!(area.control().rare.arbiter.word.load(Relaxed) & GONE, 0);
    }
}
