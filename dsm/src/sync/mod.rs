//! Waiting for what others do: beyond semaphores and barriers.

mod watch;
