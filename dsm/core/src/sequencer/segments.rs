//! The sequencer's segments: made, grown, removed, attached, and sent to those who attach.

use super::{Body, Misbehaved, Output, Sequencer, To};
use crate::limits::{PAGE, SEGMENTS, SNAPSHOT_CHUNK, SPACE};
use crate::segment::{OpenMode, OpenSegment, SegmentInfo, check_name, check_open};
use crate::wire::control::{BarrierListing, Listing, Reason, Refusal, Response, SegmentListing, SemaphoreListing};
use crate::wire::{FrameHeader, FrameKind};

/// A segment. Those that are removed keep their number.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    info: SegmentInfo,
    bytes: Vec<u8>,
    /// Offsets that are its own, for growing: at least its length.
    room: u64,
    /// It has no name any more.
    removed: bool,
}

/// Empty pieces of a snapshot that one call passes over: large segments are mostly zeros, and others wait.
const ZEROS: usize = 256;
/// The part of the offsets left that one segment may keep for growing.
const ROOM: u64 = 16;

impl Segment {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Sequencer {
    pub(super) fn segment_at(&mut self, host: u16, offset: u64, len: u64) -> Result<(&mut [u8], usize), Misbehaved> {
        let outside = Misbehaved::Outside { offset, len };
        let at = self.segments.partition_point(|segment| segment.info.offset <= offset);
        let number = at.checked_sub(1).ok_or(outside.clone())?;
        let attached = self.hosts.get(&host).and_then(|host| host.attached.get(number)).copied().unwrap_or(0);
        let segment = self.segments.get_mut(number).ok_or(outside.clone())?;
        let start = offset - segment.info.offset;
        if start.checked_add(len).is_none_or(|end| end > attached) {
            return Err(outside);
        }
        Ok((&mut segment.bytes, start as usize))
    }

    pub(super) fn open(&mut self, host: u16, open: OpenSegment, available: u64) -> Result<Response, Refusal> {
        check_name(&open.name).map_err(|bad| Refusal::new(Reason::BadName, bad.to_string()))?;
        let len = check_open(&open).map_err(|text| Refusal::new(Reason::TooLarge, text))?;
        let name = &open.name;
        let number = match (self.segment(name), open.mode) {
            (Some(_), OpenMode::CreateNew) => {
                return Err(Refusal::new(
                    Reason::Exists,
                    format!("segment {name:?} exists already: `open` or `attach` it"),
                ));
            }
            (None, OpenMode::Attach | OpenMode::Grow) => return Err(self.no_segment(name)),
            (Some(number), OpenMode::Grow) => {
                self.grow(number, &open, len, available)?;
                number
            }
            (Some(number), _) => number,
            (None, _) => self.create(open.clone(), len, available)?,
        };
        let Some(segment) = self.segments.get(number) else { return Err(self.no_segment(name)) };
        agree(&segment.info, &open)?;
        let info = segment.info.clone();
        let Some(host) = self.hosts.get_mut(&host) else {
            return Err(Refusal::new(Reason::Malformed, "not in the session"));
        };
        host.attached.resize(host.attached.len().max(number + 1), 0);
        let attached = std::mem::replace(&mut host.attached[number], info.len);
        let snapshot = attached < info.len;
        if snapshot {
            host.snapshots.push_back((number as u32, attached as usize));
        }
        Ok(Response::Opened { info, snapshot })
    }

    fn segment(&self, name: &str) -> Option<usize> {
        self.segments.iter().position(|segment| !segment.removed && segment.info.name == *name)
    }

    fn no_segment(&self, name: &str) -> Refusal {
        Refusal::new(
            Reason::NotFound,
            format!(
                "there is no segment {name:?} in session {:?}: `open` makes one, `dsm ls` shows what is there",
                self.name
            ),
        )
    }

    /// The host cannot map more of a segment than the first `keep` bytes.
    pub(super) fn detach(&mut self, host: u16, segment: u32, keep: u64) {
        if let Some(host) = self.hosts.get_mut(&host) {
            host.snapshots.retain(|(id, at)| *id != segment || (*at as u64) < keep);
            if let Some(attached) = host.attached.get_mut(segment as usize) {
                *attached = keep.min(*attached);
            }
        }
        self.forget_removed();
    }

    fn create(&mut self, open: OpenSegment, len: u64, available: u64) -> Result<usize, Refusal> {
        let too_large = |text: String| Refusal::new(Reason::TooLarge, text);
        if self.segments.len() >= SEGMENTS {
            return Err(too_large(format!(
                "the session has had {SEGMENTS} segments, and cannot have more: use another session"
            )));
        }
        let left = SPACE.saturating_sub(self.next_offset);
        let room = open.room.min(left / ROOM) / PAGE * PAGE;
        // A page that is nobody's follows every segment, so that running over its end faults.
        let end = self.next_offset.checked_add(len.max(room) + PAGE).filter(|end| *end <= SPACE);
        let end = end.ok_or_else(|| {
            too_large(format!(
                "no room for {len} bytes in the session's {SPACE} bytes: remove segments, or use another session"
            ))
        })?;
        enough(&open.name, len, available)?;
        let offset = self.next_offset;
        self.next_offset = end;
        let id = self.segments.len() as u32;
        let info = SegmentInfo { id, offset, len, bytes: open.len, name: open.name, ty: open.ty };
        let bytes = vec![0; len as usize];
        self.segments.push(Segment { info, bytes, room: len.max(room), removed: false });
        Ok(self.segments.len() - 1)
    }

