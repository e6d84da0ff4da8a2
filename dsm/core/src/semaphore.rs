//! Counting semaphores of a session: FIFO, with undo for owners that die. A pure state machine.
//!
//! Invariants (checked by [`Semaphores::check`] in the simulation): no waiter at the head of a queue could be served;
//! for a semaphore whose units were only ever returned by their owners, value + units held = the value at first.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::limits::{SEMAPHORE_VALUE, SYNC_OBJECTS};

/// A process of a host.
pub type Owner = (u16, u32);

/// Somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Who.
    pub owner: Owner,
    /// Which of its operations.
    pub token: u64,
    /// Units that it wants.
    pub units: u32,
}

/// A grant, or the news that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The units are the waiter's. `dirty`: a former owner died with some.
    Granted {
        /// Who waited.
        waiter: Waiter,
        /// A former owner died.
        dirty: bool,
        /// Rises with every grant of this semaphore.
        fence: u64,
    },
    /// It was not to wait.
    Busy(Waiter),
    /// It gave up in time.
    Cancelled(Waiter),
}

#[derive(Clone, Debug)]
struct Semaphore {
    name: String,
    value: u32,
    /// Set when an owner died, until somebody who was told has made things consistent.
    dirty: bool,
    /// Units with which an owner can change things: 1, or all of a lock that readers share. A death with fewer leaves
    /// nothing half done, and whoever takes fewer is told of one but cannot make things consistent.
    whole: u32,
    fence: u64,
    queue: VecDeque<Waiter>,
    held: BTreeMap<Owner, u32>,
    /// The newest waits whose owners were told, for those that are cancelled too late.
    told: VecDeque<(Owner, u64)>,
}

/// Waits of one semaphore that are remembered as told. Each stands for a death.
const TOLD: usize = 64;

/// All semaphores of a session.
#[derive(Clone, Debug, Default)]
pub struct Semaphores {
    by_name: HashMap<String, u32>,
    all: Vec<Semaphore>,
}

impl Semaphores {
    /// The number of the semaphore `name`, made with `value` units if it is new. `whole`: with how many units an owner
    /// can change what it protects.
    ///
    /// # Errors
    /// What is wrong with the request, in words.
    pub fn open(&mut self, name: &str, value: u32, whole: u32) -> Result<u32, String> {
        if let Some(id) = self.by_name.get(name) {
            return Ok(*id);
        }
        if value > SEMAPHORE_VALUE {
            return Err(format!("a semaphore of {value} units is not possible: at most {SEMAPHORE_VALUE} are"));
        }
        if self.all.len() >= SYNC_OBJECTS {
            return Err(format!("the session already has {SYNC_OBJECTS} semaphores"));
        }
        let id = self.all.len() as u32;
        self.by_name.insert(name.to_owned(), id);
        let (queue, held, told) = (VecDeque::new(), BTreeMap::new(), VecDeque::new());
        self.all.push(Semaphore { name: name.to_owned(), value, dirty: false, whole, fence: 0, queue, held, told });
        Ok(id)
    }

    /// Asks for units. `None` when there is no such semaphore, or the request can never be granted.
    pub fn acquire(&mut self, id: u32, waiter: Waiter, wait: bool) -> Option<Vec<Verdict>> {
        let semaphore = self.all.get_mut(id as usize)?;
        if waiter.units == 0 || waiter.units > SEMAPHORE_VALUE {
            return None;
        }
        semaphore.queue.push_back(waiter);
        let mut verdicts = semaphore.serve();
        if !wait && semaphore.queue.back() == Some(&waiter) {
            semaphore.queue.pop_back();
            verdicts.push(Verdict::Busy(waiter));
        }
        Some(verdicts)
    }

    /// Gives units back, or adds some that nobody had taken. `clean` is false when the caller was told that an owner
    /// had died and has not repaired things.
    pub fn release(&mut self, id: u32, owner: Owner, units: u32, clean: bool) -> Option<Vec<Verdict>> {
        let semaphore = self.all.get_mut(id as usize)?;
        semaphore.give_back(owner, units);
        semaphore.dirty |= !clean;
        Some(semaphore.serve())
    }

    /// Units that an owner took for good: they are not given back when it goes.
    pub fn keep(&mut self, id: u32, owner: Owner, units: u32) -> Option<()> {
        self.all.get_mut(id as usize)?.disown(owner, units);
        Some(())
    }

    /// Ends a wait. The answer is `Cancelled`, or nothing when the grant was earlier in the order. Nobody will use such
    /// a grant when `units` are named: they go back.
    pub fn cancel(&mut self, id: u32, owner: Owner, token: u64, units: u32) -> Option<Vec<Verdict>> {
        let semaphore = self.all.get_mut(id as usize)?;
        let Some(at) = semaphore.queue.iter().position(|w| w.owner == owner && w.token == token) else {
            if units > 0 {
                semaphore.give_back(owner, units);
                // Whoever was told of a death there has not looked.
                semaphore.dirty |= semaphore.told.contains(&(owner, token));
            }
            return Some(semaphore.serve());
        };
        let mut verdicts: Vec<_> = semaphore.queue.remove(at).map(Verdict::Cancelled).into_iter().collect();
        // Whoever stood behind a large request may fit now.
        verdicts.extend(semaphore.serve());
        Some(verdicts)
    }

