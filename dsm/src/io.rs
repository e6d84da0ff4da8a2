//! Input into shared memory, and output from it.
//!
//! The view is read-only, and what the kernel stores on behalf of a system call is no instruction that could be
//! captured: `read(2)`, `recv(2)`, `getrandom(2)` and their like fail with `EFAULT` when they are given memory of a
//! session (as [`Shared::as_ptr`](crate::Shared::as_ptr) gives it), and store nothing. The functions here have the
//! kernel store to private memory instead, and publish what came, in bulk, in the order of this host's stores.
//!
//! ```no_run
//! # fn main() -> dsm::Result<()> {
//! # let session = dsm::Session::join("pictures")?;
//! let pixels = session.array::<u32>("pixels", 1 << 20)?;
//! let mut file = std::fs::File::open("picture.raw")?;
//! dsm::io::read_exact_into(&mut file, pixels)?;
//!
//! let socket = std::net::UdpSocket::bind("127.0.0.1:7000")?;
//! let bytes = session.array::<u8>("datagram", 65536)?;
//! // Any call that fills a buffer and says how far.
//! let received = dsm::io::fill_with(bytes, |buffer| socket.recv(buffer))?;
//! # let _ = received;
//! # Ok(())
//! # }
//! ```
//!
//! Exactly those bytes are stored that were read, whatever was there before: what comes after them keeps what it has,
//! also what other hosts store there meanwhile. Lengths are in bytes, as everywhere in [`std::io`]; a read may end in
//! the middle of an element.
//!
//! The kernel may read shared memory: `write(2)` and `send(2)` from a pointer into the view work. From safe Rust,
//! where a slice of memory that others change must not exist, use [`write_from`].
//!
//! For calls that take pointers of their own into shared memory (C libraries, `readv`), make the memory writable for a
//! scope with [`Session::raw_hole`](crate::Session::raw_hole).

use crate::Error;
use crate::hole::Buffer;
use crate::patient::publish_all;
use crate::place::Place;
use crate::typed::{Shared, SharedType, Slice, has_opaque};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;

/// Bytes that [`read_exact_into`] and [`write_all_from`] move at a time.
const PIECE: usize = 1 << 20;

mod sealed {
    pub trait Sealed {}
    impl<T> Sealed for crate::Shared<'_, T> {}
    impl<T> Sealed for crate::Slice<'_, T> {}
}

/// Shared memory that can be read into or written from: the typed handles [`Shared`] and [`Slice`]. (Of what has locks,
/// or published values, in it, only the other fields can.)
pub trait Target<'s>: sealed::Sealed {
    #[doc(hidden)]
    fn bytes(self) -> Slice<'s, u8>;
}

/// Fails the build if there is something in a `T` that must not be stored to, or read, as bytes.
const fn assert_open<T: SharedType>() {
    assert!(
        !has_opaque(T::LAYOUT),
        "what has a lock or a `Versioned` in it is not read or written as bytes: use its other fields"
    );
}

impl<'s, T: SharedType> Target<'s> for Shared<'s, T> {
    fn bytes(self) -> Slice<'s, u8> {
        const { assert_open::<T>() }
        // SAFETY: a `T` is that many bytes, mapped for `'s`, and any bytes make a `T` (contract of `SharedType`).
        unsafe { Slice::new(self.place(), size_of::<T>()) }
    }
}

impl<'s, T: SharedType> Target<'s> for Slice<'s, T> {
    fn bytes(self) -> Slice<'s, u8> {
        const { assert_open::<T>() }
        // SAFETY: as for one `T`; the elements follow each other without gaps.
        unsafe { Slice::new(self.place(), self.len() * size_of::<T>()) }
    }
}

/// Calls `fill` once with a private buffer of as many bytes as `to` has, and stores the first bytes of it, as many as
/// `fill` says. Returns that number.
///
/// What the buffer holds before is not said.
///
/// # Errors
/// What `fill` returns: nothing is stored then. When the session has ended, also while this waits for room for what came,
/// an error whose inner one is this crate's [`Error`].
///
/// # Panics
/// When `fill` says that it filled more than there is.
pub fn fill_with<'s>(to: impl Target<'s>, fill: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
    let to = to.bytes();
    let mut buffer = ready(to.place(), to.len())?;
    let count = fill(buffer.bytes_mut(to.len()))?;
    assert!(count <= to.len(), "{count} bytes were read into a buffer of {}", to.len());
    publish_all(to.place(), buffer.bytes(count), None)?;
    Ok(count)
}

