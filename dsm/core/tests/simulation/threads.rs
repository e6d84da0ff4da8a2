//! What the threads of a host do: one operation at a time, at the moment that the scheduler chooses.

use crate::host::{Death, Fuse, Hand, Host, INDEX_AT, PAGES, SEATS, SLOTS_AT, Seg, Torn, raw};
use crate::oracle::{self, Op, Oracle};
use crate::rng::Rng;
use dsm_core::bias::Favour;
use dsm_core::log::Door;
use dsm_core::memory::Memory;
use dsm_core::op::{AtomicOp, Rmw};
use dsm_core::record::{AtomicBody, BARRIER, Kind, STILL_DIRTY, SyncBody, TRY};
use dsm_core::sync::Ordering::Relaxed;
use dsm_core::wire::status;
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Atomics that were carried out under the lease, in all histories.
pub(crate) static LEASED: AtomicU64 = AtomicU64::new(0);

/// Semaphores come first among the objects, then barriers.
pub(crate) const SEMAPHORES: usize = 2;
pub(crate) const OBJECTS: usize = 4;
/// Units of every semaphore at first.
pub(crate) const UNITS: u32 = 3;

/// A semaphore or barrier that a process has opened.
#[derive(Clone, Copy)]
pub(crate) struct Object {
    pub(crate) id: u32,
}

pub(crate) struct Process {
    pub(crate) number: u32,
    pub(crate) objects: [Option<Object>; OBJECTS],
    pub(crate) threads: Vec<Thread>,
}

#[derive(Default)]
pub(crate) struct Thread {
    favour: Rc<Favour>,
    state: State,
    /// Units held: object, units, and whether a former owner had died.
    held: Vec<(usize, u32, bool)>,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Waiting(Wait),
    Hole(Hole),
}

struct Wait {
    token: u64,
    slot: usize,
    what: What,
    /// Answered without waiting.
    tries: bool,
    cancelled: bool,
}

#[derive(Clone, Copy)]
enum What {
    Atomic,
    Fence { end: u64 },
    Acquire { object: usize, units: u32 },
    Arrive { object: usize },
}

/// The offset of lines of one page, the masks of their bytes that changed, and the lines.
type Run = (u64, Vec<u64>, Vec<[u8; 64]>);

struct Hole {
    offset: u64,
    twin: Vec<u8>,
    work: Vec<u8>,
    /// Once it is being filled: what is still to be published.
    runs: Option<VecDeque<Run>>,
}

impl Process {
    pub(crate) fn new(number: u32, threads: usize) -> Self {
        let thread = |at: u32| {
            // Some are favoured at once, some when they have had the lock a few times in a row.
            let favour = Favour::with_patience(at % 3);
            favour.reset((number << 8) + at + 1, number);
            Thread { favour: Rc::new(favour), ..Thread::default() }
        };
        Self { number, objects: [None; OBJECTS], threads: (0..threads as u32).map(thread).collect() }
    }

    /// Does any of its threads still do something?
    pub(crate) fn busy(&self) -> bool {
        self.threads.iter().any(|thread| !matches!(thread.state, State::Idle) || !thread.held.is_empty())
    }
}

/// How far a store gets before its process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The record is being written beyond the tail.
    Record,
    /// The intent is there, nothing else.
    Intent,
    /// The record is indexed, some of the bytes are stored.
    Bytes,
    /// All but the tail.
    Tail,
    /// All but the release of the lock.
    Release,
}

impl<const RING: usize, const INDEX: usize> Host<RING, INDEX> {
    /// Lets thread `t` of process `p` do its next step. `closing`: it ends what it does and begins nothing.
    pub(crate) fn step(&mut self, p: usize, t: usize, closing: bool, rng: &mut Rng, oracle: &mut Oracle) {
        if self.torn.is_some() {
            // The thread would wait for the lock until the dead are cleaned up after.
            return;
        }
        match std::mem::take(&mut self.processes[p].threads[t].state) {
            State::Idle => self.begin(p, t, closing, rng, oracle),
            State::Waiting(wait) => self.wait(p, t, wait, closing, rng, oracle),
            State::Hole(hole) => self.hole(p, t, hole, rng, oracle),
        }
    }

