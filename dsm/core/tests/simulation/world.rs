//! The whole session: hosts, links, the sequencer behind its link ends, and the scheduler.

use crate::host::{Asked, Host, Seg, compare, transfer};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::threads::{OBJECTS, Process, SEMAPHORES, UNITS};
use dsm_core::limits::PAGE;
use dsm_core::segment::{OpenMode, OpenSegment, TypeDesc};
use dsm_core::sequencer::{Body, Output, Sequencer, To};
use dsm_core::wire::control::{OpenSync, Request, Response, SyncKind, parse};
use dsm_core::wire::{FrameHeader, FrameKind};
use std::collections::{BTreeSet, HashMap};

/// What the scheduler may do next.
#[derive(Clone, Copy)]
enum Event {
    Thread,
    Drain,
    Up,
    Down,
    Snapshot,
    Open,
    CleanUp,
    NewProcess,
    EndProcess,
    Join,
    Leave,
}

pub(crate) struct World<const RING: usize, const INDEX: usize> {
    rng: Rng,
    sequencer: Sequencer,
    oracle: Oracle,
    hosts: Vec<Host<RING, INDEX>>,
    /// What was asked for under which host's number and request, and not yet answered.
    syncs: HashMap<(u16, u64), (usize, OpenSync)>,
    /// Pages of every segment; its name is its number.
    sizes: Vec<u64>,
    space: usize,
    /// Percent of attempts of an arbiter at the lock that fail.
    busy: usize,
    /// Percent of hosts that only write, and much.
    bulky: usize,
    weights: Vec<(Event, usize)>,
    /// Operations taken, for the summary.
    pub(crate) steps: usize,
}

