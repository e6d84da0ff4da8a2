//! Cleaning up after processes that can store no more.

use super::HostSession;
use dsm_core::lock::Seizure;
use dsm_core::record::{DIED, Kind, SyncBody};
use std::os::fd::OwnedFd;

impl HostSession {
    /// Is this client one of its processes?
    pub fn has_client(&self, client: u64) -> bool {
        self.processes.values().any(|(owner, _)| *owner == client)
    }

    /// The file of the log.
    pub fn log_file(&self) -> &OwnedFd {
        &self.file
    }

    /// A client is gone. Its locks, units and slots are given back at the next [`HostSession::pump`].
    pub fn depart(&mut self, client: u64, process: u16, died: bool) {
        self.waiting.retain(|waiting| waiting.client != client);
        for held in self.segments.values_mut() {
            held.users.remove(&client);
        }
        if self.processes.get(&process).is_some_and(|(owner, _)| *owner == client) {
            self.processes.remove(&process);
            self.bells.remove(&process);
            self.departed.push((process, died));
        }
    }

    /// Cleans up after processes that have gone.
    pub(super) fn clean_up(&mut self) -> bool {
        let mut still = Vec::new();
        for (process, died) in std::mem::take(&mut self.departed) {
            let number = u32::from(process);
            if !self.take_lock_of(number) {
                still.push((process, died));
                continue;
            }
            let log = self.area.log();
            log.slots().iter().for_each(|slot| slot.reclaim(number));
            let body = SyncBody { token: 0, amount: 0, process: number };
            let flags = if died { DIED } else { 0 };
            if !log.try_submit(Kind::Gone, flags, u64::from(process), bytemuck::bytes_of(&body)) {
                still.push((process, died));
            }
        }
        self.departed = still;
        false
    }

    /// Completes what `dead` had begun under the replica lock, and frees it. False when that has to be tried again.
    fn take_lock_of(&self, dead: u32) -> bool {
        let log = self.area.log();
        match log.lock().seize(|process| process == dead) {
            Seizure::Taken => {
                log.recover(&self.memory(), |offset, len| self.replica.contains(offset, len));
                log.lock().release_to_all();
            }
            Seizure::Free => {}
            Seizure::Later => return false,
        }
        log.lock().forget(dead);
        log.forget_room_waiters();
        true
    }

    /// Frees the replica lock from a holder that is nobody of ours: whoever wrote that number there is gone, or never
    /// was. Not called while we hold it ourselves.
    pub(super) fn free_from_strangers(&self) {
        let holder = self.area.log().lock().holder();
        let known = u16::try_from(holder).is_ok_and(|number| self.processes.contains_key(&number));
        if holder != 0 && !known {
            self.take_lock_of(holder);
        }
    }
}
