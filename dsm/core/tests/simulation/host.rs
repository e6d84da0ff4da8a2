//! One simulated host: its log, its replica, its links, and the arbiter's loop cut into steps.

use crate::oracle::{self, Op, Oracle};
use crate::rng::Rng;
use crate::threads::{Object, Process};
use dsm_core::bias::Favour;
use dsm_core::lock::{ARBITER, Seizure};
use dsm_core::log::{Area, Writer};
use dsm_core::memory::{Cells, Memory};
use dsm_core::record::{DIED, Kind, SyncBody};
use dsm_core::replica::{Progress, Replica};
use dsm_core::sync::AtomicU64;
use dsm_core::sync::Ordering::Relaxed;
use dsm_core::wire::control::{Request, Response, frame, parse};
use dsm_core::wire::{Frame, FrameHeader, FrameKind, Reader, Reply};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// Buckets of the index for pages.
pub(crate) const PAGES: usize = 4;
/// Slots for waiting.
pub(crate) const SEATS: usize = 32;

pub(crate) type SimArea<const RING: usize, const INDEX: usize> = Area<RING, INDEX, PAGES, SEATS>;

/// All words of an area, also those that it keeps to itself: what any process on the host could read and write.
pub(crate) fn raw<const RING: usize, const INDEX: usize>(area: &SimArea<RING, INDEX>) -> &[AtomicU64] {
    let from: *const SimArea<RING, INDEX> = area;
    // SAFETY: an area is `repr(C)` and consists of nothing but atomic words and their padding (zeroed or not, it is
    // inside the allocation); its size and alignment are multiples of 8, and the simulation has one thread, so that
    // accesses of another width than the field's do not race.
    unsafe { std::slice::from_raw_parts(from.cast(), size_of::<SimArea<RING, INDEX>>() / 8) }
}

/// Where the slots begin, in words; then come the index and the ring.
pub(crate) const SLOTS_AT: usize = size_of::<dsm_core::control::Control>() / 8;
/// Where the words of the pending index begin.
pub(crate) const INDEX_AT: usize = SLOTS_AT + SEATS * 8;

/// A process, and its thread, as the log sees them. Nothing in a simulation of one thread may wait.
pub(crate) struct Hand(pub(crate) u32, pub(crate) Rc<Favour>);

impl Writer for Hand {
    fn number(&self) -> u32 {
        self.0
    }

    fn favour(&self) -> Option<&Favour> {
        Some(&self.1)
    }

    fn ring_doorbell(&self) {}

    fn stalled(&self) {
        panic!("process {} waits where nobody else can run", self.0);
    }
}

/// What unwinds out of an operation in the middle of which its process dies.
pub(crate) struct Death;

/// Memory whose writer dies in its n-th write, having written `partial` bytes of it.
pub(crate) struct Fuse<'a> {
    pub(crate) cells: &'a Cells,
    pub(crate) left: Cell<usize>,
    pub(crate) partial: usize,
}

impl Memory for Fuse<'_> {
    fn write(&self, offset: u64, bytes: &[u8]) {
        // A page may be written at once; death comes line by line.
        for (offset, bytes) in (offset..).step_by(64).zip(bytes.chunks(64)) {
            if self.left.get() == 0 {
                self.cells.write(offset, &bytes[..self.partial.min(bytes.len())]);
                std::panic::resume_unwind(Box::new(Death));
            }
            self.left.set(self.left.get() - 1);
            self.cells.write(offset, bytes);
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        self.cells.read(offset, out);
    }
}

/// How a host stands to a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seg {
    Unknown,
    Requested,
    /// Attached, its bytes are on the way.
    Loading {
        id: u32,
        offset: u64,
        len: u64,
    },
    Ready {
        id: u32,
        offset: u64,
        len: u64,
    },
}

/// What a request was about.
pub(crate) enum Asked {
    Open(usize),
    Sync { process: u32, object: usize },
}

/// A dead process holds the replica lock.
pub(crate) struct Torn {
    pub(crate) process: u32,
    /// What it had begun, where it had got so far that it must happen; with the end of its record.
    pub(crate) op: Option<(u64, Op)>,
}

