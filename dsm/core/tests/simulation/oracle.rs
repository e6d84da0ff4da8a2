//! The reference: what the operations that hosts issued mean, in the order in which the sequencer took them.
//!
//! It is told of an operation by whoever issues it (never by a record), and of how far the sequencer got with a
//! host. From that it keeps the bytes, a journal of their changes, and the one answer that every waiting token is to
//! get.

use dsm_core::op::Rmw;
use dsm_core::wire::status;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A process of a host: `(uid of the host, number)`.
pub(crate) type Owner = (usize, u32);

/// What was issued.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Bytes at offsets.
    Write(Vec<(u64, Vec<u8>)>),
    Atomic {
        token: u64,
        offset: u64,
        rmw: Rmw,
        width: usize,
        operand: u128,
        expected: u128,
    },
    Acquire {
        id: usize,
        process: u32,
        token: u64,
        units: u32,
        wait: bool,
    },
    Release {
        id: usize,
        process: u32,
        units: u32,
        clean: bool,
    },
    Cancel {
        barrier: bool,
        id: usize,
        process: u32,
        token: u64,
        /// To be given back when they have been granted already.
        units: u32,
    },
    Arrive {
        id: usize,
        process: u32,
        token: u64,
    },
    Fence {
        token: u64,
    },
    Gone {
        process: u32,
        died: bool,
    },
    /// An atomic under the lease: these bytes were there, and these came.
    Leased {
        offset: u64,
        old: Vec<u8>,
        new: Vec<u8>,
    },
    Yield,
}

/// An operation in the log of a host.
#[derive(Debug)]
pub(crate) struct Issued {
    /// Log position after its record.
    pub(crate) end: u64,
    pub(crate) op: Op,
    /// Length of the journal just after it was ordered.
    pub(crate) place: Option<usize>,
}

/// What a token is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) status: u32,
    pub(crate) value: u128,
    pub(crate) fence: u64,
    /// Length of the journal when it was decided.
    pub(crate) at: usize,
    /// It has reached its host.
    pub(crate) arrived: bool,
}

#[derive(Debug, Default)]
struct Semaphore {
    value: u32,
    dirty: bool,
    fence: u64,
    queue: VecDeque<(Owner, u64, u32)>,
    held: BTreeMap<Owner, u32>,
    /// Grants that told of a death.
    told: BTreeSet<(Owner, u64)>,
}

#[derive(Debug, Default)]
struct Barrier {
    parties: usize,
    arrived: Vec<(Owner, u64)>,
    openers: BTreeMap<Owner, usize>,
    departed: bool,
}

/// The operations of one host.
#[derive(Debug, Default)]
pub(crate) struct HostOps {
    pub(crate) ops: Vec<Issued>,
    /// How many of them are ordered.
    pub(crate) ordered: usize,
    gone: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// The session's bytes by offset.
    pub(crate) bytes: Vec<u8>,
    /// What each operation of the order wrote.
    pub(crate) journal: Vec<Vec<(u64, Vec<u8>)>>,
    pub(crate) hosts: Vec<HostOps>,
    pub(crate) answers: BTreeMap<(usize, u64), Expected>,
    semaphores: Vec<Semaphore>,
    barriers: Vec<Barrier>,
}