impl<const RING: usize, const INDEX: usize> World<RING, INDEX> {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let sizes: Vec<u64> = (0..1 + rng.below(3)).map(|_| 1 + rng.below(2) as u64).collect();
        let space = (PAGE * (1 + sizes.iter().map(|pages| pages + 1).sum::<u64>())) as usize;
        // Every seed prefers other things (swarm testing): some hardly deliver, in some much dies.
        // Some hosts do nothing but write, and send it in large frames.
        let bulky = *rng.pick(&[0, 0, 0, 70]);
        let mut weight = |most: usize| 1 + rng.below(most);
        let (threads, drains) = if bulky > 0 { (200, 6) } else { (80, 30) };
        let weights = vec![
            (Event::Thread, 40 + weight(threads)),
            (Event::Drain, 1 + weight(drains)),
            (Event::Up, 2 + weight(30)),
            (Event::Down, 2 + weight(40)),
            (Event::Snapshot, weight(12)),
            (Event::Open, weight(12)),
            (Event::CleanUp, weight(8)),
            (Event::NewProcess, weight(3)),
            (Event::EndProcess, weight(3) - 1),
            (Event::Join, weight(2)),
            (Event::Leave, weight(2) - 1),
        ];
        let mut world = Self {
            sequencer: Sequencer::new("simulation", 1),
            oracle: Oracle::new(space),
            hosts: Vec::new(),
            syncs: HashMap::new(),
            sizes,
            space,
            busy: *rng.pick(if bulky > 0 { &[10, 30, 50] } else { &[0, 0, 10, 50] }),
            bulky,
            weights,
            steps: 0,
            rng,
        };
        // A host alone has the lease of atomics, and loses it when another joins.
        for _ in 0..if world.rng.chance(30) { 1 } else { 2 + world.rng.below(3) } {
            world.join();
        }
        // Most histories begin where all have what they need, so that not all of them are about beginning.
        for _ in 0..if world.rng.chance(80) { 3 } else { 0 } {
            (0..world.hosts.len()).for_each(|h| world.exchange(h));
        }
        world
    }

    /// Delivers all that is on its way between a host and the server.
    fn exchange(&mut self, h: usize) {
        self.serve(h, usize::MAX);
        while self.sequencer.has_snapshot(self.hosts[h].number) {
            self.snapshot(h);
        }
        self.hosts[h].receive(usize::MAX, usize::MAX, 0, &mut self.rng, &mut self.oracle);
        self.hosts[h].settle(&mut self.oracle);
    }

    /// Runs to the end of the history, and checks it.
    pub(crate) fn run(&mut self) {
        for _ in 0..80 + self.rng.below(400) {
            self.step();
        }
        self.finish();
    }

    fn step(&mut self) {
        self.steps += 1;
        let total: usize = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.below(total);
        let chosen = self.weights.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.wrapping_sub(*weight);
            here
        });
        let event = chosen.expect("the weights add up").0;
        if matches!(event, Event::Join) && self.hosts.len() < 8 && self.rng.chance(60) {
            return self.join();
        }
        if self.hosts.is_empty() {
            return;
        }
        let h = self.rng.below(self.hosts.len());
        match event {
            // Bursts of those who only write fill frames that are applied in several pieces.
            Event::Thread => {
                for _ in 0..if self.hosts[h].bulky { 25 } else { 1 } {
                    self.thread(h, false);
                }
            }
            Event::Drain => self.hosts[h].drain(),
            Event::Up => {
                let count = *self.rng.pick(&[1, 31, 200, 100_000]);
                let _ = self.serve(h, count);
            }
            Event::Down if self.hosts[h].far && self.rng.chance(90) => {}
            Event::Down => {
                let (count, frames) = (*self.rng.pick(&[3, 100, 1000, 100_000]), 1 + self.rng.below(6));
                self.hosts[h].receive(count, frames, self.busy, &mut self.rng, &mut self.oracle);
                if self.rng.chance(70) {
                    self.hosts[h].settle(&mut self.oracle);
                }
            }
            Event::Snapshot => self.snapshot(h),
            Event::Open => self.open(h),
            Event::CleanUp => self.hosts[h].clean_up(&mut self.rng, &mut self.oracle),
            Event::NewProcess => self.new_process(h),
            Event::EndProcess => self.end_process(h),
            Event::Join => {}
            Event::Leave => self.end_host(h),
        }
        if let Some(host) = self.hosts.get(h)
            && matches!(event, Event::Thread | Event::Down | Event::CleanUp)
        {
            host.check(&self.oracle);
        }
    }

    fn thread(&mut self, h: usize, closing: bool) {
        let host = &mut self.hosts[h];
        if host.processes.is_empty() {
            return;
        }
        let p = self.rng.below(host.processes.len());
        let t = self.rng.below(host.processes[p].threads.len());
        host.step(p, t, closing, &mut self.rng, &mut self.oracle);
    }

    fn join(&mut self) {
        let Some(number) = self.sequencer.join() else { return };
        let uid = self.oracle.join();
        assert!(self.hosts.iter().all(|host| host.number != number), "two hosts have number {number}");
        let mut host = Host::new(uid, number, self.space, self.sizes.len());
        host.bulky = self.rng.chance(self.bulky);
        host.far = self.rng.chance(20);
        self.hosts.push(host);
        let mut outputs = Vec::new();
        self.sequencer.settle_lease(&mut outputs);
        self.dispatch(outputs, &[]);
        let h = self.hosts.len() - 1;
        self.new_process(h);
        for _ in 0..self.sizes.len() {
            self.open(h);
        }
    }

    fn new_process(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        if host.processes.len() >= 4 {
            return;
        }
        let taken: BTreeSet<u32> =
            host.processes.iter().map(|p| p.number).chain(host.departed.iter().map(|(number, _)| *number)).collect();
        let number = (1..).find(|number| !taken.contains(number)).expect("numbers do not end");
        // What was asked for on behalf of a former process of this number is not for this one.
        for asked in host.requests.values_mut() {
            if let Asked::Sync { process, .. } = asked
                && *process == number
            {
                *process = u32::MAX;
            }
        }
        host.processes.push(Process::new(number, 1 + self.rng.below(3)));
        for object in 0..OBJECTS {
            let kind = match object < SEMAPHORES {
                true => SyncKind::Semaphore(UNITS),
                false => SyncKind::Barrier(object as u32),
            };
            let sync = OpenSync { name: format!("object{object}"), kind, process: number };
            host.ask(&Request::Sync(sync), Some(Asked::Sync { process: number, object }));
        }
    }

    fn end_process(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        if !host.processes.is_empty() {
            let (p, died) = (self.rng.below(host.processes.len()), self.rng.chance(60));
            host.remove(p, died);
        }
    }

    /// A host dies, with what is on its way: the server still reads a part of it. Or it leaves and says so.
    fn end_host(&mut self, h: usize) {
        if self.rng.chance(70) {
            let host = &mut self.hosts[h];
            let left = self.rng.below(host.up.len() + 1);
            host.up.truncate(left);
            host.cut = true;
            while !self.serve(h, 1 + left) {}
            return;
        }
        self.remove_host(h, false);
    }

    fn remove_host(&mut self, h: usize, died: bool) {
        let host = self.hosts.remove(h);
        let mut outputs = Vec::new();
        self.sequencer.leave(host.number, died, &mut outputs);
        self.oracle.leave(host.uid, died);
        self.dispatch(outputs, &[]);
        self.check_server();
    }

    fn open(&mut self, h: usize) {
        let at = self.rng.below(self.sizes.len());
        let host = &mut self.hosts[h];
        if host.segments[at] != Seg::Unknown {
            return;
        }
        host.segments[at] = Seg::Requested;
        let ty = TypeDesc { name: "Bytes".into(), size: 1, fingerprint: at as u64, fields: Vec::new() };
        // The same for all hosts: who asks for more than there is has to grow it.
        let len = self.sizes[at] * PAGE - (at as u64 * 3) % 9;
        let open = OpenSegment { name: format!("segment{at}"), len, ty, mode: OpenMode::OpenOrCreate, room: 0 };
        host.ask(&Request::Open(open), Some(Asked::Open(at)));
    }

    fn snapshot(&mut self, h: usize) {
        let mut outputs = Vec::new();
        self.sequencer.snapshot(self.hosts[h].number, &mut outputs);
        self.dispatch(outputs, &[]);
    }

    /// The server reads up to `count` bytes of what a host sent. Returns whether it has found it gone.
    fn serve(&mut self, h: usize, count: usize) -> bool {
        let host = &mut self.hosts[h];
        let (number, uid) = (host.number, host.uid);
        transfer(&mut host.up, &mut host.up_reader, count);
        while let Some(frame) = self.hosts[h].up_reader.next().expect("hosts send frames") {
            let (header, payload) = (frame.header, frame.payload.to_vec());
            let mut outputs = Vec::new();
            match frame.kind {
                FrameKind::Records => {
                    let result = self.sequencer.records(number, header.from, header.to, &payload, &mut outputs);
                    result.unwrap_or_else(|why| panic!("host {uid}: {why}"));
                    self.oracle.order(uid, header.to);
                }
                FrameKind::Control => {
                    let request: Request = parse(&payload).expect("hosts ask for what makes sense");
                    if let Request::Sync(sync) = &request {
                        self.syncs.insert((number, header.from), (uid, sync.clone()));
                    }
                    self.sequencer.request(number, header.from, request, u64::MAX, &mut outputs);
                }
                kind => panic!("hosts send no {kind:?}"),
            }
            self.dispatch(outputs, &payload);
            self.check_server();
        }
        let host = &self.hosts[h];
        let gone = host.cut && host.up.is_empty();
        if gone {
            self.remove_host(h, true);
        }
        gone
    }

    /// Tells the reference which number an object has got, when that is what the server says.
    fn opened(&mut self, host: u16, id: u64, payload: &[u8]) {
        let Ok(response) = parse::<Response>(payload) else { panic!("a response") };
        let Some((uid, sync)) = self.syncs.remove(&(host, id)) else { return };
        match (response, sync.kind) {
            (Response::Sync(object), SyncKind::Semaphore(value)) => self.oracle.open_semaphore(object as usize, value),
            (Response::Sync(object), SyncKind::Barrier(parties)) => {
                self.oracle.open_barrier(object as usize, parties as usize, (uid, sync.process));
            }
            _ => {}
        }
    }

    /// Puts frames on the links to the hosts, each with the length of the journal that its receiver then knows.
    fn dispatch(&mut self, outputs: Vec<Output>, payload: &[u8]) {
        for Output { to, body } in outputs {
            if let (To::Host(host), Body::Whole(bytes)) = (to, &body) {
                let (header, payload) = bytes.split_at(size_of::<FrameHeader>());
                self.opened(host, bytemuck::pod_read_unaligned::<FrameHeader>(header).from, payload);
            }
            let (header, bytes): (FrameHeader, &[u8]) = match &body {
                Body::Input(header, range) => (*header, &payload[range.clone()]),
                Body::Owned(header, bytes) => (*header, bytes),
                Body::Whole(bytes) => {
                    let (header, rest) = bytes.split_at(size_of::<FrameHeader>());
                    (bytemuck::pod_read_unaligned(header), rest)
                }
            };
            let origin = self.hosts.iter().find(|host| host.number == header.origin).map(|host| host.uid);
            let tag = match header.kind {
                1..=3 => self.oracle.place(origin.expect("frames about members"), header.to),
                // It may lie in the middle of a batch; it says nothing of how far its receiver is.
                7 => 0,
                _ => self.oracle.journal.len(),
            };
            for host in &mut self.hosts {
                let wanted = match to {
                    To::Host(number) => host.number == number,
                    To::Others(number) => host.number != number,
                };
                if wanted {
                    host.down.extend(bytemuck::bytes_of(&header));
                    host.down.extend(bytes);
                    host.tags.push_back(tag);
                }
            }
        }
    }

    /// The sequencer's own state agrees with the reference.
    fn check_server(&self) {
        let (semaphores, barriers) = self.sequencer.sync();
        semaphores.check().and_then(|()| barriers.check()).unwrap_or_else(|broken| panic!("{broken}"));
        for (id, (value, held)) in self.oracle.units().enumerate() {
            let found = (semaphores.value(id as u32), semaphores.held(id as u32));
            assert_eq!(found, (value, held), "semaphore {id}: free and held units");
            assert_eq!(value + held, UNITS, "semaphore {id}: units are lost or doubled");
        }
    }

    /// Ends everything that goes on, delivers what is on its way, and compares.
    fn finish(&mut self) {
        self.busy = 0;
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 400, "it does not come to an end: {}", self.unfinished());
            for h in 0..self.hosts.len() {
                while !self.hosts[h].departed.is_empty() && rounds % 4 == 0 {
                    let before = self.hosts[h].departed.len();
                    self.hosts[h].clean_up(&mut self.rng, &mut self.oracle);
                    if self.hosts[h].departed.len() == before {
                        break;
                    }
                }
                for p in (0..self.hosts[h].processes.len()).rev() {
                    for t in 0..self.hosts[h].processes[p].threads.len() {
                        if p < self.hosts[h].processes.len() && t < self.hosts[h].processes[p].threads.len() {
                            self.hosts[h].step(p, t, true, &mut self.rng, &mut self.oracle);
                        }
                    }
                }
                self.hosts[h].drain();
                self.exchange(h);
                self.hosts[h].check(&self.oracle);
            }
            if self.unfinished().is_empty() {
                break;
            }
        }
        self.compare();
    }

    fn unfinished(&self) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            let threads = host.processes.iter().any(Process::busy);
            let loading = host.segments.iter().any(|s| matches!(s, Seg::Loading { .. } | Seg::Requested));
            let log = host.replica.acked() != host.tail();
            let links = !host.idle() || !host.up.is_empty();
            if threads || loading || log || links || !host.departed.is_empty() {
                let uid = host.uid;
                text += &format!("host {uid}: threads {threads} loading {loading} log {log} links {links}; ");
            }
        }
        text
    }

    fn compare(&self) {
        for host in &self.hosts {
            let ops = &self.oracle.hosts[host.uid];
            assert_eq!(ops.ordered, ops.ops.len(), "host {}: every operation is ordered once", host.uid);
            let found = host.memory.to_vec();
            for segment in &host.segments {
                if let Seg::Ready { id, offset, len } = *segment {
                    let what = format!("the end: host {}, segment {id}", host.uid);
                    compare(&found, &self.oracle.bytes, offset, len, &what);
                    let ours = &self.oracle.bytes[offset as usize..][..len as usize];
                    assert_eq!(self.sequencer.bytes(id), ours, "{what}: the sequencer's bytes");
                }
            }
            // Answers that nobody took belong to the dead, or to fences that were abandoned.
            assert_eq!(host.claimed(), [], "host {}: slots that nobody gave back", host.uid);
            let here = self.oracle.answers.iter().filter(|((uid, _), _)| *uid == host.uid);
            for ((_, token), expected) in here {
                assert!(expected.arrived, "host {}: the answer to {token:#x} is lost", host.uid);
            }
        }
    }
}
