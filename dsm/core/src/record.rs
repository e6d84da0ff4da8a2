//! Records: what the host log holds and what travels, unchanged, in hot frames.
//!
//! A record is a run of 8-byte little-endian words. Word 0 is the header: kind (8 bits), flags (8), `len` (16),
//! `prev` (32: distance in words back to the previous pending record of the same index bucket, 0 for none; it has
//! a meaning in the log of the host that wrote it and nowhere else). Word 1 is a session offset or an object's
//! number. The payload follows, padded to whole words.
//!
//! | kind | word 1 | `len` | payload |
//! |---|---|---|---|
//! | `Store` | offset | 1..=64, within one line | the bytes |
//! | `Bulk` | offset of a line | 1..=64 lines, within one page | a mask a line if `MASKED`, then the lines |
//! | `Atomic` | offset | 48 | [`AtomicBody`] |
//! | others | object | 16 | [`SyncBody`] |
#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)
)]

use crate::limits::{LINE, PAGE};
use crate::op::{AtomicOp, Rmw};

/// Words of a header.
pub const HEADER_WORDS: usize = 2;
/// The longest record, in words: a masked bulk record of one page.
pub const LONGEST: usize = HEADER_WORDS + 64 + 512;

/// What a record asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes within one 64-byte line.
    Store = 1,
    /// Lines of one page, each with the mask of its bytes that changed.
    Bulk = 2,
    /// A read-modify-write whose issuer waits for the old value.
    Atomic = 3,
    /// Take units of a semaphore.
    Acquire = 4,
    /// Give units back.
    Release = 5,
    /// End a wait for a semaphore or barrier, whichever way it goes.
    Cancel = 6,
    /// Arrive at a barrier.
    Arrive = 7,
    /// Say when all that precedes is ordered and applied.
    Fence = 8,
    /// A process of this host has left or died (written by the arbiter).
    Gone = 9,
    /// The lease of atomics is given back: what this host did under it precedes (written by the arbiter).
    Yield = 10,
}

impl Kind {
    fn from_u8(value: u8) -> Option<Self> {
        use Kind::*;
        [Store, Bulk, Atomic, Acquire, Release, Cancel, Arrive, Fence, Gone, Yield]
            .into_iter()
            .find(|kind| *kind as u8 == value)
    }
}

/// Flag of `Bulk`: masks precede the lines.
pub const MASKED: u8 = 1;
/// Flag of `Acquire`: answer at once, with `Busy` where it would have to wait.
pub const TRY: u8 = 1;
/// Flag of `Release`: the units were inconsistent when they came and were not marked as recovered.
pub const STILL_DIRTY: u8 = 1;
/// Flag of `Release`: the units do not come back, they are only no longer the owner's, who took them for good.
pub const KEPT: u8 = 2;
/// Flag of `Gone`: without saying goodbye.
pub const DIED: u8 = 1;
/// Flag of `Cancel`: the object is a barrier, not a semaphore.
pub const BARRIER: u8 = 1;

/// Payload of `Atomic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct AtomicBody {
    /// Who waits.
    pub token: u64,
    /// The function in the low byte, the width in the next.
    pub code: u64,
    /// Low and high half of the operand.
    pub operand: [u64; 2],
    /// Low and high half of the comparand.
    pub expected: [u64; 2],
}

/// Payload of the synchronising kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SyncBody {
    /// Who waits, or 0.
    pub token: u64,
    /// Units, where the kind has any.
    pub amount: u32,
    /// The process on whose behalf.
    pub process: u32,
}

const _: () = assert!(size_of::<AtomicBody>() == 48 && size_of::<SyncBody>() == 16);

impl AtomicBody {
    /// The operation of `token` in this form.
    pub fn new(token: u64, op: AtomicOp) -> Self {
        let halves = |value: u128| [value as u64, (value >> 64) as u64];
        Self {
            token,
            code: u64::from(op.rmw as u8) | u64::from(op.width) << 8,
            operand: halves(op.operand),
            expected: halves(op.expected),
        }
    }

    /// The operation, if it is one.
    pub fn op(&self) -> Option<AtomicOp> {
        let [rmw, width, rest @ ..] = self.code.to_le_bytes();
        if rest != [0; 6] || !matches!(width, 1 | 2 | 4 | 8 | 16) {
            return None;
        }
        Some(AtomicOp { rmw: Rmw::from_u8(rmw)?, width, operand: whole(self.operand), expected: whole(self.expected) })
    }
}