/// Reads once, as [`Read::read`]: returns how many bytes came, 0 at the end (or when `to` is empty).
///
/// # Errors
/// What the reader returns: nothing is stored then. See [`fill_with`].
pub fn read_into<'s>(reader: &mut (impl Read + ?Sized), to: impl Target<'s>) -> io::Result<usize> {
    fill_with(to, |buffer| reader.read(buffer))
}

/// Fills all of `to`, as [`Read::read_exact`].
///
/// # Errors
/// [`ErrorKind::UnexpectedEof`] when there is less, else what the reader returns. What came before is stored.
pub fn read_exact_into<'s>(reader: &mut (impl Read + ?Sized), to: impl Target<'s>) -> io::Result<()> {
    exact(to.bytes(), |buffer, _| reader.read(buffer))
}

/// Reads once from a place in a file, as [`FileExt::read_at`].
///
/// # Errors
/// As [`read_into`].
pub fn read_at_into<'s>(file: &File, to: impl Target<'s>, offset: u64) -> io::Result<usize> {
    fill_with(to, |buffer| file.read_at(buffer, offset))
}

/// Fills all of `to` from a place in a file, as [`FileExt::read_exact_at`].
///
/// # Errors
/// As [`read_exact_into`].
pub fn read_exact_at_into<'s>(file: &File, to: impl Target<'s>, offset: u64) -> io::Result<()> {
    exact(to.bytes(), |buffer, done| file.read_at(buffer, offset + done as u64))
}

/// Writes once, as [`Write::write`], what `from` holds now. Returns how many of its bytes were written.
///
/// # Errors
/// What the writer returns.
pub fn write_from<'s>(writer: &mut (impl Write + ?Sized), from: impl Target<'s>) -> io::Result<usize> {
    let from = from.bytes();
    let count = from.len().min(PIECE);
    let mut buffer = ready(from.place(), count)?;
    let buffer = buffer.bytes_mut(count);
    from.range(..count).copy_to_slice(buffer);
    writer.write(buffer)
}

/// Writes all of `from`, as [`Write::write_all`]. Not a consistent snapshot unless a semaphore keeps others away.
///
/// # Errors
/// What the writer returns.
pub fn write_all_from<'s>(writer: &mut (impl Write + ?Sized), from: impl Target<'s>) -> io::Result<()> {
    let from = from.bytes();
    let mut buffer = ready(from.place(), from.len().min(PIECE))?;
    for start in (0..from.len()).step_by(PIECE) {
        let count = PIECE.min(from.len() - start);
        let buffer = buffer.bytes_mut(count);
        from.range(start..start + count).copy_to_slice(buffer);
        writer.write_all(buffer)?;
    }
    Ok(())
}

/// Reads until all is full; `read` is told how much came before. Every read's bytes are stored at once.
fn exact(to: Slice<'_, u8>, mut read: impl FnMut(&mut [u8], usize) -> io::Result<usize>) -> io::Result<()> {
    let mut buffer = ready(to.place(), to.len().min(PIECE))?;
    let mut done = 0;
    while done < to.len() {
        let wanted = PIECE.min(to.len() - done);
        match read(buffer.bytes_mut(wanted), done) {
            Ok(0) => {
                let text = format!("{} bytes were to be read, there were {done}", to.len());
                return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
            }
            Ok(count) => {
                assert!(count <= wanted, "{count} bytes were read into a buffer of {wanted}");
                publish_all(to.place().at(done), buffer.bytes(count), None)?;
                done += count;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A buffer, if what comes into it can still be shared.
fn ready(place: Place<'_>, len: usize) -> io::Result<Buffer<'_>> {
    let region = place.region();
    if let Some(error) = region.lost() {
        return Err(error.into());
    }
    Ok(Buffer::new(region, len)?)
}

/// For I/O code: what the session's end causes, among the other errors of I/O.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::TimedOut(_) => Self::new(ErrorKind::TimedOut, error),
            Error::SessionEnded { .. } | Error::ArbiterGone { .. } => Self::new(ErrorKind::BrokenPipe, error),
            error => Self::other(error),
        }
    }
}

/// So that `?` works in functions that return this crate's [`Result`].
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::System { what: "input or output failed".into(), source },
        }
    }
}
