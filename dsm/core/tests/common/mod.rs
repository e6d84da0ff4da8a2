//! For tests of the log.

use dsm_core::log::Writer;

/// A process, by its number, that waits for as long as it takes.
pub(crate) struct Hand(pub(crate) u32);

impl Writer for Hand {
    fn number(&self) -> u32 {
        self.0
    }

    fn ring_doorbell(&self) {}

    fn stalled(&self) {}
}
