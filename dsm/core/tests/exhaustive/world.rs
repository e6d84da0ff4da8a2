//! Two hosts and their server, as the real code has them, and every event that can happen to them.

use crate::Program;
use crate::order::{Issued, LEN, Op, Order, perform};
use dsm_core::limits::PAGE;
use dsm_core::lock::ARBITER;
use dsm_core::log::{Area, Door, HostLog, Writer};
use dsm_core::memory::Memory;
use dsm_core::op::{AtomicOp, Rmw};
use dsm_core::record::{AtomicBody, Kind, SyncBody, TRY};
use dsm_core::replica::{Progress, Replica};
use dsm_core::segment::{OpenMode, OpenSegment, TypeDesc};
use dsm_core::sequencer::{Body, Output, Sequencer, To};
use dsm_core::sync::AtomicU64;
use dsm_core::sync::Ordering::Relaxed;
use dsm_core::wire::control::{OpenSync, Request, Response, SyncKind, parse};
use dsm_core::wire::{Frame, FrameHeader, FrameKind, Reply};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

type Tiny = Area<64, 8, 2, 4>;
type TinyLog<'a> = HostLog<'a, 64, 8, 2, 4>;

/// Where the segment is: the first of a session.
const BASE: u64 = PAGE;
/// The bytes that programs touch: the last of one line, the first of the next.
const FROM: u64 = BASE + 56;
/// Lines of the segment that hosts have.
const LINES: usize = 2;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A thread goes one step on.
    Thread(usize),
    /// A thread does not wait any longer.
    GiveUp(usize),
    Drain,
    Serve,
    Deliver,
    /// The arbiter takes up the lease of atomics, or gives it back.
    Settle,
    Join,
    /// The server sends what it has of the segment.
    Snapshot,
    Leave,
}

/// The lines that are touched; there is nothing else in the segment.
#[derive(Clone)]
struct Lines(RefCell<[u8; 64 * LINES]>);

impl Memory for Lines {
    fn write(&self, offset: u64, bytes: &[u8]) {
        let (mut lines, at) = (self.0.borrow_mut(), (offset - BASE) as usize);
        match lines.get_mut(at..at + bytes.len()) {
            Some(place) => place.copy_from_slice(bytes),
            None => assert!(bytes.iter().all(|byte| *byte == 0), "bytes that nobody has stored"),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        out.copy_from_slice(&self.0.borrow()[(offset - BASE) as usize..][..out.len()]);
    }
}

/// A log that can be copied, as nobody else uses it.
struct Log(Box<Tiny>);

impl Deref for Log {
    type Target = Tiny;

    fn deref(&self) -> &Tiny {
        &self.0
    }
}

impl Clone for Log {
    fn clone(&self) -> Self {
        let copy = Tiny::boxed(0);
        for (to, from) in words(&copy).iter().zip(words(&self.0)) {
            to.store(from.load(Relaxed), Relaxed);
        }
        Self(copy)
    }
}

/// All words of a log.
fn words(area: &Tiny) -> &[AtomicU64] {
    let from: *const Tiny = area;
    // SAFETY: an area is `repr(C)` and consists of nothing but atomic words and their padding, which `boxed` has zeroed
    // or not and nobody looks at; its size and alignment are multiples of 8.
    unsafe { std::slice::from_raw_parts(from.cast(), size_of::<Tiny>() / 8) }
}

/// What a thread is at.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Doing {
    Nothing,
    /// An atomic that was not leased when it looked.
    Asking,
    /// Waits for the answer to what its host issued at this number; has it given up?
    Waiting(usize, bool),
}

/// How a host stands to the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Outside,
    Coming,
    Ready,
    Left,
}

#[derive(Clone)]
enum Up {
    Records(u64, u64, Vec<u8>),
    Open,
}

