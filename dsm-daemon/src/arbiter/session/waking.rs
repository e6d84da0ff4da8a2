//! Waking those who wait for more than an answer.

use super::HostSession;
use dsm_core::watch::Lines;

impl HostSession {
    /// Wakes who waits until one of these lines changes: to be called after a change was drained or applied.
    pub(super) fn changed(&self, lines: impl FnOnce() -> Lines) {
        let watch = &self.area.control().watch;
        if watch.watched(self.area.log().barrier()) {
            watch.wake(lines());
        }
    }
}
