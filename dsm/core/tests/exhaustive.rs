//! Every interleaving of small programs, run by the real log, replica and sequencer.
//!
//! Two hosts with two operations each, on bytes that overlap around the end of a line. From every state that can be
//! reached every event that can happen is tried: a thread's next operation, draining a log, ordering a batch,
//! delivering a frame. States are reached again by repeating the events that led to them. In every state, for every
//! host: replica = the prefix of the total order that it has received, overlaid with its own pending stores in their
//! order; at the end all replicas equal the sequencer's bytes, and the old values of atomics agree with the order.
//!
//! There are 1505 programs, which take half a minute. `DSM_EVERY=n` runs every nth.
#![cfg(not(loom))]

use dsm_core::limits::PAGE;
use dsm_core::lock::ARBITER;
use dsm_core::log::{Area, Door, HostLog, Writer};
use dsm_core::memory::{Cells, Memory};
use dsm_core::op::{AtomicOp, Rmw};
use dsm_core::record::{AtomicBody, Kind};
use dsm_core::replica::{Progress, Replica};
use dsm_core::segment::{OpenMode, OpenSegment, TypeDesc};
use dsm_core::sequencer::{Body, Output, Sequencer, To};
use dsm_core::sync::Ordering::Relaxed;
use dsm_core::wire::control::Request;
use dsm_core::wire::{Frame, FrameHeader, FrameKind};
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

type Tiny = Area<64, 8, 2, 4>;
type TinyLog<'a> = HostLog<'a, 64, 8, 2, 4>;

