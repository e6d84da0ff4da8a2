//! What the operations of a program mean when they happen one after the other: the total order, said once more and
//! without any of the code that is checked.

use dsm_core::wire::status;
use std::collections::VecDeque;

/// The bytes that programs touch.
pub(crate) const LEN: usize = 16;

/// What a thread can do, or an arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// Bytes at a distance from the first.
    Store(u64, usize),
    /// Two lines, of which the bytes at these distances changed.
    Bulk(&'static [u64]),
    /// A locked add to a word of this width.
    Add(u64, u8),
    /// Waits until all before it is ordered and applied here.
    Fence,
    /// Takes units of the semaphore.
    Acquire(u32),
    /// Takes them at once or not at all.
    Try(u32),
    /// Takes them, and may give up waiting at any moment.
    Timed(u32),
    /// Gives up the wait for what this host issued at that number.
    Cancel(usize),
    /// Gives units back.
    Release(u32),
    /// Arrives at the barrier and waits there.
    Arrive,
    /// Gives back the lease of atomics.
    Yield,
}

/// What the issuer of an operation is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// After so many operations of the order.
    pub(crate) place: usize,
    pub(crate) status: u32,
    /// The old value of an atomic.
    pub(crate) value: u64,
    /// Number of a grant.
    pub(crate) fence: u64,
}

/// An operation in a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Issued {
    /// Where its records end.
    pub(crate) end: u64,
    pub(crate) op: Op,
    pub(crate) value: u8,
    pub(crate) token: u64,
    /// What an atomic has found that was carried out under the lease.
    pub(crate) found: Option<u64>,
    /// Its place in the order: how many operations there are with it.
    pub(crate) place: Option<usize>,
    pub(crate) told: Option<Told>,
}

/// The order, and what there is behind it.
#[derive(Clone)]
pub(crate) struct Order {
    /// The bytes after each operation.
    pub(crate) states: Vec<[u8; LEN]>,
    /// Of each host.
    pub(crate) issued: [Vec<Issued>; 2],
    ordered: [usize; 2],
    /// How many were told something.
    pub(crate) told: usize,
    /// Units of the semaphore that nobody has, grants, and who waits: host, number, units.
    pub(crate) free: u32,
    grants: u64,
    queue: VecDeque<(usize, usize, u32)>,
    parties: usize,
    arrived: Vec<(usize, usize)>,
}

/// What `op` makes of the bytes; the old value where it has one.
pub(crate) fn perform(bytes: &mut [u8; LEN], op: Op, value: u8) -> u64 {
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
        _ => {}
    }
    0
}

impl Order {
    pub(crate) fn new(units: u32, parties: usize) -> Self {
        let (issued, queue) = ([Vec::new(), Vec::new()], VecDeque::new());
        let (states, ordered, arrived) = (Vec::new(), [0; 2], Vec::new());
        Self { states, issued, ordered, told: 0, free: units, grants: 0, queue, parties, arrived }
    }

    /// The bytes after so many operations.
    pub(crate) fn bytes(&self, operations: usize) -> [u8; LEN] {
        operations.checked_sub(1).map_or([0; LEN], |last| self.states[last])
    }

    /// The records of host `h` up to `to` are in order now.
    pub(crate) fn take(&mut self, h: usize, to: u64) {
        while self.issued[h].get(self.ordered[h]).is_some_and(|next| next.end <= to) {
            let number = self.ordered[h];
            self.ordered[h] += 1;
            self.happen(h, number);
        }
    }

    fn happen(&mut self, h: usize, number: usize) {
        let Issued { op, value, found, .. } = self.issued[h][number];
        let mut bytes = self.bytes(self.states.len());
        let old = perform(&mut bytes, op, value);
        self.states.push(bytes);
        self.issued[h][number].place = Some(self.states.len());
        match op {
            Op::Store(..) | Op::Bulk(_) | Op::Yield => {}
            Op::Add(..) => match found {
                Some(found) => assert_eq!(found, old, "what an atomic found under the lease"),
                None => self.tell((h, number), status::OK, old, 0),
            },
            Op::Fence => self.tell((h, number), status::OK, 0, 0),
            Op::Acquire(units) | Op::Timed(units) => {
                self.queue.push_back((h, number, units));
                self.serve();
            }
            Op::Try(units) => {
                self.queue.push_back((h, number, units));
                self.serve();
                if self.queue.back() == Some(&(h, number, units)) {
                    self.queue.pop_back();
                    self.tell((h, number), status::BUSY, 0, 0);
                }
            }
            Op::Cancel(which) => {
                let before = self.queue.len();
                self.queue.retain(|(host, number, _)| (*host, *number) != (h, which));
                if self.queue.len() != before {
                    self.tell((h, which), status::CANCELLED, 0, 0);
                    self.serve();
                }
            }
            Op::Release(units) => {
                self.free += units;
                self.serve();
            }
            Op::Arrive => {
                self.arrived.push((h, number));
                if self.arrived.len() == self.parties {
                    for who in std::mem::take(&mut self.arrived) {
                        let leads = who == (h, number);
                        self.tell(who, if leads { status::LEADER } else { status::OK }, 0, 0);
                    }
                }
            }
        }
    }

    /// First come, first served.
    fn serve(&mut self) {
        while let Some((h, number, units)) = self.queue.front().copied().filter(|(.., units)| *units <= self.free) {
            self.queue.pop_front();
            self.free -= units;
            self.grants += 1;
            self.tell((h, number), status::OK, 0, self.grants);
        }
    }

    fn tell(&mut self, (h, number): (usize, usize), status: u32, value: u64, fence: u64) {
        let told = &mut self.issued[h][number].told;
        assert_eq!(*told, None, "an operation is answered once");
        *told = Some(Told { place: self.states.len(), status, value, fence });
        self.told += 1;
    }
}
