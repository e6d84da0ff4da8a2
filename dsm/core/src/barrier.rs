//! Barriers of a session: named, reusable, broken when a party can no longer come. A pure state machine.
//!
//! Invariant: fewer threads are arrived at a barrier than it has parties.

use std::collections::{BTreeMap, HashMap};

use crate::limits::{PARTIES, SYNC_OBJECTS};
use crate::semaphore::Owner;

/// News for one who arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Who.
    pub owner: Owner,
    /// Which of its operations.
    pub token: u64,
    /// How it ended.
    pub how: How,
}

/// How a wait at a barrier ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// All came. One of them is the leader.
    Through {
        /// The one.
        leader: bool,
    },
    /// A party is gone.
    Broken,
    /// The wait was given up.
    Cancelled,
}

#[derive(Clone, Debug)]
struct Barrier {
    name: String,
    parties: u32,
    arrived: Vec<(Owner, u64)>,
    /// How often each process opened it and has not left.
    openers: BTreeMap<Owner, u32>,
    /// A process that had opened it has left: from then on parties can be missing for good.
    departed: bool,
}

/// All barriers of a session.
#[derive(Clone, Debug, Default)]
pub struct Barriers {
    by_name: HashMap<String, u32>,
    all: Vec<Barrier>,
}

impl Barriers {
    /// The number of the barrier `name`, made for `parties` if it is new.
    ///
    /// # Errors
    /// What is wrong with the request, in words.
    pub fn open(&mut self, name: &str, parties: u32, owner: Owner) -> Result<u32, String> {
        if let Some(id) = self.by_name.get(name).copied() {
            let Some(barrier) = self.all.get_mut(id as usize) else { return Err("no such barrier".into()) };
            if barrier.parties != parties {
                return Err(format!("the barrier is for {} parties, not for {parties}", barrier.parties));
            }
            *barrier.openers.entry(owner).or_insert(0) += 1;
            return Ok(id);
        }
        if parties == 0 || parties > PARTIES {
            return Err(format!("a barrier for {parties} parties is not possible: 1 to {PARTIES} are"));
        }
        if self.all.len() >= SYNC_OBJECTS {
            return Err(format!("the session already has {SYNC_OBJECTS} barriers"));
        }
        let id = self.all.len() as u32;
        self.by_name.insert(name.to_owned(), id);
        let openers = BTreeMap::from([(owner, 1)]);
        self.all.push(Barrier { name: name.to_owned(), parties, arrived: Vec::new(), openers, departed: false });
        Ok(id)
    }

    /// A thread arrives. `None` when there is no such barrier.
    pub fn arrive(&mut self, id: u32, owner: Owner, token: u64) -> Option<Vec<Passed>> {
        let barrier = self.all.get_mut(id as usize)?;
        barrier.arrived.push((owner, token));
        if barrier.arrived.len() as u32 >= barrier.parties {
            let last = barrier.arrived.len() - 1;
            let all = std::mem::take(&mut barrier.arrived).into_iter().enumerate();
            return Some(
                all.map(|(at, (owner, token))| Passed { owner, token, how: How::Through { leader: at == last } })
                    .collect(),
            );
        }
        Some(if barrier.hopeless() { barrier.break_up() } else { Vec::new() })
    }

    /// A thread gives up waiting; nothing when it had passed already.
    pub fn cancel(&mut self, id: u32, owner: Owner, token: u64) -> Option<Vec<Passed>> {
        let barrier = self.all.get_mut(id as usize)?;
        let at = barrier.arrived.iter().position(|arrived| *arrived == (owner, token));
        Some(
            at.map(|at| barrier.arrived.remove(at))
                .map(|_| Passed { owner, token, how: How::Cancelled })
                .into_iter()
                .collect(),
        )
    }

    /// Processes have left (`died`: without saying goodbye). Those who wait for one of them are told.
    pub fn gone(&mut self, gone: impl Fn(Owner) -> bool, died: bool) -> Vec<Passed> {
        let mut passed = Vec::new();
        for barrier in &mut self.all {
            let before = barrier.openers.len();
            barrier.openers.retain(|owner, _| !gone(*owner));
            barrier.arrived.retain(|(owner, _)| !gone(*owner));
            if barrier.openers.len() == before {
                continue;
            }
            if barrier.openers.is_empty() {
                // Nobody knows it any more: as new.
                barrier.departed = false;
                continue;
            }
            barrier.departed = true;
            if died || barrier.hopeless() {
                passed.extend(barrier.break_up());
            }
        }
        passed
    }