    /// An owner has left (`died`: without saying goodbye). What it held goes back.
    pub fn gone(&mut self, gone: impl Fn(Owner) -> bool, died: bool) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for semaphore in &mut self.all {
            semaphore.queue.retain(|waiter| !gone(waiter.owner));
            let owners: Vec<_> = semaphore.held.keys().copied().filter(|owner| gone(*owner)).collect();
            for owner in owners {
                let units = semaphore.held.get(&owner).copied().unwrap_or(0);
                semaphore.give_back(owner, units);
                semaphore.dirty |= died && units >= semaphore.whole;
            }
            verdicts.extend(semaphore.serve());
        }
        verdicts
    }

    /// Name, value and waiters of each.
    pub fn list(&self) -> Vec<(String, u32, u32)> {
        self.all.iter().map(|s| (s.name.clone(), s.value, s.queue.len() as u32)).collect()
    }

    /// The invariants; returns what is broken.
    pub fn check(&self) -> Result<(), String> {
        for semaphore in &self.all {
            if semaphore.queue.front().is_some_and(|waiter| waiter.units <= semaphore.value) {
                return Err(format!("semaphore {:?} has units and lets its first waiter wait", semaphore.name));
            }
        }
        Ok(())
    }

    /// Units held by all owners, for checks.
    pub fn held(&self, id: u32) -> u32 {
        self.all.get(id as usize).map_or(0, |s| s.held.values().fold(0, |sum: u32, units| sum.saturating_add(*units)))
    }

    /// Units free, for checks.
    pub fn value(&self, id: u32) -> u32 {
        self.all.get(id as usize).map_or(0, |s| s.value)
    }
}

impl Semaphore {
    fn serve(&mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        while let Some(waiter) = self.queue.front().copied() {
            if waiter.units > self.value {
                break;
            }
            self.queue.pop_front();
            self.value -= waiter.units;
            // Saturating: who takes what others post, and never gives it back, can hold any number.
            let held = self.held.entry(waiter.owner).or_insert(0);
            *held = held.saturating_add(waiter.units);
            self.fence += 1;
            let dirty = self.dirty;
            if dirty && waiter.units >= self.whole {
                self.dirty = false;
                self.told.truncate(TOLD - 1);
                self.told.push_front((waiter.owner, waiter.token));
            }
            verdicts.push(Verdict::Granted { waiter, dirty, fence: self.fence });
        }
        verdicts
    }

    fn give_back(&mut self, owner: Owner, units: u32) {
        self.value = self.value.saturating_add(units).min(SEMAPHORE_VALUE);
        self.disown(owner, units);
    }