/// Writes runs of bytes to an image of the session.
pub(crate) fn write(image: &mut [u8], runs: &[(u64, Vec<u8>)]) {
    for (offset, bytes) in runs {
        image[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}

impl Oracle {
    pub(crate) fn new(len: usize) -> Self {
        Self { bytes: vec![0; len], ..Self::default() }
    }

    /// A host joins.
    pub(crate) fn join(&mut self) -> usize {
        self.hosts.push(HostOps::default());
        self.hosts.len() - 1
    }

    /// `host` has put an operation in its log; its record ends at `end`.
    pub(crate) fn issue(&mut self, host: usize, end: u64, op: Op) {
        let ops = &mut self.hosts[host].ops;
        assert!(ops.last().is_none_or(|last| last.end < end), "records of host {host} overlap");
        ops.push(Issued { end, op, place: None });
    }

    /// The sequencer has taken the records of `host` up to `to`.
    pub(crate) fn order(&mut self, host: usize, to: u64) {
        while let Some(issued) = self.hosts[host].ops.get(self.hosts[host].ordered)
            && issued.end <= to
        {
            let op = issued.op.clone();
            let written = self.execute(host, &op);
            self.journal.push(written);
            let HostOps { ops, ordered, .. } = &mut self.hosts[host];
            ops[*ordered].place = Some(self.journal.len());
            *ordered += 1;
        }
        let HostOps { ops, ordered, .. } = &self.hosts[host];
        let last = ordered.checked_sub(1).map_or(0, |last| ops[last].end);
        assert_eq!(last, to, "host {host}: a batch ends within an operation");
    }

    /// Length of the journal after the last operation of `host` that ends at `to` or before.
    pub(crate) fn place(&self, host: usize, to: u64) -> usize {
        let HostOps { ops, .. } = &self.hosts[host];
        let count = ops.partition_point(|issued| issued.end <= to);
        count.checked_sub(1).map_or(0, |last| ops[last].place.expect("acknowledged before it was ordered"))
    }

    /// Own writes of `host` that are in its log after position `acked`.
    pub(crate) fn pending(&self, host: usize, acked: u64) -> &[Issued] {
        let ops = &self.hosts[host].ops;
        &ops[ops.partition_point(|issued| issued.end <= acked)..]
    }

    fn execute(&mut self, host: usize, op: &Op) -> Vec<(u64, Vec<u8>)> {
        let at = self.journal.len() + 1;
        match *op {
            Op::Write(ref runs) => {
                write(&mut self.bytes, runs);
                return runs.clone();
            }
            Op::Leased { offset, ref old, ref new } => {
                let place = &mut self.bytes[offset as usize..][..old.len()];
                assert_eq!(place, old, "host {host}: something came between the two halves of an atomic");
                place.copy_from_slice(new);
                return vec![(offset, new.clone())];
            }
            Op::Yield => {}
            Op::Atomic { token, offset, rmw, width, operand, expected } => {
                let place = &mut self.bytes[offset as usize..][..width];
                let old = place.to_vec();
                let new = apply(rmw, &old, operand, expected);
                place.copy_from_slice(&new);
                let mut wide = [0; 16];
                wide[..width].copy_from_slice(&old);
                self.answer(host, token, status::OK, u128::from_le_bytes(wide), 0, at);
                if old != new {
                    return vec![(offset, new)];
                }
            }
            Op::Acquire { id, process, token, units, wait } => {
                let semaphore = &mut self.semaphores[id];
                let fits = semaphore.queue.is_empty() && units <= semaphore.value;
                if fits || wait {
                    semaphore.queue.push_back(((host, process), token, units));
                    self.serve(id, at);
                } else {
                    self.answer(host, token, status::BUSY, 0, 0, at);
                }
            }
            Op::Release { id, process, units, clean } => {
                let semaphore = &mut self.semaphores[id];
                let held = semaphore.held.get_mut(&(host, process)).expect("only owners give back here");
                *held = held.checked_sub(units).expect("only what they own");
                semaphore.value += units;
                semaphore.dirty |= !clean;
                self.serve(id, at);
            }
            Op::Cancel { barrier: false, id, process, token, units } => {
                let semaphore = &mut self.semaphores[id];
                let queue = &mut semaphore.queue;
                if let Some(found) = queue.iter().position(|(owner, t, _)| (*owner, *t) == ((host, process), token)) {
                    queue.remove(found);
                    self.answer(host, token, status::CANCELLED, 0, 0, at);
                    self.serve(id, at);
                } else if units > 0 {
                    let held = semaphore.held.get_mut(&(host, process)).expect("it was granted");
                    *held = held.checked_sub(units).expect("it was granted");
                    semaphore.value += units;
                    semaphore.dirty |= semaphore.told.contains(&((host, process), token));
                    self.serve(id, at);
                }
            }
            Op::Cancel { barrier: true, id, process, token, .. } => {
                let arrived = &mut self.barriers[id].arrived;
                if let Some(found) = arrived.iter().position(|entry| *entry == ((host, process), token)) {
                    arrived.remove(found);
                    self.answer(host, token, status::CANCELLED, 0, 0, at);
                }
            }
            Op::Arrive { id, process, token } => {
                self.barriers[id].arrived.push(((host, process), token));
                self.settle(id, false, at);
            }
            Op::Fence { token } => self.answer(host, token, status::OK, 0, 0, at),
            Op::Gone { process, died } => self.gone(|owner| owner == (host, process), died, at),
        }
        Vec::new()
    }

    fn answer(&mut self, host: usize, token: u64, status: u32, value: u128, fence: u64, at: usize) {
        if self.hosts[host].gone {
            return;
        }
        let expected = Expected { status, value, fence, at, arrived: false };
        let before = self.answers.insert((host, token), expected);
        assert_eq!(before, None, "host {host}: token {token:#x} is answered twice");
    }

    fn serve(&mut self, id: usize, at: usize) {
        let semaphore = &mut self.semaphores[id];
        let mut granted = Vec::new();
        while let Some((owner, token, units)) = semaphore.queue.front().copied()
            && units <= semaphore.value
        {
            semaphore.queue.pop_front();
            semaphore.value -= units;
            *semaphore.held.entry(owner).or_default() += units;
            semaphore.fence += 1;
            let told = if semaphore.dirty { status::OWNER_DIED } else { status::OK };
            if std::mem::take(&mut semaphore.dirty) {
                semaphore.told.insert((owner, token));
            }
            granted.push((owner.0, token, told, semaphore.fence));
        }
        granted.into_iter().for_each(|(host, token, told, fence)| self.answer(host, token, told, 0, fence, at));
    }

    /// Lets the threads at a barrier through, or tells them that it is broken, if it is time to.
    fn settle(&mut self, id: usize, broken: bool, at: usize) {
        let barrier = &mut self.barriers[id];
        let hopeless = barrier.departed && barrier.openers.values().sum::<usize>() < barrier.parties;
        let full = barrier.arrived.len() == barrier.parties;
        if !full && !broken && !hopeless {
            return;
        }
        let arrived = std::mem::take(&mut barrier.arrived);
        let last = arrived.last().copied();
        for entry in arrived {
            let told = match full {
                true if Some(entry) == last => status::LEADER,
                true => status::OK,
                false => status::BROKEN,
            };
            self.answer(entry.0.0, entry.1, told, 0, 0, at);
        }
    }

    fn gone(&mut self, gone: impl Fn(Owner) -> bool, died: bool, at: usize) {
        for id in 0..self.semaphores.len() {
            let semaphore = &mut self.semaphores[id];
            semaphore.queue.retain(|(owner, ..)| !gone(*owner));
            let Semaphore { value, dirty, held, .. } = semaphore;
            held.retain(|owner, units| {
                if gone(*owner) {
                    *value += *units;
                    *dirty |= died && *units > 0;
                }
                !gone(*owner)
            });
            self.serve(id, at);
        }
        for id in 0..self.barriers.len() {
            let barrier = &mut self.barriers[id];
            barrier.arrived.retain(|(owner, _)| !gone(*owner));
            let before = barrier.openers.len();
            barrier.openers.retain(|owner, _| !gone(*owner));
            if barrier.openers.len() == before {
                continue;
            }
            barrier.departed = !barrier.openers.is_empty();
            if barrier.departed {
                self.settle(id, died, at);
            }
        }
    }

    /// A host has left; `died` says that its connection broke.
    pub(crate) fn leave(&mut self, host: usize, died: bool) {
        self.hosts[host].gone = true;
        self.answers.retain(|(owner, _), _| *owner != host);
        self.gone(|owner| owner.0 == host, died, self.journal.len());
    }

    /// The sequencer has opened semaphore `id`.
    pub(crate) fn open_semaphore(&mut self, id: usize, value: u32) {
        if id == self.semaphores.len() {
            self.semaphores.push(Semaphore { value, ..Semaphore::default() });
        }
    }

    /// The sequencer has opened barrier `id` for a process.
    pub(crate) fn open_barrier(&mut self, id: usize, parties: usize, owner: Owner) {
        if id == self.barriers.len() {
            self.barriers.push(Barrier { parties, ..Barrier::default() });
        }
        *self.barriers[id].openers.entry(owner).or_default() += 1;
    }

    /// Free and held units of every semaphore.
    pub(crate) fn units(&self) -> impl Iterator<Item = (u32, u32)> {
        self.semaphores.iter().map(|semaphore| (semaphore.value, semaphore.held.values().sum()))
    }
}

/// The operation on a native integer of its width.
pub(crate) fn apply(rmw: Rmw, old: &[u8], operand: u128, expected: u128) -> Vec<u8> {
    macro_rules! native {
        ($unsigned:ty, $signed:ty) => {{
            let old = <$unsigned>::from_le_bytes(old.try_into().expect("of this width"));
            let (operand, expected) = (operand as $unsigned, expected as $unsigned);
            let new = match rmw {
                Rmw::Add => old.wrapping_add(operand),
                Rmw::Sub => old.wrapping_sub(operand),
                Rmw::And => old & operand,
                Rmw::Or => old | operand,
                Rmw::Xor => old ^ operand,
                Rmw::Swap => operand,
                Rmw::CompareExchange => {
                    if old == expected {
                        operand
                    } else {
                        old
                    }
                }
                Rmw::Neg => old.wrapping_neg(),
                Rmw::MaxUnsigned => old.max(operand),
                Rmw::MinUnsigned => old.min(operand),
                Rmw::MaxSigned => (old as $signed).max(operand as $signed) as $unsigned,
                Rmw::MinSigned => (old as $signed).min(operand as $signed) as $unsigned,
                Rmw::Nand => !(old & operand),
            };
            new.to_le_bytes().to_vec()
        }};
    }
    match old.len() {
        1 => native!(u8, i8),
        2 => native!(u16, i16),
        4 => native!(u32, i32),
        8 => native!(u64, i64),
        _ => native!(u128, i128),
    }
}