/// The value whose low and high half these are.
pub fn whole([low, high]: [u64; 2]) -> u128 {
    u128::from(low) | u128::from(high) << 64
}

/// Header word of a record.
#[inline(always)]
pub fn header(kind: Kind, flags: u8, len: u16, prev: u32) -> u64 {
    kind as u64 | (flags as u64) << 8 | (len as u64) << 16 | (prev as u64) << 32
}

/// A record, checked: its lengths are consistent and its bytes lie within one line or page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it asks for.
    pub kind: Kind,
    /// Flags of the kind.
    pub flags: u8,
    /// Word 1: session offset or object number.
    pub place: u64,
    /// Words in all.
    pub words: usize,
    /// Payload without the padding of the last word.
    pub payload: &'a [u8],
}

/// A record that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record that makes no sense: header {header:#018x}, place {place:#x}")]
pub struct Malformed {
    /// Word 0.
    pub header: u64,
    /// Word 1.
    pub place: u64,
}

/// Number of words and payload bytes of a record with this header, or `None` where the header makes no sense.
#[inline]
pub fn shape(header: u64, place: u64) -> Option<(Kind, u8, usize, usize)> {
    let [kind, flags, len0, len1, ..] = header.to_le_bytes();
    let len = u16::from_le_bytes([len0, len1]);
    let kind = Kind::from_u8(kind)?;
    let bytes = match kind {
        Kind::Store => {
            let end = (place & LINE.wrapping_sub(1)).checked_add(u64::from(len))?;
            if len == 0 || end > LINE || flags != 0 {
                return None;
            }
            usize::from(len)
        }
        Kind::Bulk => {
            let first = (place % PAGE) / LINE;
            let end = first.checked_add(u64::from(len))?;
            if len == 0 || end > PAGE / LINE || !place.is_multiple_of(LINE) || flags & !MASKED != 0 {
                return None;
            }
            let line = if flags & MASKED == 0 { 64usize } else { 72 };
            usize::from(len).checked_mul(line)?
        }
        Kind::Atomic if len == 48 && flags == 0 => 48,
        Kind::Atomic => return None,
        Kind::Release if len == 16 && flags <= 2 => 16,
        _ if len == 16 && flags <= 1 => 16,
        _ => return None,
    };
    Some((kind, flags, bytes.div_ceil(8).checked_add(HEADER_WORDS)?, bytes))
}

impl<'a> Record<'a> {
    /// The record at the start of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] where it makes no sense or is cut off.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let word = |at: usize| {
            let end = at.saturating_add(8);
            bytes.get(at..end).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes)
        };
        let (header, place) = (word(0).unwrap_or(0), word(8).unwrap_or(0));
        let malformed = Malformed { header, place };
        let (kind, flags, words, len) = shape(header, place).ok_or(malformed)?;
        if words.saturating_mul(8) > bytes.len() {
            return Err(malformed);
        }
        let payload = bytes.get(16..).and_then(|rest| rest.get(..len)).ok_or(malformed)?;
        Ok(Self { kind, flags, place, words, payload })
    }

    /// Offset and length of the bytes that a store or bulk record covers.
    pub fn extent(&self) -> Option<(u64, u64)> {
        match self.kind {
            Kind::Store => Some((self.place, self.payload.len() as u64)),
            Kind::Bulk => {
                let lines = self.payload.len().checked_div(if self.flags & MASKED == 0 { 64 } else { 72 })?;
                Some((self.place, (lines as u64).saturating_mul(LINE)))
            }
            Kind::Atomic => Some((self.place, u64::from(self.atomic()?.op()?.width))),
            _ => None,
        }
    }

    /// The lines of a bulk record: offset, mask of the bytes that count, bytes.
    pub fn lines(&self) -> impl Iterator<Item = (u64, u64, &'a [u8; 64])> + use<'a> {
        let (bulk, masked) = (self.kind == Kind::Bulk, self.flags & MASKED != 0);
        let payload = if bulk { self.payload } else { &[] };
        let masks = if masked { payload.len() / 72 } else { 0 };
        let (masks, lines) = payload.split_at_checked(masks.saturating_mul(8)).unwrap_or_default();
        let masks = masks.as_chunks::<8>().0.iter().map(|mask| u64::from_le_bytes(*mask));
        let full = std::iter::repeat(u64::MAX);
        // The lines lead: nothing is computed beyond the last, which may end where the offsets do.
        let (place, lines) = (self.place, lines.as_chunks::<64>().0);
        lines
            .iter()
            .zip(masks.chain(full))
            .zip(0u64..)
            .map(move |((bytes, mask), line)| (place.saturating_add(line.saturating_mul(LINE)), mask, bytes))
    }

    /// Payload of an atomic.
    pub fn atomic(&self) -> Option<AtomicBody> {
        (self.kind == Kind::Atomic).then(|| bytemuck::try_pod_read_unaligned(self.payload).ok())?
    }

    /// Payload of a synchronising record.
    pub fn sync(&self) -> Option<SyncBody> {
        (self.payload.len() == size_of::<SyncBody>()).then(|| bytemuck::try_pod_read_unaligned(self.payload).ok())?
    }

    /// Number of the semaphore or barrier, or of the process.
    pub fn object(&self) -> Option<u32> {
        u32::try_from(self.place).ok()
    }
}

