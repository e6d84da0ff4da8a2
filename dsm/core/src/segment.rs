//! Segments: named extents of a session's space of offsets.

use crate::limits::{FIELDS, NAME, PAGE, SEGMENT};
use serde::{Deserialize, Serialize};

/// One field of what a segment holds, for messages to people and for finding what differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FieldDesc {
    /// Dotted path from the outermost struct, `pos.x`.
    pub path: String,
    /// Type as the user would write it, `[u64; 64]`.
    pub ty: String,
    /// Offset from the start of the outermost struct, in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

impl FieldDesc {
    /// A field.
    pub fn new(path: String, ty: String, offset: u64, size: u64) -> Self {
        Self { path, ty, offset, size }
    }
}

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeDesc {
    /// Name of the type.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Hash of names, types, offsets and sizes.
    pub fingerprint: u64,
    /// The fields, nested ones flattened.
    pub fields: Vec<FieldDesc>,
}

impl TypeDesc {
    /// What differs between the type that is `wanted` and this one, in words, or `None` where nothing does.
    pub fn difference(&self, wanted: &Self) -> Option<String> {
        if self.fingerprint == wanted.fingerprint && self.size == wanted.size {
            return None;
        }
        let difference = crate::difference::first_difference(&wanted.fields, &self.fields);
        Some(difference.unwrap_or_else(|| format!("here the type is `{}`, there `{}`", wanted.name, self.name)))
    }
}

/// A segment as everybody knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// Number in the session, from 0.
    pub id: u32,
    /// First offset: whole pages.
    pub offset: u64,
    /// Length in bytes: whole pages.
    pub len: u64,
    /// Length in bytes as it was asked for.
    pub bytes: u64,
    /// Name.
    pub name: String,
    /// What it holds.
    pub ty: TypeDesc,
}

/// What somebody asks for when opening a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSegment {
    /// Name.
    pub name: String,
    /// Bytes that are needed.
    pub len: u64,
    /// What it is to hold.
    pub ty: TypeDesc,
    /// What to do when it exists, or does not.
    pub mode: OpenMode,
    /// Offsets to be kept for it to grow, in bytes, when it is created; fewer where there are not so many.
    pub room: u64,
}

/// Whether to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenMode {
    /// Attach, or create as zeros.
    OpenOrCreate,
    /// Create; an error when it exists.
    CreateNew,
    /// Attach; an error when it does not exist.
    Attach,
    /// Make it longer if it is too short, and attach; an error when it does not exist.
    Grow,
}

/// Why a name cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing there.
    #[error("a name cannot be empty")]
    Empty,
    /// Too long; never cut.
    #[error("a name of {0} bytes is too long: at most {NAME} are allowed")]
    TooLong(usize),
    /// A character that would not survive a terminal, a file name or a shell.
    #[error("the name {0:?} contains {1:?}: use letters, digits and any of `._-/:@+` ")]
    Character(String, char),
}

/// Checks the name of a session, segment, semaphore or barrier: 1 to 255 bytes of letters, digits and `._-/:@+`.
///
/// # Errors
/// [`BadName`] says what is wrong with it.
pub fn check_name(name: &str) -> Result<(), BadName> {
    if name.is_empty() {
        return Err(BadName::Empty);
    }
    if name.len() > NAME {
        return Err(BadName::TooLong(name.len()));
    }
    match name.chars().find(|c| !c.is_alphanumeric() && !"._-/:@+".contains(*c)) {
        Some(odd) => Err(BadName::Character(name.into(), odd)),
        None => Ok(()),
    }
}