#[derive(Clone)]
struct Host {
    number: u16,
    stage: Stage,
    area: Log,
    memory: Lines,
    replica: Replica,
    /// How often the lease was given and asked back, as far as the arbiter knows.
    leases: u8,
    /// Per thread: operations begun, and what it is at.
    threads: Vec<(usize, Doing)>,
    up: VecDeque<Up>,
    /// With how many operations of the order the receiver has then.
    down: VecDeque<(FrameHeader, Vec<u8>, usize)>,
    received: usize,
}

#[derive(Clone)]
pub(crate) struct World {
    sequencer: Sequencer,
    hosts: [Host; 2],
    order: Order,
    /// Answers that the server has sent.
    replies: usize,
}

struct Hand;

impl Writer for Hand {
    fn number(&self) -> u32 {
        1
    }

    fn ring_doorbell(&self) {}

    fn stalled(&self) {
        panic!("nobody else can run");
    }
}

fn open() -> Request {
    let ty = TypeDesc { name: "Bytes".into(), size: 1, fingerprint: 1, fields: Vec::new() };
    Request::Open(OpenSegment { name: "bytes".into(), len: PAGE, ty, mode: OpenMode::OpenOrCreate, room: 0 })
}

impl World {
    pub(crate) fn new(program: &Program) -> Self {
        let mut sequencer = Sequencer::new("all", 1);
        let hosts = [0, 1].map(|at: usize| {
            let (mut replica, mut stage, mut number) = (Replica::new(), Stage::Outside, 0);
            if at == 0 || !program.late {
                let mut outputs = Vec::new();
                number = sequencer.join().expect("there is room");
                sequencer.request(number, 1, open(), u64::MAX, &mut outputs);
                for kind in [SyncKind::Semaphore(program.units), SyncKind::Barrier(program.parties)] {
                    let sync = OpenSync { name: "object".into(), kind, process: 1 };
                    sequencer.request(number, 1, Request::Sync(sync), u64::MAX, &mut outputs);
                }
                while sequencer.snapshot(number, &mut outputs) {}
                replica.attach(BASE, PAGE);
                stage = Stage::Ready;
            }
            let (memory, threads) = (Lines(RefCell::new([0; 128])), vec![(0, Doing::Nothing); program.hosts[at].len()]);
            let (area, up, down) = (Log(Tiny::boxed(number)), VecDeque::new(), VecDeque::new());
            Host { number, stage, area, memory, replica, leases: 0, threads, up, down, received: 0 }
        });
        let order = Order::new(program.units, program.parties as usize);
        let mut this = Self { sequencer, hosts, order, replies: 0 };
        if program.late {
            this.settle_lease();
        }
        this
    }

    /// What can happen now.
    pub(crate) fn possible(&self, program: &Program) -> Vec<(usize, Event)> {
        let mut events = Vec::new();
        for (h, host) in self.hosts.iter().enumerate() {
            let log: TinyLog<'_> = host.area.log();
            let member = matches!(host.stage, Stage::Coming | Stage::Ready);
            for (t, (begun, doing)) in host.threads.iter().enumerate().filter(|_| host.stage == Stage::Ready) {
                let goes_on = match doing {
                    Doing::Nothing => *begun < program.hosts[h][t].len(),
                    Doing::Asking => true,
                    Doing::Waiting(..) => log.slots()[t].answer().is_some(),
                };
                if goes_on {
                    events.push((h, Event::Thread(t)));
                } else if let Doing::Waiting(which, false) = doing
                    && matches!(self.order.issued[h][*which].op, Op::Timed(_))
                {
                    events.push((h, Event::GiveUp(t)));
                }
            }
            if member && log.has_news(host.replica.sent()) {
                events.push((h, Event::Drain));
            }
            if !host.up.is_empty() {
                events.push((h, Event::Serve));
            }
            if !host.down.is_empty() {
                events.push((h, Event::Deliver));
            }
            if host.replica.unsettled() {
                events.push((h, Event::Settle));
            }
            if host.stage == Stage::Outside {
                events.push((h, Event::Join));
            }
            if member && self.sequencer.has_snapshot(host.number) {
                events.push((h, Event::Snapshot));
            }
            let mut threads = host.threads.iter().zip(&program.hosts[h]);
            let done = threads.all(|((begun, doing), ops)| *begun == ops.len() && *doing == Doing::Nothing);
            let idle = done && host.up.is_empty() && !log.has_news(host.replica.sent());
            if h == 1 && program.leaves && host.stage == Stage::Ready && idle {
                events.push((h, Event::Leave));
            }
        }
        events
    }