    /// Name, parties and arrived threads of each.
    pub fn list(&self) -> Vec<(String, u32, u32)> {
        self.all.iter().map(|b| (b.name.clone(), b.parties, b.arrived.len() as u32)).collect()
    }

    /// The invariant; returns what is broken.
    pub fn check(&self) -> Result<(), String> {
        match self.all.iter().find(|barrier| barrier.arrived.len() as u32 >= barrier.parties) {
            Some(barrier) => Err(format!("barrier {:?} is full and holds its threads", barrier.name)),
            None => Ok(()),
        }
    }
}

impl Barrier {
    /// Can it never fill up? Somebody has left, and those who still know it are too few, however many threads of
    /// theirs they announced by opening it.
    fn hopeless(&self) -> bool {
        self.departed && self.openers.values().sum::<u32>() < self.parties
    }

    fn break_up(&mut self) -> Vec<Passed> {
        let all = std::mem::take(&mut self.arrived).into_iter();
        all.map(|(owner, token)| Passed { owner, token, how: How::Broken }).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const A: Owner = (1, 1);
    const B: Owner = (2, 1);
    const C: Owner = (3, 1);

    #[test]
    fn all_pass_together_and_one_leads_every_time() {
        let mut all = Barriers::default();
        let id = [A, B, C].map(|owner| all.open("b", 3, owner).unwrap())[0];
        for round in 0..3u64 {
            assert_eq!(all.arrive(id, A, round).unwrap(), []);
            assert_eq!(all.arrive(id, B, round).unwrap(), []);
            let passed = all.arrive(id, C, round).unwrap();
            assert_eq!(passed.len(), 3);
            assert_eq!(passed.iter().filter(|p| p.how == How::Through { leader: true }).count(), 1);
        }
        assert!(all.open("b", 4, A).is_err());
    }

    #[test]
    fn a_death_breaks_it_for_those_who_wait_and_those_who_come() {
        let mut all = Barriers::default();
        let id = [A, B, C].map(|owner| all.open("b", 3, owner).unwrap())[0];
        all.arrive(id, A, 1).unwrap();
        let passed = all.gone(|owner| owner == B, true);
        assert_eq!(passed, [Passed { owner: A, token: 1, how: How::Broken }]);
        assert_eq!(all.arrive(id, C, 2).unwrap(), [Passed { owner: C, token: 2, how: How::Broken }]);
        // A newcomer takes the place of the dead one.
        all.open("b", 3, (4, 1)).unwrap();
        assert_eq!(all.arrive(id, C, 3).unwrap(), []);
    }

    #[test]
    fn leaving_after_the_last_round_harms_nobody() {
        let mut all = Barriers::default();
        let id = [A, B].map(|owner| all.open("b", 2, owner).unwrap())[0];
        all.arrive(id, A, 1).unwrap();
        assert_eq!(all.arrive(id, B, 1).unwrap().len(), 2);
        assert_eq!(all.gone(|owner| owner == A, false), []);
        assert_eq!(all.gone(|owner| owner == B, false), []);
        assert_eq!([A, B].map(|owner| all.open("b", 2, owner).unwrap()), [id; 2]);
        assert_eq!(all.arrive(id, A, 2).unwrap(), []);
    }

    #[test]
    fn giving_up_takes_the_arrival_back() {
        let mut all = Barriers::default();
        let id = [A, B].map(|owner| all.open("b", 2, owner).unwrap())[0];
        all.arrive(id, A, 1).unwrap();
        assert_eq!(all.cancel(id, A, 1).unwrap()[0].how, How::Cancelled);
        assert_eq!(all.cancel(id, A, 1).unwrap(), []);
        assert_eq!(all.arrive(id, B, 2).unwrap(), []);
        all.check().unwrap();
    }
}
