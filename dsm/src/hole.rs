//! Holes: scopes for bulk changes. Within one, a value is changed natively, in a private working copy; when it is
//! filled, what changed is published in bulk (twin and diff).
//!
//! The working copy is why `&mut T` is sound here: a reference into memory that another host can change would be
//! undefined behaviour.

use crate::patient::patiently;
use crate::place::Place;
use crate::region::Region;
use crate::typed::{Shared, SharedType, Slice, has_opaque, restore};
use crate::{Error, Result};
use dsm_core::diff;
use dsm_core::limits::PAGE;
use dsm_core::sys::map::Range;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

/// A working copy of a shared value, or of a run of them.
///
/// What others write meanwhile to bytes that this hole does not change survives. What is under a lock, or a
/// [`Versioned`](crate::Versioned), is left as it is, whatever becomes of its copy in here: it is changed by its own
/// methods.
///
/// The copy is private to the hole, not to a thread: a hole may be sent to another thread and filled there.
///
/// ```
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("sync/example.txt")]
/// let numbers = session.array::<u32>("numbers", 100)?;
/// let mut hole = numbers.range(..10).hole()?;
/// hole.iter_mut().zip(1..).for_each(|(to, number)| *to = number);
/// hole.reverse();
/// assert_eq!(numbers.get(0), 0); // not yet
/// hole.fill()?;
/// assert_eq!((numbers.get(0), numbers.get(9), numbers.get(10)), (10, 1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the hole is filled at once when it is not kept"]
pub struct Hole<'s, T: SharedType> {
    place: Place<'s>,
    len: usize,
    /// What the program changes, and what it was before: page-aligned, each good for `len` elements.
    work: Buffer<'s>,
    twin: Buffer<'s>,
    covered: Covered<'s>,
    open: bool,
    _elements: PhantomData<T>,
}

/// Private memory, taken from the region's stock and given back to it: fresh pages for every hole would cost more
/// than the hole.
#[derive(Debug)]
pub(crate) struct Buffer<'s> {
    region: &'s Region,
    range: Option<Range>,
}

/// What is copied at a time when a hole is opened, in bytes.
const PIECE: usize = 8 << 10;
/// What the stock keeps, in bytes.
const STOCK: usize = 64 << 20;

impl<'s> Buffer<'s> {
    pub(crate) fn new(region: &'s Region, len: usize) -> Result<Self> {
        let mut stock = region.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that fits, unless it is far too large.
        let fits = |range: &Range| range.len() >= len && range.len() / 4 <= len.max(1 << 16);
        let found = (0..stock.len()).filter(|at| fits(&stock[*at])).min_by_key(|at| stock[*at].len());
        let range = match found {
            Some(at) => stock.swap_remove(at),
            None => {
                // An empty hole is allowed: a rank may have no share of what is divided.
                let len = len.max(1).next_multiple_of(PAGE as usize);
                Range::private(len).map_err(Error::system(format!("no memory for a hole of {len} bytes")))?
            }
        };
        Ok(Self { region, range: Some(range) })
    }

    fn base(&self) -> *mut u8 {
        self.range.as_ref().map_or(std::ptr::null_mut(), Range::base)
    }

    pub(crate) fn bytes(&self, len: usize) -> &[u8] {
        // SAFETY: private memory of at least `len` initialised bytes (mapped as zeros), borrowed as `self` is.
        unsafe { std::slice::from_raw_parts(self.base(), len) }
    }

    pub(crate) fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        // SAFETY: as in `bytes`, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.base(), len) }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let Some(range) = self.range.take() else { return };
        let mut stock = self.region.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if stock.iter().map(Range::len).sum::<usize>() + range.len() <= STOCK {
            stock.push(range);
        }
    }
}

