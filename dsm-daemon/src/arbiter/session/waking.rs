//! Waking those who wait: for a word to change, or for an answer without a thread that sleeps on it.

use super::HostSession;
use dsm_core::sys::passing;
use dsm_core::watch::Lines;
use dsm_core::wire::control::{Reason, Refusal, Told};
use dsm_core::wire::{FrameKind, Reply};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// By number of the process. The other end is the process's: it sees ours close when this arbiter ends.
pub(super) type Bells = BTreeMap<u16, UnixStream>;

impl HostSession {
    /// Makes a bell for the process of a client. The answer goes the way of those with descriptors.
    pub(super) fn give_bell(&mut self, client: u64) -> Option<Told> {
        let process = self.processes.iter().find(|(_, (owner, _))| *owner == client).map(|(number, _)| *number);
        let pair = UnixStream::pair().and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            Ok((ours, theirs))
        });
        match (process, pair) {
            (Some(process), Ok((ours, theirs))) => {
                self.bells.insert(process, ours);
                self.answers.push((client, Told::Done, vec![theirs.into()]));
                None
            }
            (None, _) => Some(Told::Refused(Refusal::new(Reason::Malformed, "not a process of this session"))),
            (_, Err(error)) => {
                let text = format!("the arbiter has no descriptors left: {error}");
                Some(Told::Refused(Refusal::new(Reason::TooLarge, text)))
            }
        }
    }

    /// Wakes who waits until one of these lines changes: to be called after a change was drained or applied.
    pub(super) fn changed(&self, lines: impl FnOnce() -> Lines) {
        let watch = &self.area.control().watch;
        if watch.watched(self.area.log().barrier()) && watch.wake(lines()) {
            self.bells.values().for_each(ring);
        }
    }

    /// A frame has been applied.
    pub(super) fn done(&self, kind: FrameKind, payload: &[u8]) {
        self.changed(|| Lines::of_frame(kind, payload));
        if self.bells.is_empty() || kind != FrameKind::Reply {
            return;
        }
        let token = bytemuck::try_pod_read_unaligned::<Reply>(payload).map_or(0, |reply| reply.token);
        let slot = self.area.log().slots().get((token & 0xffff) as usize);
        let listener = slot.and_then(|slot| slot.listener(token)).and_then(|process| u16::try_from(process).ok());
        listener.and_then(|process| self.bells.get(&process)).into_iter().for_each(ring);
    }

    /// The session has ended here: whoever waits shall look.
    pub(super) fn wake_all(&self) {
        self.area.control().watch.wake_all();
        self.bells.values().for_each(ring);
    }
}

/// A full socket rings already; one whose other end is closed belongs to a process that is about to be noticed.
fn ring(bell: &UnixStream) {
    let _ = passing::send(bell.as_fd(), &[1], &[]);
}
