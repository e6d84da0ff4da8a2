//! Poll for a bounded while after the last work, giving the processor away each time, then sleep. What decides
//! latency is the wake-up, and on few cores the peer that we wait for may need ours.

use std::time::{Duration, Instant};

/// Decides between polling and sleeping.
#[derive(Debug)]
pub struct Pace {
    window: Duration,
    worked: Instant,
}

impl Pace {
    /// Polls for `window` after the last work.
    pub fn new(window: Duration) -> Self {
        Self { window, worked: Instant::now() }
    }

    /// Notes that there was work.
    pub fn worked(&mut self, now: Instant) {
        self.worked = now;
    }

    /// Gives the processor away and returns true while polling still pays; false when it is time to sleep.
    pub fn poll_on(&self, now: Instant) -> bool {
        let on = now.duration_since(self.worked) < self.window;
        if on {
            dsm_core::sys::futex::give_way();
        }
        on
    }
}