/// Why a request to open a segment cannot be granted to anybody.
pub fn check_open(open: &OpenSegment) -> Result<u64, String> {
    check_name(&open.name).map_err(|bad| bad.to_string())?;
    if open.len == 0 || open.len > SEGMENT {
        return Err(format!("a segment of {} bytes is not possible: 1 to {SEGMENT} are", open.len));
    }
    let longest = open.ty.fields.iter().map(|field| field.path.len().max(field.ty.len())).max().unwrap_or(0);
    if open.ty.fields.len() > FIELDS || longest > 1024 || open.ty.name.len() > 1024 {
        return Err("the type's description is too long".into());
    }
    open.len.checked_next_multiple_of(PAGE).ok_or_else(|| "the length overflows".to_owned())
}

/// A sorted set of extents that do not overlap, to ask whether bytes lie within one or more of them.
#[derive(Clone, Debug, Default)]
pub struct Extents(Vec<(u64, u64)>);

impl Extents {
    /// Adds `[offset, offset + len)`.
    pub fn insert(&mut self, offset: u64, len: u64) {
        let at = self.0.partition_point(|(start, _)| *start < offset);
        self.0.insert(at, (offset, offset.saturating_add(len)));
    }

    /// Are all of these bytes inside?
    #[inline]
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        let Some(end) = offset.checked_add(len) else { return false };
        let mut at = self.0.partition_point(|(_, end)| *end <= offset);
        let mut next = offset;
        while let Some((start, stop)) = self.0.get(at) {
            if *start > next {
                return false;
            }
            if *stop >= end {
                return true;
            }
            next = *stop;
            at = at.saturating_add(1);
        }
        false
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn ty(fields: &[(&str, &str, u64, u64)]) -> TypeDesc {
        let field = |(path, ty, offset, size): &(&str, &str, u64, u64)| FieldDesc {
            path: (*path).into(),
            ty: (*ty).into(),
            offset: *offset,
            size: *size,
        };
        let fields: Vec<_> = fields.iter().map(field).collect();
        let size = fields.iter().map(|f| f.offset + f.size).max().unwrap_or(0);
        let fingerprint = fields.iter().fold(7, |h, f| h * 31 + f.offset + f.size * 7 + f.path.len() as u64);
        TypeDesc { name: "Board".into(), size, fingerprint, fields }
    }

    #[test]
    fn the_first_field_that_differs_is_named() {
        let a = ty(&[("turn", "u32", 0, 4), ("phase", "u32", 4, 4)]);
        let b = ty(&[("turn", "u32", 0, 4), ("phases", "u64", 8, 8)]);
        let text = |found: &TypeDesc, wanted: &TypeDesc| found.difference(wanted).unwrap();
        assert_eq!(text(&a, &b), "the field at byte 8 is `phases: u64` here, but `phase: u32` in the segment");
        let c = ty(&[("turn", "u32", 0, 4)]);
        assert_eq!(text(&a, &c), "the segment has a field `phase: u32`, which is not declared here");
        assert_eq!(text(&c, &a), "field `phase: u32` is declared here, but the segment has none of that name");
        assert_eq!(a.difference(&a.clone()), None);
    }

    #[test]
    fn names_are_checked_and_never_cut() {
        assert!(check_name("a/b.c:1").is_ok());
        assert!(check_name("größe").is_ok());
        assert_eq!(check_name(""), Err(BadName::Empty));
        assert_eq!(check_name(&"x".repeat(256)), Err(BadName::TooLong(256)));
        assert!(matches!(check_name("a b"), Err(BadName::Character(_, ' '))));
        assert!(matches!(check_name("a\nb"), Err(BadName::Character(_, '\n'))));
    }

    #[test]
    fn extents_know_neighbours_and_gaps() {
        let mut extents = Extents::default();
        extents.insert(8192, 4096);
        extents.insert(0, 4096);
        extents.insert(12288, 4096);
        assert!(extents.contains(0, 4096) && extents.contains(8192, 8192) && extents.contains(12280, 16));
        assert!(!extents.contains(4090, 16) && !extents.contains(16380, 8) && !extents.contains(u64::MAX, 8));
        assert!(!extents.contains(4096, 1));
    }
}
