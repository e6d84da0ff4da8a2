//! What a value has in it that only a protocol of its own may touch: what is under a lock, and published values.
//!
//! Of such a part there is a handle, but no way around the protocol: no field of it can be named
//! ([`SharedType::field_of`](super::SharedType)), a hole leaves it as it was, the kernel does not store to it, and a
//! [`Pointer`](super::Pointer) into it cannot be followed.

use super::layout::{Argument, Kind, Layout};
use super::pointer::BadPointer;
use crate::region::Region;
use dsm_core::limits::SEGMENTS;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64};

/// The types with such a protocol, by their names in layouts.
const OPAQUE: [&str; 3] = ["Mutex", "RwLock", "Versioned"];

/// Whether only a protocol leads to what is in this type. No struct that is declared with the attribute can be taken for
/// one: its parameters are numbers.
pub(crate) const fn is_opaque(layout: &Layout) -> bool {
    let Kind::Struct { name, arguments: [Argument::Type(_)], .. } = layout.kind else { return false };
    let mut index = 0;
    while index < OPAQUE.len() {
        if same(name, OPAQUE[index]) {
            return true;
        }
        index += 1;
    }
    false
}

/// Whether there is something opaque in it.
pub(crate) const fn has_opaque(layout: &Layout) -> bool {
    if is_opaque(layout) {
        return true;
    }
    match layout.kind {
        Kind::Array { element, .. } => has_opaque(element),
        Kind::Struct { fields, .. } => {
            let mut index = 0;
            while index < fields.len() {
                if has_opaque(fields[index].layout) {
                    return true;
                }
                index += 1;
            }
            false
        }
        _ => false,
    }
}

/// Whether a value of the type with this fingerprint is the first thing in it, in the open.
pub(super) const fn begins_with(layout: &Layout, fingerprint: u64) -> bool {
    if layout.fingerprint == fingerprint {
        return true;
    }
    match layout.kind {
        _ if is_opaque(layout) => false,
        Kind::Array { element, .. } => begins_with(element, fingerprint),
        Kind::Struct { fields, .. } if !fields.is_empty() => begins_with(fields[0].layout, fingerprint),
        _ => false,
    }
}

/// The layout of field number `index` of a struct.
pub(super) const fn field_layout(layout: &Layout, index: usize) -> &'static Layout {
    match layout.kind {
        Kind::Struct { fields, .. } => fields[index].layout,
        _ => panic!("only a struct has fields"),
    }
}

const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

/// Makes the opaque parts of one or several values what they were.
pub(crate) fn restore(layout: &Layout, values: &mut [u8], before: &[u8]) {
    if is_opaque(layout) {
        return values.copy_from_slice(before);
    }
    if !has_opaque(layout) {
        return;
    }
    for (value, before) in values.chunks_exact_mut(layout.size).zip(before.chunks_exact(layout.size)) {
        match layout.kind {
            Kind::Array { element, .. } => restore(element, value, before),
            Kind::Struct { fields, .. } => {
                for field in fields {
                    let range = field.offset..field.offset + field.layout.size;
                    restore(field.layout, &mut value[range.clone()], &before[range]);
                }
            }
            _ => {}
        }
    }
}

/// What this process knows the segments of a session to consist of.
///
/// Without a lock, so that a `fork` at any time leaves it usable.
#[derive(Debug)]
pub(crate) struct Types(Box<[Known]>);

#[derive(Debug, Default)]
struct Known {
    /// Where the segment begins; 0 of one that is not known.
    start: AtomicU64,
    /// Bytes that hold values.
    len: AtomicU64,
    /// Layout of one of the values that follow each other.
    layout: AtomicPtr<Layout>,
}

impl Default for Types {
    fn default() -> Self {
        Self((0..SEGMENTS).map(|_| Default::default()).collect())
    }
}

impl Types {
    /// `len` bytes of the segment at `start`, which is not 0, are such values. Its place is not used for another segment.
    pub(crate) fn know(&self, start: u64, len: u64, layout: &'static Layout) {
        for known in &self.0 {
            // Nothing is published by it but itself.
            match known.start.compare_exchange(0, start, Relaxed, Relaxed) {
                Err(other) if other != start => {}
                _ => {
                    known.layout.store(ptr::from_ref(layout).cast_mut(), Relaxed);
                    // Release: pairs with the Acquire in `segment_of`. It may have grown.
                    known.len.fetch_max(len, Release);
                    return;
                }
            }
        }
    }