    pub(crate) fn happen(&mut self, program: &Program, (h, event): (usize, Event)) {
        let host = &mut self.hosts[h];
        match event {
            Event::Thread(t) => self.thread(program, h, t),
            Event::GiveUp(t) => {
                let Doing::Waiting(which, given_up) = &mut host.threads[t].1 else { panic!("it waits for nothing") };
                *given_up = true;
                let (which, token) = (*which, self.order.issued[h][*which].token);
                self.submit(h, Op::Cancel(which), Kind::Cancel, 0, token, 0);
            }
            Event::Drain => {
                let mut bytes = Vec::new();
                let drained = host.replica.drain(&host.area.log(), &mut bytes);
                let (from, to) = drained.expect("it makes sense").expect("news");
                host.up.push_back(Up::Records(from, to, bytes));
            }
            Event::Serve => {
                let (number, mut outputs) = (host.number, Vec::new());
                match host.up.pop_front().expect("something for the server") {
                    Up::Open => {
                        self.sequencer.request(number, 7, open(), u64::MAX, &mut outputs);
                        self.dispatch(&outputs, &[]);
                    }
                    Up::Records(from, to, bytes) => {
                        let taken = self.sequencer.records(number, from, to, &bytes, &mut outputs);
                        taken.expect("a batch that makes sense");
                        self.order.take(h, to);
                        self.dispatch(&outputs, &bytes);
                    }
                }
                assert_eq!(self.replies, self.order.told, "answers of the server, and those that there are to be");
            }
            Event::Deliver => self.deliver(h),
            Event::Settle => {
                let before = host.area.control.producer.tail.load(Relaxed);
                host.replica.settle(&host.area.log());
                if host.area.control.producer.tail.load(Relaxed) != before {
                    self.issue(h, Op::Yield, 0, 0);
                }
            }
            Event::Join => {
                host.number = self.sequencer.join().expect("there is room");
                host.stage = Stage::Coming;
                host.up.push_back(Up::Open);
                self.settle_lease();
            }
            Event::Snapshot => {
                let (number, mut outputs) = (host.number, Vec::new());
                self.sequencer.snapshot(number, &mut outputs);
                self.dispatch(&outputs, &[]);
            }
            Event::Leave => {
                host.stage = Stage::Left;
                host.down.clear();
                let (number, mut outputs) = (host.number, Vec::new());
                self.sequencer.leave(number, false, &mut outputs);
                self.dispatch(&outputs, &[]);
            }
        }
    }

    fn settle_lease(&mut self) {
        let mut outputs = Vec::new();
        self.sequencer.settle_lease(&mut outputs);
        self.dispatch(&outputs, &[]);
    }