    fn disown(&mut self, owner: Owner, units: u32) {
        if let Some(held) = self.held.get_mut(&owner) {
            *held = held.saturating_sub(units);
            if *held == 0 {
                self.held.remove(&owner);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn waiter(host: u16, token: u64, units: u32) -> Waiter {
        Waiter { owner: (host, 1), token, units }
    }

    fn granted(verdicts: &[Verdict]) -> Vec<u64> {
        let token = |v: &Verdict| match v {
            Verdict::Granted { waiter, .. } => Some(waiter.token),
            _ => None,
        };
        verdicts.iter().filter_map(token).collect()
    }

    #[test]
    fn first_come_first_served_even_past_a_large_request() {
        let mut all = Semaphores::default();
        let id = all.open("s", 2, 1).unwrap();
        assert_eq!(granted(&all.acquire(id, waiter(1, 1, 1), true).unwrap()), [1]);
        assert_eq!(granted(&all.acquire(id, waiter(2, 2, 2), true).unwrap()), []);
        assert_eq!(granted(&all.acquire(id, waiter(3, 3, 1), true).unwrap()), []);
        assert_eq!(all.acquire(id, waiter(3, 4, 1), false).unwrap(), [Verdict::Busy(waiter(3, 4, 1))]);
        assert_eq!(granted(&all.cancel(id, (2, 1), 2, 0).unwrap()), [3]);
        assert_eq!(granted(&all.release(id, (1, 1), 1, true).unwrap()), []);
        all.check().unwrap();
    }

    #[test]
    fn the_dead_give_back_and_the_next_is_told_until_it_is_repaired() {
        let mut all = Semaphores::default();
        let id = all.open("s", 1, 1).unwrap();
        all.acquire(id, waiter(1, 1, 1), true).unwrap();
        all.acquire(id, waiter(2, 2, 1), true).unwrap();
        let verdicts = all.gone(|(host, _)| host == 1, true);
        assert!(matches!(verdicts[..], [Verdict::Granted { dirty: true, fence: 2, .. }]));
        all.release(id, (2, 1), 1, false).unwrap();
        let verdicts = all.acquire(id, waiter(3, 3, 1), true).unwrap();
        assert!(matches!(verdicts[..], [Verdict::Granted { dirty: true, .. }]));
        all.release(id, (3, 1), 1, true).unwrap();
        let verdicts = all.acquire(id, waiter(3, 4, 1), true).unwrap();
        assert!(matches!(verdicts[..], [Verdict::Granted { dirty: false, .. }]));
    }

    #[test]
    fn a_wait_that_is_forgotten_leaves_nothing_behind() {
        let mut all = Semaphores::default();
        let id = all.open("s", 2, 1).unwrap();
        all.acquire(id, waiter(1, 1, 2), true).unwrap();
        all.acquire(id, waiter(2, 2, 2), true).unwrap();
        // Before its grant, and after it.
        assert_eq!(all.cancel(id, (2, 1), 2, 2).unwrap(), [Verdict::Cancelled(waiter(2, 2, 2))]);
        all.acquire(id, waiter(3, 3, 1), true).unwrap();
        assert_eq!(granted(&all.cancel(id, (1, 1), 1, 2).unwrap()), [3]);
        assert_eq!((all.value(id), all.held(id)), (1, 1));
    }

    #[test]
    fn the_news_of_a_death_is_not_forgotten_with_the_wait() {
        let mut all = Semaphores::default();
        let id = all.open("s", 1, 1).unwrap();
        all.acquire(id, waiter(1, 1, 1), true).unwrap();
        all.acquire(id, waiter(2, 2, 1), true).unwrap();
        all.acquire(id, waiter(3, 3, 1), true).unwrap();
        let verdicts = all.gone(|(host, _)| host == 1, true);
        assert!(matches!(verdicts[..], [Verdict::Granted { dirty: true, .. }]));
        let verdicts = all.cancel(id, (2, 1), 2, 1).unwrap();
        assert!(matches!(verdicts[..], [Verdict::Granted { dirty: true, .. }]), "{verdicts:?}");
        // The third has repaired things: a late cancellation of its own does not undo that.
        all.release(id, (3, 1), 1, true).unwrap();
        all.acquire(id, waiter(4, 4, 1), true).unwrap();
        all.cancel(id, (4, 1), 4, 1).unwrap();
        let verdicts = all.acquire(id, waiter(5, 5, 1), true).unwrap();
        assert!(matches!(verdicts[..], [Verdict::Granted { dirty: false, .. }]), "{verdicts:?}");
    }

    #[test]
    fn readers_leave_nothing_half_done_and_all_are_told_until_a_writer_has_repaired() {
        let mut all = Semaphores::default();
        let id = all.open("s", 8, 8).unwrap();
        all.acquire(id, waiter(1, 1, 1), true).unwrap();
        all.gone(|(host, _)| host == 1, true);
        let verdicts = all.acquire(id, waiter(2, 2, 8), true).unwrap();
        assert!(matches!(verdicts[..], [Verdict::Granted { dirty: false, .. }]), "{verdicts:?}");
        for reader in 3..6 {
            all.acquire(id, waiter(reader, 1, 1), true).unwrap();
        }
        all.acquire(id, waiter(6, 1, 8), true).unwrap();
        let verdicts = all.gone(|(host, _)| host == 2, true);
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Granted { dirty: true, .. })));
        assert_eq!(verdicts.len(), 3);
        for reader in 3..6 {
            all.release(id, (reader, 1), 1, true).unwrap();
        }
        // The readers are not the ones to repair; the writer is told, and does.
        assert_eq!(all.held(id), 8);
        all.release(id, (6, 1), 8, true).unwrap();
        let verdicts = all.acquire(id, waiter(7, 1, 1), true).unwrap();
        assert!(matches!(verdicts[..], [Verdict::Granted { dirty: false, .. }]), "{verdicts:?}");
    }

    #[test]
    fn what_was_taken_for_good_does_not_come_back() {
        let mut all = Semaphores::default();
        let id = all.open("signal", 0, 1).unwrap();
        all.release(id, (1, 1), 1, true).unwrap();
        assert_eq!(granted(&all.acquire(id, waiter(2, 1, 1), true).unwrap()), [1]);
        all.keep(id, (2, 1), 1).unwrap();
        assert_eq!(all.gone(|(host, _)| host == 2, true), []);
        assert_eq!((all.value(id), all.held(id)), (0, 0));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut all = Semaphores::default();
        assert!(all.open("s", SEMAPHORE_VALUE + 1, 1).is_err());
        assert_eq!(all.acquire(0, waiter(1, 1, 1), true), None);
        let id = all.open("s", 1, 1).unwrap();
        assert_eq!(all.acquire(id, waiter(1, 1, 0), true), None);
        assert_eq!(all.acquire(id, waiter(1, 1, u32::MAX), true), None);
        all.release(id, (1, 1), u32::MAX, true).unwrap();
        assert_eq!(all.value(id), SEMAPHORE_VALUE);
    }
}