    fn begin(&mut self, p: usize, t: usize, closing: bool, rng: &mut Rng, oracle: &mut Oracle) {
        let thread = &self.processes[p].threads[t];
        if !thread.held.is_empty() && (closing || rng.chance(40)) {
            return self.give_back(p, t, rng, oracle);
        }
        if closing {
            return;
        }
        // Histories of one host are short, and atomics are what is different in them.
        if self.area.log().leased() && rng.chance(50) {
            return self.atomic(p, t, rng, oracle);
        }
        match rng.below(if self.bulky { 13 } else { 20 }) {
            0..9 => self.store(p, t, false, rng, oracle),
            9 | 10 => self.store(p, t, true, rng, oracle),
            11 | 12 => self.open_hole(p, t, rng),
            13..16 => self.atomic(p, t, rng, oracle),
            16 => self.submit(p, t, What::Fence { end: 0 }, 0, 0, oracle),
            17 | 18 => {
                let (object, units) = (rng.below(SEMAPHORES), 1 + rng.below(UNITS as usize) as u32);
                let flags = if rng.chance(40) { TRY } else { 0 };
                self.submit(p, t, What::Acquire { object, units }, flags, units, oracle);
            }
            _ => {
                let object = SEMAPHORES + rng.below(OBJECTS - SEMAPHORES);
                self.submit(p, t, What::Arrive { object }, 0, 0, oracle);
            }
        }
    }

    /// Where something of `len` bytes goes: mostly where others go too, within one line if `line`.
    fn place(&self, len: u64, line: bool, rng: &mut Rng) -> Option<u64> {
        let ready: Vec<_> = self.segments.iter().filter(|segment| matches!(segment, Seg::Ready { .. })).collect();
        if ready.is_empty() {
            return None;
        }
        let Seg::Ready { offset, len: size, .. } = **rng.pick(&ready) else { return None };
        let around = *rng.pick(&[0, 0, 56, 4096 - 24, size - 40, 1024]) + rng.below(32) as u64;
        let mut at = if rng.chance(85) { around } else { rng.below(size as usize) as u64 };
        at = at.min(size - len);
        if line && at % 64 + len > 64 {
            at -= (at % 64 + len) - 64;
        }
        Some(offset + at)
    }

