//! Hot frames: a fixed header, a payload of whole words.
#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)
)]

use crate::limits::FRAME;
use bytemuck::{Pod, Zeroable};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Records of `origin`, which cover its log positions `from..to`.
    Records = 1,
    /// To the origin: its records up to `to` have their place.
    Ack = 2,
    /// To the origin: its records up to `to` have their place, and here is the answer to one of them.
    Reply = 3,
    /// A control message ([`super::control`]).
    Control = 4,
    /// Bytes of a segment, `from` is their offset; they hold at this position of the stream.
    Snapshot = 5,
    /// Nothing; shows that the peer lives.
    Ping = 6,
    /// Authority over atomics: `from` is 1 to lease it to this host, 0 to ask it back.
    Lease = 7,
}

/// Header of a frame, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FrameHeader {
    /// Bytes of payload, a multiple of 8.
    pub len: u32,
    /// [`FrameKind`].
    pub kind: u8,
    /// Zero.
    pub flags: u8,
    /// Host whose operations these are.
    pub origin: u16,
    /// Epoch of the server that ordered them: a successor counts up.
    pub epoch: u32,
    /// Zero.
    pub reserved: u32,
    /// See the kinds.
    pub from: u64,
    /// See the kinds.
    pub to: u64,
}

const _: () = assert!(size_of::<FrameHeader>() == 32);

/// Answer codes in a [`Reply`].
pub mod status {
    /// Done: the old value, the grant, the fence.
    pub const OK: u32 = 1;
    /// Granted, and the last owner died with it.
    pub const OWNER_DIED: u32 = 2;
    /// Would have to wait, and was not to.
    pub const BUSY: u32 = 3;
    /// The wait was cancelled before it was granted.
    pub const CANCELLED: u32 = 4;
    /// The barrier is broken: a party is gone.
    pub const BROKEN: u32 = 5;
    /// Through the barrier, as its leader.
    pub const LEADER: u32 = 6;
}

/// Payload of [`FrameKind::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Reply {
    /// Whom it is for.
    pub token: u64,
    /// A [`status`] code.
    pub status: u32,
    /// Width of an atomic's operand in bytes, 0 for the others.
    pub width: u32,
    /// Where an atomic was carried out.
    pub offset: u64,
    /// Fencing token of a grant: rises with every grant of the semaphore.
    pub fence: u64,
    /// Old value of an atomic, low and high half.
    pub old: [u64; 2],
    /// New value of an atomic.
    pub new: [u64; 2],
}

const _: () = assert!(size_of::<Reply>() == 64);

impl FrameKind {
    fn from_u8(value: u8) -> Option<Self> {
        use FrameKind::*;
        [Records, Ack, Reply, Control, Snapshot, Ping, Lease].into_iter().find(|kind| *kind as u8 == value)
    }
}

impl FrameHeader {
    /// A header. `len` must be the length of the payload in bytes, a multiple of 8, at most [`FRAME`].
    pub fn new(kind: FrameKind, origin: u16, epoch: u32, len: usize, from: u64, to: u64) -> Self {
        debug_assert!(len <= FRAME && len.is_multiple_of(8));
        Self { len: len as u32, kind: kind as u8, flags: 0, origin, epoch, reserved: 0, from, to }
    }
}

/// A frame as received, its header checked.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: FrameKind,
    /// The header.
    pub header: FrameHeader,
    /// The payload.
    pub payload: &'a [u8],
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes that are no frame: kind {kind}, length {len}")]
pub struct BadFrame {
    /// The kind byte.
    pub kind: u8,
    /// The length field.
    pub len: u32,
}

/// Collects received bytes and cuts them into frames.
#[derive(Debug)]
pub struct Reader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// What is read at a time: no more than stays in a core's own cache until it has been used.
const ROOM: usize = 64 << 10;

impl Reader {
    /// An empty reader. It takes memory when it is first used.
    pub fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, end: 0 }
    }

    /// Takes `count` bytes that are not part of a frame (a greeting), once they are there.
    pub fn take(&mut self, count: usize) -> Option<&[u8]> {
        let end = self.start.checked_add(count).filter(|end| *end <= self.end)?;
        let start = std::mem::replace(&mut self.start, end);
        self.buffer.get(start..end)
    }

    /// Where the next received bytes go: never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len().saturating_sub(self.end) < ROOM {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end.saturating_sub(self.start));
            if self.buffer.len().saturating_sub(self.end) < ROOM {
                // A frame is limited, and so is what this can grow to.
                self.buffer.resize(self.buffer.len().saturating_mul(2).max(ROOM.saturating_mul(4)), 0);
            }
        }
        let end = self.end.saturating_add(ROOM).min(self.buffer.len());
        self.buffer.get_mut(self.end..end).unwrap_or_default()
    }

    /// Notes that `count` bytes were put into [`Reader::space`].
    pub fn received(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.buffer.len());
    }

    /// The next whole frame. It stays valid until the next call.
    ///
    /// # Errors
    /// [`BadFrame`] when the bytes are none; nothing can be read from this peer any more.
    #[expect(clippy::should_implement_trait, reason = "no iterator: a frame borrows the reader")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, BadFrame> {
        const HEADER: usize = size_of::<FrameHeader>();
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some((head, rest)) = bytes.split_at_checked(HEADER) else { return Ok(None) };
        let header: FrameHeader = bytemuck::pod_read_unaligned(head);
        let bad = BadFrame { kind: header.kind, len: header.len };
        let len = header.len as usize;
        let kind = FrameKind::from_u8(header.kind).ok_or(bad)?;
        if len > FRAME || !len.is_multiple_of(8) || header.flags != 0 || header.reserved != 0 {
            return Err(bad);
        }
        let Some(payload) = rest.get(..len) else { return Ok(None) };
        self.start = self.start.saturating_add(HEADER).saturating_add(len);
        Ok(Some(Frame { kind, header, payload }))
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn feed(reader: &mut Reader, mut bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, BadFrame> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let space = reader.space();
            let count = bytes.len().min(step).min(space.len());
            space[..count].copy_from_slice(&bytes[..count]);
            reader.received(count);
            bytes = &bytes[count..];
            while let Some(frame) = reader.next()? {
                frames.push(frame.payload.to_vec());
            }
        }
        Ok(frames)
    }

    #[test]
    #[cfg_attr(miri, ignore = "safe code, and megabytes byte by byte")]
    fn frames_survive_any_cutting() {
        let mut bytes = Vec::new();
        let lens = [0usize, 8, 64, 4096, FRAME, 16];
        for len in lens {
            let header = FrameHeader::new(FrameKind::Records, 1, 1, len, 0, len as u64 / 8);
            bytes.extend_from_slice(bytemuck::bytes_of(&header));
            bytes.extend((0..len).map(|i| i as u8));
        }
        for step in [1, 7, 31, 33, 4096, 1 << 20] {
            let frames = feed(&mut Reader::new(), &bytes, step).unwrap();
            assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), lens, "step {step}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "safe code, and buffers of a megabyte")]
    fn nonsense_is_refused() {
        let good = FrameHeader::new(FrameKind::Ack, 1, 1, 0, 0, 0);
        for bad in [
            FrameHeader { kind: 0, ..good },
            FrameHeader { kind: 99, ..good },
            FrameHeader { len: 4, ..good },
            FrameHeader { len: FRAME as u32 + 8, ..good },
            FrameHeader { flags: 1, ..good },
        ] {
            assert!(feed(&mut Reader::new(), bytemuck::bytes_of(&bad), 32).is_err(), "{bad:?}");
        }
        assert!(feed(&mut Reader::new(), &[0xff; 64], 64).is_err());
    }
}