    fn deliver(&mut self, h: usize) {
        let Host { area, memory, replica, down, received, stage, leases, .. } = &mut self.hosts[h];
        let (header, payload, tag) = down.pop_front().expect("a frame");
        let kind = match header.kind {
            1 => FrameKind::Records,
            2 => FrameKind::Ack,
            3 => FrameKind::Reply,
            4 => match parse(&payload).expect("a response") {
                Response::Opened { info, .. } => return replica.attach(info.offset, info.len),
                Response::SnapshotDone(_) => {
                    (*stage, *received) = (Stage::Ready, tag);
                    return;
                }
                other => panic!("nobody asked for {other:?}"),
            },
            5 => FrameKind::Snapshot,
            _ => {
                *leases += 1;
                FrameKind::Lease
            }
        };
        let (log, frame): (TinyLog<'_>, _) = (area.log(), Frame { kind, header, payload: &payload });
        let progress = replica.apply(&log, memory, &frame, || log.lock().try_acquire(ARBITER));
        assert_eq!(progress, Ok(Progress::Done));
        *received = tag.max(*received);
    }

    /// A thread's next step: its next operation, or what is still to be done for the last.
    fn thread(&mut self, program: &Program, h: usize, t: usize) {
        let Host { area, memory, threads, .. } = &mut self.hosts[h];
        let log: TinyLog<'_> = area.log();
        let (begun, doing) = &mut threads[t];
        if let Doing::Waiting(which, _) = *doing {
            log.slots()[t].free(self.order.issued[h][which].token, 1);
            *doing = Doing::Nothing;
            return;
        }
        let asking = std::mem::replace(doing, Doing::Nothing) == Doing::Asking;
        let op = program.hosts[h][t][*begun];
        // Never twice the same byte.
        let value = (h * 100 + t * 10 + *begun + 1) as u8;
        match op {
            Op::Store(at, len) => {
                *begun += 1;
                store(&log, memory, FROM + at, &[value; LEN][..len]);
                self.issue(h, op, value, 0);
            }
            Op::Bulk(changed) => {
                *begun += 1;
                let (mut masks, mut lines) = ([0u64; LINES], [[0u8; 64]; LINES]);
                for at in changed {
                    let at = (FROM - BASE + at) as usize;
                    masks[at / 64] |= 1 << (at % 64);
                    lines[at / 64][at % 64] = value;
                }
                log.publish(memory, &Hand, BASE, &masks, &lines);
                self.issue(h, op, value, 0);
            }
            Op::Add(at, width) => {
                let add = AtomicOp::new(Rmw::Add, width, u128::from(value));
                if !asking && program.late {
                    // As `dsm` does it, with everything that may come between: looks for the lease, and else asks.
                    match leased(&log, memory, FROM + at, &add) {
                        Some(found) => {
                            *begun += 1;
                            self.issue(h, op, value, 0);
                            let issued = self.order.issued[h].last_mut().expect("it was issued");
                            issued.found = Some(found as u64);
                        }
                        None => *doing = Doing::Asking,
                    }
                    return;
                }
                let token = log.slots()[t].claim(t as u16, 1).expect("a slot a thread");
                if log.submit_atomic(&Hand, || true, FROM + at, &AtomicBody::new(token, add)) {
                    *begun += 1;
                    *doing = Doing::Waiting(self.order.issued[h].len(), false);
                    self.issue(h, op, value, token);
                } else {
                    log.slots()[t].free(token, 1);
                }
            }
            Op::Release(units) => {
                *begun += 1;
                self.submit(h, op, Kind::Release, 0, 0, units);
            }
            Op::Fence | Op::Acquire(_) | Op::Try(_) | Op::Timed(_) | Op::Arrive => {
                *begun += 1;
                *doing = Doing::Waiting(self.order.issued[h].len(), false);
                let token = log.slots()[t].claim(t as u16, 1).expect("a slot a thread");
                let (kind, flags, units) = match op {
                    Op::Fence => (Kind::Fence, 0, 0),
                    Op::Arrive => (Kind::Arrive, 0, 0),
                    Op::Try(units) => (Kind::Acquire, TRY, units),
                    Op::Acquire(units) | Op::Timed(units) => (Kind::Acquire, 0, units),
                    _ => unreachable!(),
                };
                self.submit(h, op, kind, flags, token, units);
            }
            Op::Cancel(_) | Op::Yield => panic!("no operation of a program"),
        }
    }

    fn submit(&mut self, h: usize, op: Op, kind: Kind, flags: u8, token: u64, amount: u32) {
        let log: TinyLog<'_> = self.hosts[h].area.log();
        log.submit(&Hand, || true, kind, flags, 0, bytemuck::bytes_of(&SyncBody { token, amount, process: 1 }));
        self.issue(h, op, 0, token);
    }

    /// The newest records of the log are those of `op`.
    fn issue(&mut self, h: usize, op: Op, value: u8, token: u64) {
        let end = self.hosts[h].area.control.producer.tail.load(Relaxed);
        self.order.issued[h].push(Issued { end, op, value, token, found: None, place: None, told: None });
    }

    fn dispatch(&mut self, outputs: &[Output], payload: &[u8]) {
        for Output { to, body } in outputs {
            let (header, bytes) = match body {
                Body::Input(header, range) => (*header, payload[range.clone()].to_vec()),
                Body::Owned(header, bytes) => (*header, bytes.clone()),
                Body::Whole(bytes) => {
                    let (header, rest) = bytes.split_at(size_of::<FrameHeader>());
                    (bytemuck::pod_read_unaligned(header), rest.to_vec())
                }
            };
            // How far the order has come to whoever receives this.
            let tag = match header.kind {
                1 | 2 => {
                    let origin = self.hosts.iter().position(|host| host.number == header.origin).expect("a member");
                    let before = self.order.issued[origin].iter().rfind(|issued| issued.end <= header.to);
                    before.and_then(|issued| issued.place).unwrap_or(0)
                }
                3 => self.answer(header.origin, &bytemuck::pod_read_unaligned(&bytes)),
                // They are put out between batches; the others say nothing.
                4 | 5 if payload.is_empty() => self.order.states.len(),
                _ => 0,
            };
            for host in self.hosts.iter_mut().filter(|host| matches!(host.stage, Stage::Coming | Stage::Ready)) {
                let wanted = match to {
                    To::Host(number) => host.number == *number,
                    To::Others(number) => host.number != *number,
                };
                if wanted {
                    host.down.push_back((header, bytes.clone(), tag));
                }
            }
        }
    }

    /// The server answers: is it what there is to say, and at which place?
    fn answer(&mut self, host: u16, reply: &Reply) -> usize {
        let h = self.hosts.iter().position(|other| other.number == host).expect("a member");
        let issued = self.order.issued[h].iter().find(|issued| issued.told.is_some() && issued.token == reply.token);
        let told = issued.and_then(|issued| issued.told).expect("there is nothing to say to that one");
        let found = (reply.status, reply.old[0], reply.fence);
        assert_eq!(found, (told.status, told.value, told.fence), "what host {h} is told");
        self.replies += 1;
        told.place
    }

    /// What holds in every state.
    pub(crate) fn check(&self) -> Result<(), String> {
        let server = &self.sequencer.bytes(0)[(FROM - BASE) as usize..][..LEN];
        if server != self.order.bytes(self.order.states.len()) {
            return Err(format!("the sequencer has {server:?}"));
        }
        if self.sequencer.sync().0.value(0) != self.order.free {
            return Err("the sequencer has other units".into());
        }
        for (h, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.stage == Stage::Ready) {
            let mut expected = self.order.bytes(host.received);
            for issued in self.order.issued[h].iter().filter(|issued| issued.end > host.replica.acked()) {
                if issued.place.is_some_and(|place| place <= host.received) {
                    return Err(format!("host {h}: an own operation was received unacknowledged"));
                }
                if !matches!(issued.op, Op::Add(..)) || issued.found.is_some() {
                    perform(&mut expected, issued.op, issued.value);
                }
            }
            let found = host.bytes();
            if found != expected {
                return Err(format!("host {h} holds {found:?}, expected {expected:?}"));
            }
            let log: TinyLog<'_> = host.area.log();
            for (t, (_, doing)) in host.threads.iter().enumerate() {
                let Doing::Waiting(which, _) = doing else { continue };
                let Some(answer) = log.slots()[t].answer() else { continue };
                let told = self.order.issued[h][*which].told.ok_or("an answer to what is not in order")?;
                if told.place > host.received {
                    return Err(format!("host {h}: an answer has overtaken what was before it"));
                }
                if (answer.status, answer.value, answer.fence) != (told.status, u128::from(told.value), told.fence) {
                    return Err(format!("host {h}: the answer is {answer:?}, not {told:?}"));
                }
            }
        }
        Ok(())
    }

    /// What holds when nothing more can happen.
    pub(crate) fn check_end(&self, program: &Program) -> Result<(), String> {
        let last = self.order.states.len();
        if self.order.issued.iter().flatten().count() != last {
            return Err("an operation is not ordered".into());
        }
        for (h, host) in self.hosts.iter().enumerate() {
            for ((begun, doing), ops) in host.threads.iter().zip(&program.hosts[h]) {
                match doing {
                    Doing::Nothing if *begun == ops.len() => {}
                    // For what never comes.
                    Doing::Waiting(which, _) if self.order.issued[h][*which].told.is_none() => {}
                    _ => return Err(format!("host {h}: a thread hangs")),
                }
            }
            if host.stage == Stage::Ready && host.bytes() != self.order.bytes(last) {
                return Err(format!("host {h} differs from the order"));
            }
            let log: TinyLog<'_> = host.area.log();
            let alone = program.late && self.hosts[1].stage == Stage::Left;
            if h == 0 && log.leased() != alone {
                return Err(format!("leased: {}, alone: {alone}", log.leased()));
            }
        }
        Ok(())
    }

    /// What makes a state another one.
    pub(crate) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (host, issued) in self.hosts.iter().zip(&self.order.issued) {
            for Issued { end, op, value, found, place, .. } in issued {
                (end, op, value, found, place).hash(&mut hasher);
            }
            (&host.threads, host.replica.sent(), host.replica.acked(), host.received).hash(&mut hasher);
            (host.stage, host.leases, host.replica.unsettled(), host.bytes()).hash(&mut hasher);
            let log: TinyLog<'_> = host.area.log();
            log.leased().hash(&mut hasher);
            for slot in log.slots() {
                slot.answer().is_some().hash(&mut hasher);
            }
            for up in &host.up {
                let (from, to, bytes) = match up {
                    Up::Records(from, to, bytes) => (*from, *to, bytes.as_slice()),
                    Up::Open => (0, 0, [].as_slice()),
                };
                (from, to, bytes).hash(&mut hasher);
            }
            for (header, payload, tag) in &host.down {
                (bytemuck::bytes_of(header), payload, tag).hash(&mut hasher);
            }
            self.sequencer.has_snapshot(host.number).hash(&mut hasher);
        }
        self.order.states.hash(&mut hasher);
        hasher.finish()
    }
}

impl Host {
    fn bytes(&self) -> [u8; LEN] {
        let mut found = [0; LEN];
        self.memory.read(FROM, &mut found);
        found
    }
}

/// A store at the direct door, as `dsm` does it.
fn store(log: &TinyLog<'_>, memory: &Lines, offset: u64, bytes: &[u8]) {
    let done = match bytes {
        [a] => log.try_store_word(memory, &Hand, Door::Direct, offset, [*a]),
        [a, b, c, d] => log.try_store_word(memory, &Hand, Door::Direct, offset, [*a, *b, *c, *d]),
        _ => bytes.try_into().is_ok_and(|word: [u8; 8]| log.try_store_word(memory, &Hand, Door::Direct, offset, word)),
    };
    if !done {
        log.store_long(memory, &Hand, Door::Direct, offset, bytes);
    }
}

/// An atomic under the lease, as `dsm` does it.
fn leased(log: &TinyLog<'_>, memory: &Lines, offset: u64, op: &AtomicOp) -> Option<u128> {
    let aligned = offset.is_multiple_of(u64::from(op.width));
    let word = if aligned { log.try_atomic_word::<4>(memory, &Hand, offset, op) } else { None };
    word.or_else(|| log.atomic(memory, &Hand, offset, op))
}