/// All records of a payload, in order; ends after the first that makes no sense.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.take().filter(|bytes| !bytes.is_empty())?;
        let record = Record::parse(bytes);
        if let Ok(record) = &record {
            rest = bytes.get(record.words.saturating_mul(8)..);
        }
        Some(record)
    })
}

/// Appends store records for `bytes` at `offset` to `out`, one for each line that they touch.
pub fn push_store(out: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    for (offset, piece) in by_line(offset, bytes) {
        out.extend_from_slice(&header(Kind::Store, 0, piece.len() as u16, 0).to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(piece);
        out.resize(out.len().next_multiple_of(8), 0);
    }
}

/// Splits bytes at the boundaries of lines.
#[inline]
pub fn by_line(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let (mut offset, mut rest) = (offset, bytes);
    std::iter::from_fn(move || {
        let room = LINE.saturating_sub(offset % LINE) as usize;
        let (piece, left) = rest.split_at_checked(room.min(rest.len()))?;
        let found = (!piece.is_empty()).then_some((offset, piece));
        offset = offset.saturating_add(piece.len() as u64);
        rest = left;
        found
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn stores_are_cut_at_lines_and_come_back() {
        let bytes: Vec<u8> = (0..200).collect();
        let mut out = Vec::new();
        push_store(&mut out, 60, &bytes);
        assert_eq!(out.len() % 8, 0);
        let mut next = 60;
        for record in records(&out) {
            let record = record.unwrap();
            assert_eq!((record.kind, record.place), (Kind::Store, next));
            assert_eq!(record.payload, &bytes[next as usize - 60..][..record.payload.len()]);
            next += record.payload.len() as u64;
        }
        assert_eq!(next, 260);
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..if cfg!(miri) { 100 } else { 200_000 } {
            let mut bytes = [0u8; 96];
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 33) as u8;
            }
            bytes[0] %= 12;
            bytes[1] %= 3;
            bytes[3] = 0;
            for record in records(&bytes).flatten() {
                let extent = record.extent();
                assert!(record.lines().all(|(offset, ..)| extent.is_some_and(|(start, _)| offset >= start)));
                let _ = (record.atomic().and_then(|body| body.op()), record.sync(), record.object());
            }
        }
    }

    #[test]
    fn what_crosses_a_line_or_page_is_refused() {
        assert_eq!(shape(header(Kind::Store, 0, 8, 0), 60), None);
        assert_eq!(shape(header(Kind::Store, 0, 0, 0), 0), None);
        assert_eq!(shape(header(Kind::Bulk, 0, 2, 0), PAGE - 64), None);
        assert_eq!(shape(header(Kind::Bulk, 0, 1, 0), 8), None);
        assert!(shape(header(Kind::Bulk, MASKED, 64, 0), PAGE).is_some_and(|(.., words, _)| words == LONGEST));
    }

    #[test]
    fn masks_travel_with_their_lines() {
        let mut bytes = header(Kind::Bulk, MASKED, 2, 0).to_le_bytes().to_vec();
        bytes.extend_from_slice(&128u64.to_le_bytes());
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(&3u64.to_le_bytes());
        bytes.extend_from_slice(&[7; 128]);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!(record.lines().map(|(offset, mask, _)| (offset, mask)).collect::<Vec<_>>(), [(128, 1), (192, 3)]);
        assert_eq!(record.extent(), Some((128, 128)));
    }
}