/// Where the segment is: the first of a session.
const BASE: u64 = PAGE;
/// The bytes that programs touch: the last of one line, the first of the next.
const FROM: u64 = BASE + 56;
const LEN: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Op {
    /// Bytes at a distance from `FROM`.
    Store(u64, usize),
    /// Two lines, of which the bytes at these distances changed.
    Bulk(&'static [u64]),
    /// A locked add to a word of this width.
    Add(u64, u8),
}

/// What programs are made of: within a word, a line, across the line's end; nested, overlapping and apart.
const OPS: [Op; 7] = [
    Op::Store(4, 4),
    Op::Store(6, 1),
    Op::Store(0, 8),
    Op::Store(5, 6),
    Op::Bulk(&[4, 7, 8, 9]),
    Op::Add(4, 4),
    Op::Add(7, 2),
];

/// Hosts -> threads -> operations.
type Program = [Vec<Vec<Op>>; 2];

#[derive(Clone, Copy, Debug)]
enum Event {
    Thread(usize),
    Drain,
    Serve,
    Deliver,
}

/// An operation in a log: where its record ends, what it writes, its place in the order.
struct Issued {
    end: u64,
    op: Op,
    value: u8,
    place: Option<usize>,
}

struct Host {
    number: u16,
    area: Box<Tiny>,
    memory: Cells,
    replica: Replica,
    /// Per thread: operations begun, and the token and operation that it waits for.
    threads: Vec<(usize, Option<(u64, usize)>)>,
    issued: Vec<Issued>,
    ordered: usize,
    up: VecDeque<(u64, u64, Vec<u8>)>,
    down: VecDeque<(FrameHeader, Vec<u8>, usize)>,
    received: usize,
}

struct World {
    sequencer: Sequencer,
    hosts: [Host; 2],
    /// The order: the bytes after each operation, and the old value where it has one.
    order: Vec<([u8; LEN], u64)>,
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

/// What `op` makes of the bytes; the old value where it has one.
fn perform(bytes: &mut [u8; LEN], op: Op, value: u8) -> u64 {
    match op {
        Op::Store(at, len) => bytes[at as usize..][..len].fill(value),
        Op::Bulk(changed) => changed.iter().for_each(|at| bytes[*at as usize] = value),
        Op::Add(at, width) => {
            let place = &mut bytes[at as usize..][..usize::from(width)];
            let mut wide = [0; 8];
            wide[..place.len()].copy_from_slice(place);
            let old = u64::from_le_bytes(wide);
            let new = old.wrapping_add(u64::from(value)).to_le_bytes();
            place.copy_from_slice(&new[..place.len()]);
            return old;
        }
    }
    0
}

impl World {
    fn new(program: &Program) -> Self {
        let mut sequencer = Sequencer::new("all", 1);
        let hosts = [0, 1].map(|at: usize| {
            let number = sequencer.join().expect("there is room");
            let ty = TypeDesc { name: "Bytes".into(), size: 1, fingerprint: 1, fields: Vec::new() };
            let open = OpenSegment { name: "bytes".into(), len: PAGE, ty, mode: OpenMode::OpenOrCreate, room: 0 };
            let mut outputs = Vec::new();
            sequencer.request(number, 1, Request::Open(open), u64::MAX, &mut outputs);
            while sequencer.snapshot(number, &mut outputs) {}
            let mut replica = Replica::new();
            replica.attach(BASE, PAGE);
            Host {
                number,
                area: Tiny::boxed(number),
                memory: Cells::zeroed((BASE + PAGE) as usize),
                replica,
                threads: vec![(0, None); program[at].len()],
                issued: Vec::new(),
                ordered: 0,
                up: VecDeque::new(),
                down: VecDeque::new(),
                received: 0,
            }
        });
        Self { sequencer, hosts, order: Vec::new() }
    }

    /// What can happen now.
    fn possible(&self, program: &Program) -> Vec<(usize, Event)> {
        let mut events = Vec::new();
        for (h, host) in self.hosts.iter().enumerate() {
            let log: TinyLog<'_> = host.area.log();
            for (t, (begun, waits)) in host.threads.iter().enumerate() {
                let answered = waits.is_some_and(|(token, _)| log.slots()[token as usize & 0xffff].answer().is_some());
                if answered || waits.is_none() && *begun < program[h][t].len() {
                    events.push((h, Event::Thread(t)));
                }
            }
            if log.has_news(host.replica.sent()) {
                events.push((h, Event::Drain));
            }
            if !host.up.is_empty() {
                events.push((h, Event::Serve));
            }
            if !host.down.is_empty() {
                events.push((h, Event::Deliver));
            }
        }
        events
    }

    fn happen(&mut self, program: &Program, (h, event): (usize, Event)) {
        match event {
            Event::Thread(t) => self.thread(program, h, t),
            Event::Drain => {
                let Host { area, replica, up, .. } = &mut self.hosts[h];
                let mut bytes = Vec::new();
                let (from, to) = replica.drain(&area.log(), &mut bytes).expect("it makes sense").expect("news");
                up.push_back((from, to, bytes));
            }
            Event::Serve => {
                let (from, to, bytes) = self.hosts[h].up.pop_front().expect("a batch");
                let mut outputs = Vec::new();
                let number = self.hosts[h].number;
                self.sequencer.records(number, from, to, &bytes, &mut outputs).expect("a batch that makes sense");
                self.take(h, to);
                self.dispatch(&outputs, &bytes);
            }
            Event::Deliver => {
                let Host { area, memory, replica, down, received, .. } = &mut self.hosts[h];
                let (header, payload, tag) = down.pop_front().expect("a frame");
                let kind = match header.kind {
                    1 => FrameKind::Records,
                    2 => FrameKind::Ack,
                    _ => FrameKind::Reply,
                };
                let (log, frame): (TinyLog<'_>, _) = (area.log(), Frame { kind, header, payload: &payload });
                let progress = replica.apply(&log, memory, &frame, || log.lock().try_acquire(ARBITER));
                assert_eq!(progress, Ok(Progress::Done));
                *received = tag.max(*received);
            }
        }
    }

    fn thread(&mut self, program: &Program, h: usize, t: usize) {
        let Host { area, memory, threads, issued, .. } = &mut self.hosts[h];
        let log: TinyLog<'_> = area.log();
        let (begun, waits) = &mut threads[t];
        if let Some((token, which)) = waits.take() {
            let slot = &log.slots()[token as usize & 0xffff];
            let answer = slot.answer().expect("it was there");
            slot.free(token, 1);
            let place = issued[which].place.expect("answered, so ordered");
            assert_eq!(answer.value, u128::from(self.order[place - 1].1), "the old value");
            return;
        }
        let op = program[h][t][*begun];
        *begun += 1;
        // Never twice the same byte.
        let value = (h * 100 + t * 10 + *begun) as u8;
        match op {
            Op::Store(at, len) => log.store_long(memory, &Hand, Door::Direct, FROM + at, &vec![value; len]),
            Op::Bulk(changed) => {
                let (mut masks, mut lines) = ([0u64; 2], [[0u8; 64]; 2]);
                for at in changed {
                    let at = (FROM - BASE + at) as usize;
                    masks[at / 64] |= 1 << (at % 64);
                    lines[at / 64][at % 64] = value;
                }
                log.publish(memory, &Hand, BASE, &masks, &lines);
            }
            Op::Add(at, width) => {
                let token = log.slots()[t].claim(t as u16, 1).expect("a slot a thread");
                let body = AtomicBody::new(token, AtomicOp::new(Rmw::Add, width, u128::from(value)));
                log.submit(&Hand, Kind::Atomic, 0, FROM + at, bytemuck::bytes_of(&body));
                *waits = Some((token, issued.len()));
            }
        }
        let end = area.control.producer.tail.load(Relaxed);
        issued.push(Issued { end, op, value, place: None });
    }

    /// The records of a host up to `to` are in order now.
    fn take(&mut self, h: usize, to: u64) {
        let Host { issued, ordered, .. } = &mut self.hosts[h];
        while let Some(next) = issued.get_mut(*ordered)
            && next.end <= to
        {
            let mut bytes = self.order.last().map_or([0; LEN], |(bytes, _)| *bytes);
            let old = perform(&mut bytes, next.op, next.value);
            self.order.push((bytes, old));
            next.place = Some(self.order.len());
            *ordered += 1;
        }
    }

    fn dispatch(&mut self, outputs: &[Output], payload: &[u8]) {
        for Output { to, body } in outputs {
            let (header, bytes) = match body {
                Body::Input(header, range) => (*header, payload[range.clone()].to_vec()),
                Body::Owned(header, bytes) => (*header, bytes.clone()),
                Body::Whole(_) => panic!("nobody asked for anything"),
            };
            let origin = self.hosts.iter().find(|host| host.number == header.origin).expect("a member");
            let before = origin.issued.iter().rfind(|issued| issued.end <= header.to);
            let tag = before.and_then(|issued| issued.place).unwrap_or(0);
            for host in &mut self.hosts {
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

    fn bytes(&self, received: usize) -> [u8; LEN] {
        received.checked_sub(1).map_or([0; LEN], |last| self.order[last].0)
    }

    fn check(&self) -> Result<(), String> {
        let server = &self.sequencer.bytes(0)[(FROM - BASE) as usize..][..LEN];
        if server != self.bytes(self.order.len()) {
            return Err(format!("the sequencer has {server:?}"));
        }
        for host in &self.hosts {
            let mut expected = self.bytes(host.received);
            for issued in host.issued.iter().filter(|issued| issued.end > host.replica.acked()) {
                if issued.place.is_some_and(|place| place <= host.received) {
                    return Err(format!("host {}: an own operation was received unacknowledged", host.number));
                }
                if !matches!(issued.op, Op::Add(..)) {
                    perform(&mut expected, issued.op, issued.value);
                }
            }
            let mut found = [0; LEN];
            host.memory.read(FROM, &mut found);
            if found != expected {
                return Err(format!("host {} holds {found:?}, expected {expected:?}", host.number));
            }
        }
        Ok(())
    }

    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for host in &self.hosts {
            let issued: Vec<_> = host.issued.iter().map(|issued| (issued.end, issued.value, issued.place)).collect();
            (issued, &host.threads, host.replica.sent(), host.replica.acked(), host.received).hash(&mut hasher);
            let mut found = [0; LEN];
            host.memory.read(FROM, &mut found);
            let log: TinyLog<'_> = host.area.log();
            let answered: Vec<bool> = log.slots().iter().map(|slot| slot.answer().is_some()).collect();
            (found, answered, &host.up).hash(&mut hasher);
            for (header, payload, tag) in &host.down {
                (bytemuck::bytes_of(header), payload, tag).hash(&mut hasher);
            }
        }
        self.order.hash(&mut hasher);
        hasher.finish()
    }
}

/// All states that `program` can reach. Returns how many there are.
fn explore(program: &Program) -> usize {
    let reach = |events: &[(usize, Event)]| {
        let mut world = World::new(program);
        events.iter().for_each(|event| world.happen(program, *event));
        world
    };
    let (mut seen, mut todo, mut ends) = (HashSet::new(), vec![Vec::new()], 0);
    let mut here: Option<(Vec<(usize, Event)>, World)> = None;
    // Goes on from where it is as long as there is something new, so that few states have to be reached again.
    while let Some((mut events, mut world)) = here.take().or_else(|| todo.pop().map(|e| (e.clone(), reach(&e)))) {
        if !seen.insert(world.key()) {
            continue;
        }
        if let Err(broken) = world.check() {
            panic!("{broken}, in {program:?} after {events:?}");
        }
        let possible = world.possible(program);
        if possible.is_empty() {
            ends += 1;
            let begun = world.hosts.iter().flat_map(|host| &host.issued).count();
            assert_eq!(world.order.len(), begun, "every operation is ordered once");
            let all = world.hosts.iter().all(|host| host.received == begun);
            assert!(all && begun == 4, "{program:?} ends early after {events:?}");
            for host in &world.hosts {
                let mut found = [0; LEN];
                host.memory.read(FROM, &mut found);
                assert_eq!(found, world.bytes(begun), "{program:?}: replicas differ after {events:?}");
            }
        }
        if let Some((first, others)) = possible.split_first() {
            todo.extend(others.iter().map(|event| events.iter().copied().chain([*event]).collect()));
            events.push(*first);
            world.happen(program, *first);
            here = Some((events, world));
        }
    }
    assert!(ends > 0, "{program:?} never ends");
    seen.len()
}

#[test]
fn every_interleaving_of_small_programs_keeps_the_rules() {
    let pairs: Vec<[Op; 2]> = OPS.iter().flat_map(|a| OPS.iter().map(|b| [*a, *b])).collect();
    let mut programs: Vec<Program> = Vec::new();
    for (at, left) in pairs.iter().enumerate() {
        // The hosts are alike: half of the pairs of pairs are enough.
        for right in &pairs[at..] {
            let touching = left.iter().any(|op| right.contains(op)) || programs.len().is_multiple_of(3);
            let threaded = left.iter().any(|op| matches!(op, Op::Add(..))) && touching;
            if threaded {
                programs.push([left.iter().map(|op| vec![*op]).collect(), vec![right.to_vec()]]);
            }
            programs.push([vec![left.to_vec()], vec![right.to_vec()]]);
        }
    }
    let every = std::env::var("DSM_EVERY").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let programs: Vec<_> = programs.into_iter().step_by(every).collect();
    let (next, states) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(program) = programs.get(next.fetch_add(1, SeqCst)) {
                    states.fetch_add(explore(program), SeqCst);
                }
            });
        }
    });
    println!("{} programs, {} states", programs.len(), states.into_inner());
}