pub(crate) struct Host<const RING: usize, const INDEX: usize> {
    pub(crate) uid: usize,
    pub(crate) number: u16,
    pub(crate) area: Box<SimArea<RING, INDEX>>,
    pub(crate) memory: Cells,
    pub(crate) replica: Replica,
    pub(crate) processes: Vec<Process>,
    /// Processes that are gone and not cleaned up after; whether they died.
    pub(crate) departed: Vec<(u32, bool)>,
    pub(crate) torn: Option<Torn>,
    pub(crate) segments: Vec<Seg>,
    pub(crate) requests: HashMap<u64, Asked>,
    next_request: u64,
    /// Bytes on their way to the server, and what cuts them into frames there.
    pub(crate) up: VecDeque<u8>,
    pub(crate) up_reader: Reader,
    /// The connection is broken: the server will notice once it has read what is on its way.
    pub(crate) cut: bool,
    /// Bytes on their way from the server; for every frame the length of the journal that it leads to.
    pub(crate) down: VecDeque<u8>,
    pub(crate) down_reader: Reader,
    pub(crate) tags: VecDeque<usize>,
    stash: Option<(FrameHeader, Vec<u8>, usize)>,
    /// The present frame is half applied.
    halfway: bool,
    /// The reference's bytes after `prefix_at` operations: what this host has received.
    pub(crate) prefix: Vec<u8>,
    pub(crate) prefix_at: usize,
    batch: Vec<u8>,
    /// Its threads do nothing but write, and much at a time.
    pub(crate) bulky: bool,
    /// What the server sends takes long to reach it.
    pub(crate) far: bool,
}

impl<const RING: usize, const INDEX: usize> Host<RING, INDEX> {
    pub(crate) fn new(uid: usize, number: u16, space: usize, segments: usize) -> Self {
        let area = SimArea::boxed(number);
        // So that the lock is biased; there is one thread only.
        area.control.fixed.asymmetric.store(1, Relaxed);
        Self {
            uid,
            number,
            area,
            memory: Cells::zeroed(space),
            replica: Replica::new(),
            processes: Vec::new(),
            departed: Vec::new(),
            torn: None,
            segments: vec![Seg::Unknown; segments],
            requests: HashMap::new(),
            next_request: 1,
            up: VecDeque::new(),
            up_reader: Reader::new(),
            cut: false,
            down: VecDeque::new(),
            down_reader: Reader::new(),
            tags: VecDeque::new(),
            stash: None,
            halfway: false,
            prefix: vec![0; space],
            prefix_at: 0,
            batch: Vec::new(),
            bulky: false,
            far: false,
        }
    }

    pub(crate) fn tail(&self) -> u64 {
        self.area.control.producer.tail.load(Relaxed)
    }

    /// Is there room for so many words in the ring?
    pub(crate) fn room(&self, words: usize) -> bool {
        self.tail() - self.area.control.arbiter.acked.load(Relaxed) + words as u64 <= RING as u64
    }

    /// Sends a request to the server.
    pub(crate) fn ask(&mut self, request: &Request, asked: Option<Asked>) {
        let id = if asked.is_some() { self.next_request } else { 0 };
        if let Some(asked) = asked {
            self.requests.insert(id, asked);
            self.next_request += 1;
        }
        self.up.extend(frame(request, id, self.number, 0).expect("a small request"));
    }

    /// The arbiter drains the log into the link.
    pub(crate) fn drain(&mut self) {
        self.batch.clear();
        let log = self.area.log();
        let drained = self.replica.drain(&log, &mut self.batch).expect("the log makes sense");
        if let Some((from, to)) = drained {
            assert_eq!((to - from) as usize * 8, self.batch.len());
            let header = FrameHeader::new(FrameKind::Records, self.number, 0, self.batch.len(), from, to);
            self.up.extend(bytemuck::bytes_of(&header));
            self.up.extend(&self.batch);
        }
    }