/// A hole over a single value: dereferences to it. See [`Hole`].
///
/// ```
/// #[dsm::shared]
/// pub struct Board {
///     pub turn: u32,
///     pub phase: u32,
/// }
///
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("sync/example.txt")]
/// let board = session.open::<Board>("board")?;
/// let mut hole = board.hole()?;
/// (hole.turn, hole.phase) = (7, 8);
/// hole.fill()?;
/// assert_eq!(board.load().turn, 7);
/// # Ok(())
/// # }
/// ```
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
        const { assert!(align_of::<T>() <= PAGE as usize) }
        let bytes = len * size_of::<T>();
        let covered = Covered::new(region, place.offset(), bytes as u64)?;
        let (mut work, mut twin) = (Buffer::new(region, bytes)?, Buffer::new(region, bytes)?);
        // In pieces that stay in the nearest cache between the two copies.
        let pieces = twin.bytes_mut(bytes).chunks_mut(PIECE).zip(work.bytes_mut(bytes).chunks_mut(PIECE));
        for ((twin, work), at) in pieces.zip((place.offset()..).step_by(PIECE)) {
            region.read(at, twin);
            work.copy_from_slice(twin);
        }
        if const { !T::LAYOUT.plain } {
            // Both, so that what the check changes is not taken for a change by the program.
            T::LAYOUT.check(twin.bytes_mut(bytes))?;
            T::LAYOUT.check(work.bytes_mut(bytes))?;
        }
        Ok(Self { place, len, work, twin, covered, open: true, _elements: PhantomData })
    }

    fn publish(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.open, false) {
            return Ok(());
        }
        let region = self.place.region();
        if let Some(error) = region.lost() {
            return Err(error);
        }
        let len = self.len * size_of::<T>();
        if const { has_opaque(T::LAYOUT) } {
            restore(T::LAYOUT, self.work.bytes_mut(len), self.twin.bytes(len));
        }
        publish(region, self.place.offset(), self.work.bytes(len), self.twin.bytes(len))
    }

    /// Publishes what changed, and ends the hole. What has changed is on its way then, in order with all else that
    /// this host does.
    ///
    /// # Errors
    /// When the session has ended, also while this waits for room for the changes, of which some are on their way then;
    /// dropping the hole instead would only say so on stderr.
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
///
/// # Errors
/// When the session has ended, or ends while this waits for room.
pub(crate) fn publish(region: &Region, offset: u64, new: &[u8], old: &[u8]) -> Result<()> {
    patiently(region, |writer| {
        diff::changes(offset, new, old, |offset, masks, lines| {
            region.with_log(|| region.log().publish(region.memory(), writer, offset, masks, lines));
        });
    })
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
        // SAFETY: page-aligned private memory of `len` elements; bytes that were checked, if need be, make a `T`
        // (contract of `SharedType`).
        unsafe { std::slice::from_raw_parts(self.work.base().cast(), self.len) }
    }
}

impl<T: SharedType> DerefMut for Hole<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and nobody else has it; a `T` has no padding, so the bytes stay initialised.
        unsafe { std::slice::from_raw_parts_mut(self.work.base().cast(), self.len) }
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
        &self.0[0]
    }
}

impl<T: SharedType> DerefMut for ValueHole<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0[0]
    }
}

impl<'s, T: SharedType> Shared<'s, T> {
    /// Opens a hole: a scope in which the value is plain `&mut T`, in a working copy, published by
    /// [`ValueHole::fill`] or when the hole is dropped.
    ///
    /// # Errors
    /// [`Error::HolesOverlap`] when another hole of this process covers some of it; [`Error::InvalidValue`] when another process has
    /// stored bytes that make no value; when the session has ended.
    pub fn hole(self) -> Result<ValueHole<'s, T>> {
        Hole::open(self.place(), 1).map(ValueHole)
    }
}

impl<'s, T: SharedType> Slice<'s, T> {
    /// Opens a hole over all elements: plain `&mut [T]`, in a working copy, published by [`Hole::fill`] or when the
    /// hole is dropped. For some of them: `slice.range(a..b).hole()`.
    ///
    /// # Errors
    /// [`Error::HolesOverlap`] when another hole of this process covers some of it; [`Error::InvalidValue`] when another process has
    /// stored bytes that make no value; when the session has ended.
    pub fn hole(self) -> Result<Hole<'s, T>> {
        Hole::open(self.place(), self.len())
    }
}
