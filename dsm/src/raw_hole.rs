//! Raw holes: for pointers, C and the kernel. The view itself is writable for the scope.

use crate::hole::{Covered, publish};
use crate::region::Region;
use crate::{Error, Result};
use dsm_core::limits::PAGE;
use dsm_core::memory::{Mapped, Memory};
use dsm_core::sys::map::{Access, Range};
use std::sync::PoisonError;

/// Pages of the view that this process may store to natively until [`RawHole::fill`]; system calls such as
/// `read(2)` may, too.
///
/// For the scope, these pages of the view are private memory of this process: what other hosts (and other processes)
/// store to them is seen here when the hole has been filled. Bytes that the hole did not change keep what others wrote.
///
/// The pages are writable for all threads of the process, and so the hole belongs to the process: it may be sent to
/// another thread and filled there.
///
/// ```
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("sync/example.txt")]
/// let bytes = session.array::<u8>("bytes", 4096)?;
/// let pointer = bytes.as_ptr();
/// let hole = session.raw_hole(pointer, 5)?;
/// // SAFETY: within the array, whose pages are writable for the scope of the hole; no reference is made.
/// unsafe { std::ptr::copy_nonoverlapping(b"hello".as_ptr(), pointer, 5) }; // or `read(2)`, or code in C
/// hole.fill()?;
/// assert_eq!(bytes.range(..5).to_vec(), b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the hole is filled at once when it is not kept"]
pub struct RawHole<'s> {
    region: &'s Region,
    /// First offset, length: whole pages.
    offset: u64,
    len: usize,
    twin: Vec<u8>,
    open: bool,
    _covered: Covered<'s>,
}

impl<'s> RawHole<'s> {
    pub(crate) fn open(region: &'s Region, address: usize, len: usize) -> Result<Self> {
        if let Some(error) = region.lost() {
            return Err(error);
        }
        let outside =
            || Error::NotFound(format!("{len} bytes at {address:#x} do not lie in one segment of the session"));
        let start =
            region.offset_of(address).filter(|offset| len > 0 && region.contains(*offset, len)).ok_or_else(outside)?;
        let first = start - start % PAGE;
        let end = (start + len as u64).next_multiple_of(PAGE);
        let len = (end - first) as usize;
        let covered = Covered::new(region, first, len as u64)?;
        let cannot = |what: &str| Error::system(format!("cannot open a hole of {len} bytes: {what}"));
        let private = Range::private(len).map_err(cannot("no memory"))?;
        let mut twin = vec![0; len];
        region.read(first, &mut twin);
        // SAFETY: `private` has `len` bytes, ours alone.
        unsafe { Mapped::new(private.base()) }.write(0, &twin);
        region.space.take_over(first as usize, private).map_err(cannot("cannot map it"))?;
        Ok(Self { region, offset: first, len, twin, open: true, _covered: covered })
    }

    /// Publishes what changed, and ends the hole.
    ///
    /// # Errors
    /// When the session has ended, or the pages cannot be mapped as before.
    pub fn fill(mut self) -> Result<()> {
        self.close()
    }

    fn close(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.open, false) {
            return Ok(());
        }
        let Self { region, offset, len, .. } = *self;
        let at = offset as usize;
        let cannot = |what: &str| Error::system(format!("cannot fill a hole of {len} bytes: {what}"));
        // From here on other threads' stores trap again, and are captured.
        region.space.protect(at, len, Access::Read).map_err(cannot("cannot protect it"))?;
        let mut new = vec![0; len];
        // SAFETY: the pages of the view are mapped, and offset 0 of the view is where `address(0)` says.
        unsafe { Mapped::new(region.address(0)) }.read(offset, &mut new);
        let lost = region.lost().or_else(|| publish(region, offset, &new, &self.twin).err());
        let segments = region.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let of = segments.iter().find(|s| s.info.offset <= offset && offset < s.info.offset + s.info.len);
        if let Some(segment) = of {
            let from = offset - segment.info.offset;
            let mapped = region.space.map_file_part(at, len, Access::Read, &segment.file, from);
            mapped.map_err(cannot("cannot map it again"))?;
        }
        lost.map_or(Ok(()), Err)
    }
}

impl Drop for RawHole<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            eprintln!("dsm: a hole was dropped and its changes may be lost: {error}");
        }
    }
}