    /// The arbiter cleans up after one process that is gone, as `dsm-daemon` does it.
    pub(crate) fn clean_up(&mut self, rng: &mut Rng, oracle: &mut Oracle) {
        if self.departed.is_empty() {
            return;
        }
        let at = rng.below(self.departed.len());
        let (number, died) = self.departed[at];
        let log = self.area.log();
        let torn = self.torn.take_if(|torn| torn.process == number);
        let seized = log.lock().seize(|process| process == number) == Seizure::Taken;
        // What is biased to a thread that was not inside is taken, too.
        assert!(seized || torn.is_none(), "the lock of process {number}");
        if let Some(torn) = torn {
            log.recover(&self.memory, |offset, len| self.replica.contains(offset, len));
            if let Some((end, op)) = torn.op {
                assert_eq!(self.area.control.producer.tail.load(Relaxed), end, "the half-done operation is completed");
                oracle.issue(self.uid, end, op);
            }
        }
        if seized {
            assert!(log.lock().holder() == ARBITER);
            log.lock().release_to_all();
        }
        log.lock().forget(number);
        log.slots().iter().for_each(|slot| slot.reclaim(number));
        let body = SyncBody { token: 0, amount: 0, process: number };
        let flags = if died { DIED } else { 0 };
        let locked = self.torn.is_some();
        let submitted = log.try_submit(Kind::Gone, flags, u64::from(number), bytemuck::bytes_of(&body));
        assert!(!(submitted && locked), "the lock of a dead process was taken without its recovery");
        if submitted {
            self.departed.remove(at);
            oracle.issue(self.uid, self.tail(), Op::Gone { process: number, died });
        }
    }

    /// Receives up to `count` bytes from the server and handles at most `frames` whole frames.
    pub(crate) fn receive(&mut self, count: usize, frames: usize, busy: usize, rng: &mut Rng, oracle: &mut Oracle) {
        if let Some((header, payload, tag)) = self.stash.take()
            && !self.frame(header, payload, tag, busy, rng, oracle)
        {
            return;
        }
        transfer(&mut self.down, &mut self.down_reader, count);
        for _ in 0..frames {
            let Some(frame) = self.down_reader.next().expect("the server sends frames") else { break };
            let (header, payload) = (frame.header, frame.payload.to_vec());
            let tag = self.tags.pop_front().expect("every frame has its tag");
            if !self.frame(header, payload, tag, busy, rng, oracle) {
                break;
            }
        }
    }

    /// The arbiter takes or gives back the lease of atomics.
    pub(crate) fn settle(&mut self, oracle: &mut Oracle) {
        let before = self.tail();
        self.replica.settle(&self.area.log());
        if self.tail() != before {
            oracle.issue(self.uid, self.tail(), Op::Yield);
            // The last of its batch, so that the reference is told what it sets off before anything follows.
            self.drain();
        }
    }

    /// Has everything from the server been handled?
    pub(crate) fn idle(&self) -> bool {
        !self.replica.unsettled() && self.stash.is_none() && self.down.is_empty() && self.tags.is_empty()
    }

    fn frame(
        &mut self,
        header: FrameHeader,
        payload: Vec<u8>,
        tag: usize,
        busy: usize,
        rng: &mut Rng,
        oracle: &mut Oracle,
    ) -> bool {
        let kind = match header.kind {
            1 => FrameKind::Records,
            2 => FrameKind::Ack,
            3 => FrameKind::Reply,
            4 => {
                self.control(header.from, &payload, rng);
                return true;
            }
            5 => FrameKind::Snapshot,
            7 => FrameKind::Lease,
            kind => panic!("a server sends no frame of kind {kind}"),
        };
        let mut taken = 0;
        let log = self.area.log();
        let lock = || {
            // A process that is about to be scheduled out with the lock.
            let got = !rng.chance(busy) && log.lock().try_acquire(ARBITER);
            taken += usize::from(got);
            got
        };
        let result = self.replica.apply(&log, &self.memory, &Frame { kind, header, payload: &payload }, lock);
        match result.unwrap_or_else(|bad| panic!("host {}: {bad}, in {header:?}", self.uid)) {
            Progress::Busy => {
                self.halfway |= taken > 0;
                self.stash = Some((header, payload, tag));
                return false;
            }
            Progress::Done => self.halfway = false,
        }
        self.advance(tag, oracle);
        if kind == FrameKind::Reply {
            let reply: Reply = bytemuck::pod_read_unaligned(&payload);
            let expected = oracle.answers.get_mut(&(self.uid, reply.token));
            let expected = expected.unwrap_or_else(|| panic!("nobody decided an answer to {:#x}", reply.token));
            assert!(!expected.arrived, "token {:#x} is answered twice", reply.token);
            expected.arrived = true;
            assert_eq!((reply.status, reply.fence), (expected.status, expected.fence));
            // Whoever is answered has, by then, everything that was written before.
            let between = &oracle.journal[self.prefix_at..expected.at.max(self.prefix_at)];
            assert!(between.iter().all(Vec::is_empty), "host {}: an answer overtook a store", self.uid);
            self.advance(oracle.answers[&(self.uid, reply.token)].at, oracle);
        }
        true
    }