    fn store(&mut self, p: usize, t: usize, long: bool, rng: &mut Rng, oracle: &mut Oracle) {
        let len = match (long, rng.chance(50)) {
            (true, _) => 1 + rng.below(if RING < 256 { 150 } else { 400 }),
            (false, true) => 1 << rng.below(5),
            (false, false) => 1 + rng.below(64),
        };
        let Some(mut offset) = self.place(len as u64, !long, rng) else { return };
        if !long && len.is_power_of_two() && rng.chance(70) {
            offset -= offset % len as u64;
        }
        let bytes = rng.bytes(len);
        // The pieces, by hand: at most one line each.
        let (mut pieces, mut at, mut end) = (Vec::new(), 0, self.tail());
        while at < len {
            let count = (64 - (offset as usize + at) % 64).min(len - at);
            end += 2 + count.div_ceil(8) as u64;
            pieces.push((end, Op::Write(vec![(offset + at as u64, bytes[at..at + count].to_vec())])));
            at += count;
        }
        if !self.room((end - self.tail()) as usize) {
            return;
        }
        let dies = rng.chance(2);
        let last = pieces.len() - 1;
        let (step, piece) = if long {
            (*rng.pick(&[Step::Bytes, Step::Tail, Step::Release]), rng.below(pieces.len()))
        } else {
            (*rng.pick(&[Step::Record, Step::Intent, Step::Bytes, Step::Tail, Step::Release]), 0)
        };
        let door = if rng.chance(50) { Door::Direct } else { Door::Trap };
        let (log, hand) = (self.area.log(), self.hand(p, t));
        let quick = rng.chance(70);
        let put = |memory: &Fuse<'_>| {
            let word = |len: u64| bytes.len() as u64 == len && offset.is_multiple_of(len) && quick;
            // The way of most stores, where nothing has to be waited for.
            let done = !long
                && match *bytes.as_slice() {
                    [a] if word(1) => log.try_store_word(memory, &hand, door, offset, [a]),
                    [a, b] if word(2) => log.try_store_word(memory, &hand, door, offset, [a, b]),
                    [a, b, c, d] if word(4) => log.try_store_word(memory, &hand, door, offset, [a, b, c, d]),
                    [a, b, c, d, e, f, g, h] if word(8) => {
                        log.try_store_word(memory, &hand, door, offset, [a, b, c, d, e, f, g, h])
                    }
                    _ => false,
                };
            if done {
            } else if long {
                log.store_long(memory, &hand, door, offset, &bytes);
            } else {
                log.store(memory, &hand, door, offset, &bytes);
            }
        };
        if !dies || step == Step::Release {
            put(&Fuse { cells: &self.memory, left: Cell::new(usize::MAX), partial: 0 });
            pieces.into_iter().for_each(|(end, op)| oracle.issue(self.uid, end, op));
            if dies {
                self.die_with_lock(p, None);
            }
            return;
        }
        let torn = self.interrupt(step, piece, rng, put);
        let op = pieces[piece.min(last)].clone();
        pieces.truncate(piece);
        pieces.into_iter().for_each(|(end, op)| oracle.issue(self.uid, end, op));
        self.die_with_lock(p, torn.then_some(op));
    }

    /// Runs `put` up to `step` of its n-th write. Returns whether it has got so far that it must happen.
    fn interrupt(&self, step: Step, write: usize, rng: &mut Rng, put: impl FnOnce(&Fuse<'_>)) -> bool {
        let words = raw(&self.area);
        let index = &words[INDEX_AT..INDEX_AT + 2 * INDEX + PAGES];
        let before: Vec<u64> = index.iter().map(|word| word.load(Relaxed)).collect();
        let intent = &self.area.control.producer.intent;
        let intended = intent.load(Relaxed);
        let early = matches!(step, Step::Record | Step::Intent);
        let partial = match step {
            Step::Record | Step::Intent => 0,
            Step::Bytes => rng.below(64),
            Step::Tail | Step::Release => usize::MAX,
        };
        let left = Cell::new(if early { 0 } else { write });
        let result = catch_unwind(AssertUnwindSafe(|| put(&Fuse { cells: &self.memory, left, partial })));
        match result {
            Err(payload) if payload.is::<Death>() => {}
            Err(payload) => resume_unwind(payload),
            Ok(()) => panic!("the operation wrote less than expected"),
        }
        // Nothing was stored yet; take back what comes after the step.
        if early {
            index.iter().zip(before).for_each(|(word, before)| word.store(before, Relaxed));
        }
        if step == Step::Record {
            intent.store(intended, Relaxed);
            let ring = &words[INDEX_AT + 2 * INDEX + PAGES..];
            let tail = self.tail() as usize;
            for at in 0..rng.below(4) {
                if self.room(at + 1) {
                    ring[(tail + at) & (RING - 1)].store(rng.next(), Relaxed);
                }
            }
        }
        step != Step::Record
    }

    fn hand(&self, p: usize, t: usize) -> Hand {
        let process = &self.processes[p];
        Hand(process.number, process.threads[t].favour.clone())
    }

    fn die_with_lock(&mut self, p: usize, op: Option<(u64, Op)>) {
        let number = self.processes[p].number;
        let lock = self.area.log().lock();
        // A death in `put` has left it locked, one after `put` is a death before the next release.
        // Or has died inside, as the thread that the lock is biased to: nobody finds it out, this process neither.
        let held = op.is_some() && lock.holder() == number || lock.try_acquire(number) || lock.holder() == number;
        assert!(held, "process {number} does not hold the lock");
        self.torn = Some(Torn { process: number, op });
        self.remove(p, true);
    }

    /// A process ends, whatever its threads do.
    pub(crate) fn remove(&mut self, p: usize, died: bool) {
        let process = self.processes.remove(p);
        self.departed.push((process.number, died));
    }

    fn open_hole(&mut self, p: usize, t: usize, rng: &mut Rng) {
        // A run must fit the ring.
        let most = (((RING - 2) / 9).min(64) - 1) * 64;
        let most = if self.bulky || rng.chance(30) { most } else { most.min(300) };
        let len = 1 + rng.below(most);
        let Some(offset) = self.place(len as u64, false, rng) else { return };
        let mut twin = vec![0; len];
        self.memory.read(offset, &mut twin);
        self.processes[p].threads[t].state = State::Hole(Hole { offset, work: twin.clone(), twin, runs: None });
    }

    fn hole(&mut self, p: usize, t: usize, mut hole: Hole, rng: &mut Rng, oracle: &mut Oracle) {
        let Hole { offset, ref twin, ref mut work, ref mut runs } = hole;
        let Some(runs) = runs else {
            let from = rng.below(work.len());
            match rng.below(3) {
                // All of it: lines without masks.
                0 => work.iter_mut().for_each(|byte| *byte ^= 1 + (rng.next() as u8 & 0x7f)),
                1 => work[from..].iter_mut().take(100).for_each(|byte| *byte = rng.next() as u8),
                _ => (0..1 + rng.below(8)).for_each(|_| {
                    let at = rng.below(work.len());
                    work[at] = rng.next() as u8;
                }),
            }
            let (mut found, mut changed) = (VecDeque::new(), 0);
            dsm_core::diff::changes(offset, work, twin, |at, masks, lines| {
                changed += masks.iter().map(|mask| mask.count_ones() as usize).sum::<usize>();
                found.push_back((at, masks.to_vec(), lines.to_vec()));
            });
            assert_eq!(changed, work.iter().zip(twin).filter(|(a, b)| a != b).count(), "bytes that changed");
            *runs = Some(found);
            self.processes[p].threads[t].state = State::Hole(hole);
            return;
        };
        let Some((at, masks, lines)) = runs.front().cloned() else { return };
        let full = masks.iter().all(|mask| *mask == u64::MAX);
        let words = 2 + lines.len() * if full { 8 } else { 9 };
        if !self.room(words) {
            self.processes[p].threads[t].state = State::Hole(hole);
            return;
        }
        runs.pop_front();
        let mut writes: Vec<(u64, Vec<u8>)> = Vec::new();
        for place in at.max(offset)..(at + lines.len() as u64 * 64).min(offset + work.len() as u64) {
            let byte = work[(place - offset) as usize];
            if byte == twin[(place - offset) as usize] {
                continue;
            }
            match writes.last_mut() {
                Some((start, run)) if *start + run.len() as u64 == place => run.push(byte),
                _ => writes.push((place, vec![byte])),
            }
        }
        let op = (self.tail() + words as u64, Op::Write(writes));
        let (log, hand) = (self.area.log(), self.hand(p, t));
        let put = |memory: &Fuse<'_>| log.publish(memory, &hand, at, &masks, &lines);
        if rng.chance(12) {
            let step = *rng.pick(&[Step::Record, Step::Intent, Step::Intent, Step::Bytes, Step::Tail]);
            // Every line has a byte that changed, so it makes at least one write.
            let torn = self.interrupt(step, rng.below(lines.len()), rng, put);
            return self.die_with_lock(p, torn.then_some(op));
        }
        put(&Fuse { cells: &self.memory, left: Cell::new(usize::MAX), partial: 0 });
        oracle.issue(self.uid, op.0, op.1);
        self.processes[p].threads[t].state = State::Hole(hole);
    }

    fn claim(&self, p: usize) -> Option<(usize, u64)> {
        let log = self.area.log();
        let slots = log.slots().iter().enumerate();
        slots.filter_map(|(at, slot)| slot.claim(at as u16, self.processes[p].number).map(|token| (at, token))).next()
    }

    fn atomic(&mut self, p: usize, t: usize, rng: &mut Rng, oracle: &mut Oracle) {
        let width = 1usize << rng.below(5);
        let Some(mut offset) = self.place(width as u64, false, rng) else { return };
        if rng.chance(85) {
            offset -= offset % width as u64;
        }
        let rmw = Rmw::from_u8(1 + rng.below(13) as u8).expect("there are 13");
        let operand = u128::from(rng.next()) << 64 | u128::from(rng.next());
        let mut now = [0; 16];
        self.memory.read(offset, &mut now[..width]);
        // Bits beyond the width do not count.
        rng.bytes(16 - width).into_iter().zip(&mut now[width..]).for_each(|(from, to)| *to = from);
        let expected = if rng.chance(60) { u128::from_le_bytes(now) } else { u128::from(rng.next()) };
        if !self.room(8) {
            return;
        }
        let op = AtomicOp { rmw, width: width as u8, operand, expected };
        let hand = self.hand(p, t);
        let (log, memory) = (self.area.log(), &self.memory);
        let word = |len: usize| width == len && offset.is_multiple_of(len as u64);
        let quick = match rng.chance(70) {
            true if word(1) => log.try_atomic_word::<1>(memory, &hand, offset, &op),
            true if word(2) => log.try_atomic_word::<2>(memory, &hand, offset, &op),
            true if word(4) => log.try_atomic_word::<4>(memory, &hand, offset, &op),
            true if word(8) => log.try_atomic_word::<8>(memory, &hand, offset, &op),
            _ => None,
        };
        if let Some(old) = quick.or_else(|| log.atomic(memory, &hand, offset, &op)) {
            return self.leased(offset, &old.to_le_bytes()[..width], rmw, operand, expected, oracle);
        }
        let Some((slot, token)) = self.claim(p) else { return };
        let body = AtomicBody::new(token, op);
        assert!(self.area.log().submit_atomic(&hand, || true, offset, &body), "the lease came while nobody ran");
        oracle.issue(self.uid, self.tail(), Op::Atomic { token, offset, rmw, width, operand, expected });
        self.processes[p].threads[t].state =
            State::Waiting(Wait { token, slot, what: What::Atomic, tries: false, cancelled: false });
    }

    /// An atomic was carried out here: on what the whole session would have found.
    fn leased(&self, offset: u64, old: &[u8], rmw: Rmw, operand: u128, expected: u128, oracle: &mut Oracle) {
        let mut image = oracle.bytes.clone();
        let ops = &oracle.hosts[self.uid];
        for issued in &ops.ops[ops.ordered..] {
            match &issued.op {
                Op::Write(runs) => oracle::write(&mut image, runs),
                Op::Leased { offset, new, .. } => oracle::write(&mut image, &[(*offset, new.clone())]),
                Op::Atomic { .. } => panic!("an atomic under the lease, while another is with the server"),
                _ => {}
            }
        }
        assert_eq!(&image[offset as usize..][..old.len()], old, "an atomic under the lease missed something");
        let new = oracle::apply(rmw, old, operand, expected);
        if new != old {
            oracle.issue(self.uid, self.tail(), Op::Leased { offset, old: old.to_vec(), new });
        }
        LEASED.fetch_add(1, SeqCst);
    }

    fn submit(&mut self, p: usize, t: usize, what: What, flags: u8, amount: u32, oracle: &mut Oracle) {
        let process = self.processes[p].number;
        let (object, kind) = match what {
            What::Acquire { object, .. } => (object, Kind::Acquire),
            What::Arrive { object } => (object, Kind::Arrive),
            _ => (usize::MAX, Kind::Fence),
        };
        let opened = self.processes[p].objects.get(object).copied().flatten();
        if !self.room(4) || opened.is_none() && kind != Kind::Fence {
            return;
        }
        let Some((slot, token)) = self.claim(p) else { return };
        let id = opened.map_or(0, |opened| opened.id);
        let body = SyncBody { token, amount, process };
        self.area.log().submit(&self.hand(p, t), || true, kind, flags, u64::from(id), bytemuck::bytes_of(&body));
        let (end, id) = (self.tail(), id as usize);
        let (op, what) = match what {
            What::Acquire { .. } => (Op::Acquire { id, process, token, units: amount, wait: flags & TRY == 0 }, what),
            What::Arrive { .. } => (Op::Arrive { id, process, token }, what),
            _ => (Op::Fence { token }, What::Fence { end }),
        };
        oracle.issue(self.uid, end, op);
        self.processes[p].threads[t].state =
            State::Waiting(Wait { token, slot, what, tries: flags & TRY != 0, cancelled: false });
    }

    fn give_back(&mut self, p: usize, t: usize, rng: &mut Rng, oracle: &mut Oracle) {
        if !self.room(4) {
            return;
        }
        let process = &mut self.processes[p];
        let held = &mut process.threads[t].held;
        let (object, units, dirty) = held.swap_remove(rng.below(held.len()));
        let id = process.objects[object].expect("it was opened").id;
        let clean = !dirty || rng.chance(50);
        let flags = if clean { 0 } else { STILL_DIRTY };
        let body = SyncBody { token: 0, amount: units, process: process.number };
        let process = process.number;
        self.area.log().submit(
            &self.hand(p, t),
            || true,
            Kind::Release,
            flags,
            u64::from(id),
            bytemuck::bytes_of(&body),
        );
        oracle.issue(self.uid, self.tail(), Op::Release { id: id as usize, process, units, clean });
    }

    fn wait(&mut self, p: usize, t: usize, mut wait: Wait, closing: bool, rng: &mut Rng, oracle: &mut Oracle) {
        let log = self.area.log();
        let slot = &log.slots()[wait.slot];
        let process = self.processes[p].number;
        let Some(answer) = slot.answer() else {
            let object = match wait.what {
                What::Acquire { object, .. } | What::Arrive { object } => object,
                What::Fence { .. } if !closing && rng.chance(3) && slot.abandon() => return,
                _ => OBJECTS,
            };
            if !wait.cancelled && object < OBJECTS && self.room(4) && (closing || rng.chance(10)) {
                let id = self.processes[p].objects[object].expect("it was opened").id;
                let barrier = object >= SEMAPHORES;
                let flags = if barrier { BARRIER } else { 0 };
                // Some do not wait for the answer, and use no grant that came before.
                let forgets = !wait.tries && rng.chance(30);
                let units = match wait.what {
                    What::Acquire { units, .. } if forgets => units,
                    _ => 0,
                };
                let body = SyncBody { token: wait.token, amount: units, process };
                log.submit(&self.hand(p, t), || true, Kind::Cancel, flags, u64::from(id), bytemuck::bytes_of(&body));
                let op = Op::Cancel { barrier, id: id as usize, process, token: wait.token, units };
                oracle.issue(self.uid, self.tail(), op);
                if forgets {
                    assert!(slot.abandon(), "there was no answer, and nobody but this thread runs");
                    return;
                }
                wait.cancelled = true;
            }
            self.processes[p].threads[t].state = State::Waiting(wait);
            return;
        };
        slot.free(wait.token, self.processes[p].number);
        let expected = oracle.answers.remove(&(self.uid, wait.token)).expect("an answer that nobody decided");
        assert!(expected.arrived);
        assert_eq!((answer.status, answer.value, answer.fence), (expected.status, expected.value, expected.fence));
        if let What::Fence { end } = wait.what {
            assert!(self.replica.acked() >= end, "a fence returned before what precedes it was ordered");
        }
        if let What::Acquire { object, units } = wait.what
            && matches!(answer.status, status::OK | status::OWNER_DIED)
        {
            let dirty = answer.status == status::OWNER_DIED;
            self.processes[p].threads[t].held.push((object, units, dirty));
        }
    }

    /// Slots that somebody holds, as `(number, token, process)`.
    pub(crate) fn claimed(&self) -> Vec<(usize, u64, u32)> {
        let words = raw(&self.area);
        let claim = |at: usize| words[SLOTS_AT + at * 8].load(Relaxed);
        let taken = (0..SEATS).filter(|at| claim(*at) & 0xffff != 0);
        taken.map(|at| (at, claim(at) & !0xffff | at as u64, (claim(at) & 0xffff) as u32)).collect()
    }
}
