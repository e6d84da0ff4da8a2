//! The segments of a session on one host: mapped, grown, handed out.

use super::HostSession;
use crate::directory::Servers;
use dsm_core::limits::{PAGE, SPACE};
use dsm_core::segment::SegmentInfo;
use dsm_core::sys::map;
use dsm_core::wire::control::{Reason, Refusal, Request, Told};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

#[derive(Debug)]
pub(super) struct Held {
    pub(super) info: SegmentInfo,
    pub(super) file: OwnedFd,
    /// Its bytes have all come.
    pub(super) ready: bool,
    /// The clients that have it.
    pub(super) users: BTreeSet<u64>,
}

impl HostSession {
    /// Answers those who wait for segments that are complete.
    pub(super) fn serve_ready(&mut self) {
        let mut still = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting.segment.and_then(|id| self.segments.get_mut(&id)).filter(|held| held.ready) {
                Some(held) => {
                    held.users.insert(waiting.client);
                    let answer = match held.file.try_clone() {
                        Ok(file) => (Told::Opened(held.info.clone()), vec![file]),
                        Err(error) => {
                            let text = format!("the arbiter has no descriptors left: {error}");
                            (Told::Refused(Refusal::new(Reason::TooLarge, text)), Vec::new())
                        }
                    };
                    self.answers.push((waiting.client, answer.0, answer.1));
                }
                None => still.push(waiting),
            }
        }
        self.waiting = still;
    }

    /// The server has opened a segment for us.
    pub(super) fn opened(&mut self, id: u64, info: SegmentInfo, snapshot: bool, servers: &mut Servers) {
        let number = info.id;
        let has = self.segments.get(&number).map_or(0, |held| held.info.len);
        if has < info.len && !snapshot {
            // Its bytes were on the way when it could not be mapped; asked for anew, they will come again.
            let text = format!("segment {:?} could not be mapped on this host: try again", info.name);
            let refusal = Refusal::new(Reason::NoMemory, text);
            return self.respond(id, |_| (Told::Refused(refusal), Vec::new()));
        }
        if let Err(error) = self.map(&info, has) {
            let text = format!("segment {:?} of {} bytes: {error}", info.name, info.bytes);
            let refusal = Refusal::new(Reason::NoMemory, text);
            self.respond(id, |_| (Told::Refused(refusal), Vec::new()));
            return self.request(0, Request::Detach { segment: number, keep: has }, servers);
        }
        if let Some(held) = self.segments.get_mut(&number) {
            held.ready &= !snapshot;
            held.info = info;
        }
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.request == id) {
            waiting.segment = Some(number);
        }
        self.serve_ready();
    }

    /// Maps what there is of a segment beyond the first `has` bytes.
    fn map(&mut self, info: &SegmentInfo, has: u64) -> std::io::Result<()> {
        let fits = info.offset.is_multiple_of(PAGE) && info.len.is_multiple_of(PAGE) && info.len > 0;
        if !fits || info.offset.checked_add(info.len).is_none_or(|end| end > SPACE) {
            return Err(std::io::Error::other("its place makes no sense"));
        }
        if info.len <= has {
            return Ok(());
        }
        let file = match self.segments.get(&info.id) {
            Some(held) => {
                map::grow_memory_file(&held.file, has, info.len)?;
                &held.file
            }
            None => &map::memory_file("dsm-segment", info.len)?,
        };
        let (offset, len) = (info.offset + has, info.len - has);
        self.space.map_file_part(offset as usize, len as usize, map::Access::ReadWrite, file, has)?;
        if has == 0 {
            let (info, file) = (info.clone(), file.try_clone()?);
            self.segments.insert(info.id, Held { info, file, ready: true, users: BTreeSet::new() });
        }
        self.replica.attach(offset, len);
        Ok(())
    }
}
