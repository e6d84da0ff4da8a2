//! Holes: scopes for bulk changes. Within one, a value is changed natively, in a private working copy; when it is
//! filled, what changed is published in bulk (twin and diff).
//!
//! The working copy is why `&mut T` is sound here: a reference into memory that another host can change would be
//! undefined behaviour.

use crate::place::Place;
use crate::region::Region;
use crate::typed::{Shared, SharedType, Slice};
use crate::{Error, Result};
use dsm_core::diff;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

/// A working copy of a shared value, or of a run of them.
///
/// What others write meanwhile to bytes that this hole does not change survives.
#[derive(Debug)]
#[must_use = "the hole is filled at once when it is not kept"]
pub struct Hole<'s, T: SharedType> {
    place: Place<'s>,
    work: Box<[T]>,
    twin: Box<[T]>,
    covered: Covered<'s>,
    open: bool,
}

/// A hole over a single value: dereferences to it.
#[derive(Debug)]
#[must_use = "the hole is filled at once when it is not kept"]
pub struct ValueHole<'s, T: SharedType>(Hole<'s, T>);

/// A range of the session that is under a hole of this process, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Covered<'s> {
    region: &'s Region,
    range: (u64, u64),
}

impl<'s> Covered<'s> {
    pub(crate) fn new(region: &'s Region, start: u64, len: u64) -> Result<Self> {
        let end = start + len;
        let mut holes = region.holes.lock().unwrap_or_else(PoisonError::into_inner);
        if holes.iter().any(|(from, to)| *from < end && start < *to) {
            return Err(Error::HolesOverlap { start, end });
        }
        holes.push((start, end));
        Ok(Self { region, range: (start, end) })
    }
}

impl Drop for Covered<'_> {
    fn drop(&mut self) {
        let mut holes = self.region.holes.lock().unwrap_or_else(PoisonError::into_inner);
        holes.retain(|range| *range != self.range);
    }
}

impl<'s, T: SharedType> Hole<'s, T> {
    fn open(place: Place<'s>, len: usize) -> Result<Self> {
        let region = place.region();
        if let Some(error) = region.lost() {
            return Err(error);
        }
        let covered = Covered::new(region, place.offset(), (len * size_of::<T>()) as u64)?;
        let mut work = Box::<[T]>::new_uninit_slice(len);
        // SAFETY: the allocation is this long, and the segment has as many bytes at `place` (contract of the handle).
        unsafe { region.read_to(place.offset(), work.as_mut_ptr().cast(), len * size_of::<T>()) };
        // SAFETY: initialised just above, and any bytes make a `T` (contract of `SharedType`).
        let work = unsafe { work.assume_init() };
        let twin = work.clone();
        Ok(Self { place, work, twin, covered, open: true })
    }

    fn publish(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.open, false) {
            return Ok(());
        }
        let region = self.place.region();
        if let Some(error) = region.lost() {
            return Err(error);
        }
        publish(region, self.place.offset(), bytes(&self.work), bytes(&self.twin));
        Ok(())
    }

    /// Publishes what changed, and ends the hole. What has changed is on its way then, in order with all else that
    /// this host does.
    ///
    /// # Errors
    /// When the session has ended; dropping the hole instead would only say so on stderr.
    pub fn fill(mut self) -> Result<()> {
        self.publish()
    }

    /// Ends the hole without publishing anything.
    pub fn discard(mut self) {
        self.open = false;
    }

    /// Offsets of the session under the hole.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<u64> {
        self.covered.range.0..self.covered.range.1
    }
}

/// Publishes the bytes in which `new` differs from `old`.
pub(crate) fn publish(region: &Region, offset: u64, new: &[u8], old: &[u8]) {
    diff::changes(offset, new, old, |offset, lines| {
        region.with_log(|| region.log().publish(region.memory(), region, offset, lines));
    });
}

fn bytes<T: SharedType>(values: &[T]) -> &[u8] {
    // SAFETY: a `SharedType` has no padding, so all its bytes are initialised; `u8` needs no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

impl<T: SharedType> Drop for Hole<'_, T> {
    fn drop(&mut self) {
        if let Err(error) = self.publish() {
            eprintln!("dsm: a hole was dropped and its changes are lost: {error}");
        }
    }
}

impl<T: SharedType> Deref for Hole<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.work
    }
}

impl<T: SharedType> DerefMut for Hole<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.work
    }
}

impl<T: SharedType> ValueHole<'_, T> {
    /// As [`Hole::fill`].
    ///
    /// # Errors
    /// When the session has ended.
    pub fn fill(self) -> Result<()> {
        self.0.fill()
    }

    /// Ends the hole without publishing anything.
    pub fn discard(self) {
        self.0.discard();
    }
}

impl<T: SharedType> Deref for ValueHole<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.work[0]
    }
}

impl<T: SharedType> DerefMut for ValueHole<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.work[0]
    }
}

impl<'s, T: SharedType> Shared<'s, T> {
    /// Opens a hole: a scope in which the value is plain `&mut T`, in a working copy, published by
    /// [`ValueHole::fill`] or when the hole is dropped.
    ///
    /// # Errors
    /// [`Error::HolesOverlap`] when another hole of this process covers some of it; when the session has ended.
    pub fn hole(self) -> Result<ValueHole<'s, T>> {
        Hole::open(self.place(), 1).map(ValueHole)
    }
}

impl<'s, T: SharedType> Slice<'s, T> {
    /// Opens a hole over all elements: plain `&mut [T]`, in a working copy, published by [`Hole::fill`] or when the
    /// hole is dropped. For some of them: `slice.range(a..b).hole()`.
    ///
    /// # Errors
    /// [`Error::HolesOverlap`] when another hole of this process covers some of it; when the session has ended.
    pub fn hole(self) -> Result<Hole<'s, T>> {
        Hole::open(self.place(), self.len())
    }
}