    /// This host has received the order up to here.
    fn advance(&mut self, tag: usize, oracle: &Oracle) {
        while self.prefix_at < tag {
            oracle::write(&mut self.prefix, &oracle.journal[self.prefix_at]);
            self.prefix_at += 1;
        }
    }

    fn control(&mut self, id: u64, payload: &[u8], rng: &mut Rng) {
        match parse::<Response>(payload).expect("the server's responses make sense") {
            Response::Opened { info, snapshot } => {
                let Some(Asked::Open(at)) = self.requests.remove(&id) else { panic!("nobody asked for {info:?}") };
                assert!(snapshot, "attached twice");
                if rng.chance(10) {
                    // It cannot be mapped here.
                    self.segments[at] = Seg::Unknown;
                    self.ask(&Request::Detach { segment: info.id, keep: 0 }, None);
                    return;
                }
                self.replica.attach(info.offset, info.len);
                self.segments[at] = Seg::Loading { id: info.id, offset: info.offset, len: info.len };
            }
            Response::SnapshotDone(number) => {
                for segment in &mut self.segments {
                    if let Seg::Loading { id, offset, len } = *segment
                        && id == number
                    {
                        *segment = Seg::Ready { id, offset, len };
                    }
                }
            }
            Response::Sync(object) => {
                let Some(Asked::Sync { process, object: which }) = self.requests.remove(&id) else {
                    panic!("nobody asked for object {object}");
                };
                if let Some(process) = self.processes.iter_mut().find(|p| p.number == process) {
                    process.objects[which] = Some(Object { id: object });
                }
            }
            // Its process went while another host had not yet given back the lease.
            Response::Refused(refusal) => match self.requests.remove(&id) {
                Some(Asked::Sync { .. }) if refusal.text.contains("is gone") => {}
                _ => panic!("refused: {}", refusal.text),
            },
            Response::Joined(_) | Response::Listing(_) | Response::Removed | Response::Ending => {
                panic!("not asked for")
            }
        }
    }

    /// Rule 3: the replica is the prefix that was received, with own pending stores on top of it.
    pub(crate) fn check(&self, oracle: &Oracle) {
        let acked = self.replica.acked();
        let ours = &oracle.hosts[self.uid].ops;
        let count = ours.len() - oracle.pending(self.uid, acked).len();
        let known = |issued: &oracle::Issued| issued.place.is_some_and(|place| place <= self.prefix_at);
        // Places rise with positions, so the last one speaks for all.
        assert!(ours[..count].last().is_none_or(known), "host {}: acknowledged before it was received", self.uid);
        assert!(
            !ours.get(count).is_some_and(known),
            "host {}: an own operation lies in the prefix and is not acknowledged at {acked}",
            self.uid
        );
        if self.torn.is_some() || self.halfway {
            return;
        }
        assert_eq!(ours.last().map_or(0, |last| last.end), self.tail(), "host {}: the log's tail", self.uid);
        let found = self.memory.to_vec();
        let mut expected = self.prefix.clone();
        for issued in &ours[count..] {
            match &issued.op {
                Op::Write(runs) => oracle::write(&mut expected, runs),
                Op::Leased { offset, new, .. } => oracle::write(&mut expected, &[(*offset, new.clone())]),
                _ => {}
            }
        }
        for segment in &self.segments {
            if let Seg::Ready { offset, len, .. } = *segment {
                compare(&found, &expected, offset, len, &format!("replica of host {}", self.uid));
            }
        }
    }
}

/// Fails with the first byte that differs.
pub(crate) fn compare(found: &[u8], expected: &[u8], offset: u64, len: u64, what: &str) {
    let range = offset as usize..(offset + len) as usize;
    let (a, b) = (&found[range.clone()], &expected[range]);
    if a != b {
        let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(0);
        panic!("{what}: offset {:#x} holds {:#04x}, expected {:#04x}", offset + at as u64, a[at], b[at]);
    }
}

/// Moves up to `count` bytes from a link into a reader.
pub(crate) fn transfer(link: &mut VecDeque<u8>, reader: &mut Reader, count: usize) {
    let space = reader.space();
    let count = count.min(link.len()).min(space.len());
    for (to, from) in space.iter_mut().zip(link.drain(..count)) {
        *to = from;
    }
    reader.received(count);
}