    /// Makes a segment as long as is asked for, if it is not. What is attached stays as it is.
    fn grow(&mut self, number: usize, open: &OpenSegment, len: u64, available: u64) -> Result<(), Refusal> {
        let Some(segment) = self.segments.get_mut(number) else { return Ok(()) };
        let info = &mut segment.info;
        if info.bytes >= open.len {
            return Ok(());
        }
        agree(info, &OpenSegment { len: info.bytes, ..open.clone() })?;
        if len > segment.room {
            let text = format!(
                "segment {:?} cannot grow to {} bytes: it can have at most {} where it is",
                info.name, open.len, segment.room
            );
            return Err(Refusal::new(Reason::TooLarge, text));
        }
        enough(&info.name, len.saturating_sub(info.len), available)?;
        info.bytes = open.len;
        info.len = info.len.max(len);
        segment.bytes.resize(info.len as usize, 0);
        Ok(())
    }

    /// Takes a segment's name away. Its bytes stay for the hosts that have attached it.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(segment) = self.segment(name).and_then(|number| self.segments.get_mut(number)) else {
            return Err(self.no_segment(name));
        };
        segment.removed = true;
        self.forget_removed();
        Ok(())
    }

    /// Lets go of the bytes of removed segments that no host has.
    pub(super) fn forget_removed(&mut self) {
        for (number, segment) in self.segments.iter_mut().enumerate().filter(|(_, segment)| segment.removed) {
            let attached = self.hosts.values().any(|host| host.attached.get(number).is_some_and(|len| *len > 0));
            if !attached {
                segment.bytes = Vec::new();
            }
        }
    }

    /// Puts out the next piece of what `host` has attached and not yet received, or nothing when it has looked at many
    /// zeros. Returns false when nothing is left.
    /// To be called when little is queued for the host: a piece holds at the position at which it is put out, and
    /// what is ordered later follows it, so pieces may come from different positions.
    pub fn snapshot(&mut self, host: u16, out: &mut Vec<Output>) -> bool {
        let epoch = self.epoch;
        let Some(queue) = self.hosts.get_mut(&host).map(|host| &mut host.snapshots) else { return false };
        let Some((number, at)) = queue.front_mut() else { return false };
        let id = *number;
        let Some(segment) = self.segments.get(id as usize) else { return false };
        let mut zeros = 0;
        while let Some(piece) = segment.bytes.get(*at..).filter(|rest| !rest.is_empty()) {
            let piece = piece.get(..SNAPSHOT_CHUNK).unwrap_or(piece);
            let offset = segment.info.offset + *at as u64;
            *at += piece.len();
            // The receiver's memory was zero when it attached, and has followed the stream since.
            if piece.iter().any(|byte| *byte != 0) {
                let header = FrameHeader::new(FrameKind::Snapshot, 0, epoch, piece.len(), offset, 0);
                out.push(Output { to: To::Host(host), body: Body::Owned(header, piece.to_vec()) });
                return true;
            }
            zeros += 1;
            if zeros == ZEROS {
                return true;
            }
        }
        queue.pop_front();
        let more = !queue.is_empty();
        self.respond(host, 0, &Response::SnapshotDone(id), out);
        more
    }

    /// Is there something for [`Sequencer::snapshot`] to do?
    pub fn has_snapshot(&self, host: u16) -> bool {
        self.hosts.get(&host).is_some_and(|host| !host.snapshots.is_empty())
    }

    pub(super) fn list(&self) -> Listing {
        let attached = |number: usize| {
            self.hosts.values().filter(|host| host.attached.get(number).is_some_and(|len| *len > 0)).count() as u32
        };
        let segment = |(number, segment): (usize, &Segment)| SegmentListing {
            id: segment.info.id,
            name: segment.info.name.clone(),
            bytes: segment.info.bytes,
            ty: segment.info.ty.name.clone(),
            hosts: attached(number),
            processes: 0,
        };
        let semaphore = |(name, units, waiting)| SemaphoreListing { name, units, waiting };
        let barrier = |(name, parties, arrived)| BarrierListing { name, parties, arrived };
        Listing {
            session: self.name.clone(),
            ordered: self.ordered,
            hosts: self.hosts().collect(),
            segments: self.segments.iter().enumerate().filter(|(_, s)| !s.removed).map(segment).collect(),
            semaphores: self.semaphores.list().into_iter().map(semaphore).collect(),
            barriers: self.barriers.list().into_iter().map(barrier).collect(),
        }
    }
}

fn enough(name: &str, len: u64, available: u64) -> Result<(), Refusal> {
    if len > available {
        let text = format!(
            "segment {name:?} needs {len} bytes of memory; the server's machine has about {available} to give: ask for less, or free some there"
        );
        return Err(Refusal::new(Reason::NoMemory, text));
    }
    Ok(())
}

/// Does what somebody asks for agree with the segment that exists?
///
/// # Errors
/// A refusal that names the first difference.
pub fn agree(info: &SegmentInfo, open: &OpenSegment) -> Result<(), Refusal> {
    if let Some(difference) = info.ty.difference(&open.ty) {
        let text = format!(
            "segment {:?} holds a `{}` that is not the `{}` that was asked for: {difference}. All programs of a session need the \
             same definition; else use another name",
            info.name, info.ty.name, open.ty.name
        );
        return Err(Refusal::new(Reason::TypeDiffers, text));
    }
    if open.len > info.bytes {
        let text = format!("segment {:?} has {} bytes, {} were asked for: grow it", info.name, info.bytes, open.len);
        return Err(Refusal::new(Reason::TypeDiffers, text));
    }
    Ok(())
}