    /// Where the segment begins in which these bytes lie, and what it consists of.
    fn segment_of(&self, offset: u64, len: usize) -> Option<(u64, &'static Layout)> {
        let end = offset.checked_add(len as u64)?;
        for known in &self.0 {
            let start = known.start.load(Relaxed);
            if start == 0 {
                return None;
            }
            // Acquire: pairs with the Release in `know`; with a length, there is a layout.
            if start <= offset && end - start <= known.len.load(Acquire) {
                // SAFETY: null, or made of a reference to a layout, which lasts for ever.
                return unsafe { known.layout.load(Relaxed).as_ref() }.map(|layout| (start, layout));
            }
        }
        None
    }
}

/// Whether a value of the type is at `offset`, in the open.
pub(super) fn find(region: &Region, offset: u64, wanted: &Layout) -> Result<(), BadPointer> {
    let (start, mut layout) = region.types.segment_of(offset, wanted.size).ok_or(BadPointer::Outside(offset))?;
    let mut within = (offset - start) as usize;
    within %= layout.size;
    loop {
        if within == 0 && layout.fingerprint == wanted.fingerprint {
            return Ok(());
        }
        if is_opaque(layout) {
            return Err(BadPointer::Locked(offset));
        }
        layout = match layout.kind {
            Kind::Array { element, .. } => {
                within %= element.size;
                element
            }
            Kind::Struct { fields, .. } => {
                let at = fields.partition_point(|field| field.offset <= within);
                let field = at.checked_sub(1).map(|at| &fields[at]).ok_or(BadPointer::OtherType(offset))?;
                within -= field.offset;
                field.layout
            }
            _ => return Err(BadPointer::OtherType(offset)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field;
    use crate::typed::layout::Field;
    use crate::typed::{SharedType, Versioned};

    const DESK: &Layout = &Layout::structure(
        "Desk",
        24,
        4,
        &[
            Field::new("number", 0, u32::LAYOUT),
            Field::new("locks", 4, <[field::Mutex<u32>; 3]>::LAYOUT),
            Field::new("limits", 16, <field::RwLock<[u16; 2]>>::LAYOUT),
            Field::new("seats", 20, <field::Semaphore<2>>::LAYOUT),
        ],
    );

    #[test]
    fn opaque_is_what_has_a_protocol() {
        for layout in [<field::Mutex<u8>>::LAYOUT, <field::RwLock<u8>>::LAYOUT, <Versioned<u64>>::LAYOUT] {
            assert!(is_opaque(layout) && has_opaque(layout));
        }
        let own = Layout::structure("Mutex", 4, 4, const { &[Field::new("value", 0, u32::LAYOUT)] });
        for layout in [u64::LAYOUT, <field::Semaphore<2>>::LAYOUT, <crate::List<u8, 4>>::LAYOUT, &own] {
            assert!(!is_opaque(layout) && !has_opaque(layout), "{layout}");
        }
        assert!(has_opaque(DESK) && has_opaque(&Layout::array(DESK, 2)) && !is_opaque(DESK));
    }

    #[test]
    fn what_is_in_the_open_begins_there() {
        assert!(begins_with(DESK, u32::LAYOUT.fingerprint));
        assert!(begins_with(<[[u16; 3]; 2]>::LAYOUT, u16::LAYOUT.fingerprint));
        assert!(!begins_with(<[field::Mutex<u32>; 3]>::LAYOUT, u32::LAYOUT.fingerprint));
        assert!(!begins_with(DESK, u16::LAYOUT.fingerprint));
    }

    #[test]
    fn opaque_parts_are_restored_and_no_others() {
        let before: Vec<u8> = (0..48).collect();
        let mut values: Vec<u8> = before.iter().map(|byte| byte + 100).collect();
        restore(DESK, &mut values, &before);
        for (at, (value, before)) in values.iter().zip(&before).enumerate() {
            let opaque = (4..20).contains(&(at % 24));
            assert_eq!(*value, if opaque { *before } else { *before + 100 }, "byte {at}");
        }
    }
}
