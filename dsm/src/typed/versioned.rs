//! [`Versioned`]: a value of which every reader sees one published state, never a mix of two.

use super::layout::{Argument, Field, Layout};
use super::private::structure;
use super::read_only::ReadOnly;
use super::shared::{Shared, SharedType, bytes_of, its_own_handle};
use crate::patient::publish_all;
use crate::semaphore::SemaphoreGuard;
use crate::sync::{Object, open_at};
use crate::wait::deadline;
use crate::{Error, Result, Semaphore};
use dsm_core::wire::control::SyncKind;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// A value that is published whole, and read whole, on all hosts.
///
/// ```
/// use dsm::Versioned;
///
/// #[dsm::shared]
/// pub struct Position {
///     pub x: f64,
///     pub y: f64,
/// }
///
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("../sync/example.txt")]
/// let position = session.open::<Versioned<Position>>("position")?;
/// position.publish(&Position { x: 1.0, y: 2.0 })?;
/// let seen = position.snapshot()?; // never the `x` of one state with the `y` of another
/// assert_eq!((seen.x, seen.y), (1.0, 2.0));
/// # Ok(())
/// # }
/// ```
///
/// [`Shared::load`] may return a mix, because other hosts store while it copies. Here, two copies of the value take
/// turns under a version: a publisher fills the copy that nobody reads, and then raises the version, which says that
/// this copy counts from now on. A reader copies the one that counts, and starts again if the version is another by then.
/// Since every host's memory is, at every moment, what some beginning of the session's one order of stores makes of it,
/// this holds on all hosts.
///
/// Publishers take turns by a semaphore of the session. One that dies in the middle has changed only the copy that does
/// not count: readers go on with the last published state, and the next publisher gets its turn.
///
/// It is changed by its own methods alone: there is no setter, a struct with one in it is not copied as a whole, and a
/// [hole](crate::Hole) over that struct leaves it as it is.
///
/// `T` can be copied (it has no atomics or locks in it). Where not all bytes make a `T`, as of enums and `char`s, a
/// snapshot is checked as any other copy. The bytes are 16 (the version, and 8 that are reserved) and twice those of `T`. `T` may be aligned to at most 16 bytes,
/// and the whole must have no padding: one of an alignment of 1, 2 or 4 must have a multiple of 4 bytes.
#[repr(C)]
pub struct Versioned<T> {
    _version: u64,
    _reserved: u64,
    _copies: [T; 2],
}

/// Where the copies begin.
const COPIES: usize = 16;

impl<T: SharedType> Versioned<T> {
    const FIELDS: &'static [Field] = &[
        Field::new("version", 0, u64::LAYOUT),
        Field::new("_reserved", 8, u64::LAYOUT),
        Field::new("copies", COPIES, <[T; 2]>::LAYOUT),
    ];

    const ARGUMENTS: &'static [Argument] = &[Argument::Type(T::LAYOUT)];

    const HAS_NO_PADDING: () = {
        assert!(align_of::<T>() <= COPIES, "what is versioned may be aligned to at most 16 bytes");
        assert!(
            size_of::<Self>() == COPIES + 2 * size_of::<T>(),
            "what is versioned must have a multiple of 4 bytes: fill it up by a field `_pad: [u8; N]`"
        );
    };
}

// SAFETY: a struct `repr(C)` of shared types, whose padding is asserted away wherever its layout is used; `Unstructured`
// is a transparent wrapper of the handle.
unsafe impl<T: SharedType + Copy> SharedType for Versioned<T> {
    const LAYOUT: &'static Layout = &{
        let () = Self::HAS_NO_PADDING;
        structure::<Self>("Versioned", Self::FIELDS).with_arguments(Self::ARGUMENTS)
    };
    its_own_handle!();
}

/// Looks at a version that is changing before a reader gives the processor away.
const TRIES: u32 = 16;

impl<'s, T: SharedType + Copy> Shared<'s, Versioned<T>> {
    fn version_word(self) -> Shared<'s, u64> {
        self.part::<u64, 0>()
    }

    /// The copy that counts at `version`.
    fn copy(self, version: u64) -> Shared<'s, T> {
        let copies = self.part::<[T; 2], 2>().as_slice();
        copies.at((version % 2) as usize)
    }

    /// How often something was published: 0 when the value is as it was created, all zeros.
    #[must_use]
    pub fn version(self) -> u64 {
        self.version_word().get()
    }

    /// The state that was published last, as far as this host knows.
    ///
    /// It does not wait for publishers, also not for one that is stopped or dead; it starts again when something is
    /// published while it copies, so a large value that is published without pause may take several tries.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] when what is published is no value of the type (created as zeros, of which it has none; or
    /// another process has stored to it by another way), and what the session's end causes.
    pub fn snapshot(self) -> Result<T> {
        self.take(None).map(|(_, value)| value)
    }

    /// As [`snapshot`](Self::snapshot), but tries no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as there.
    pub fn snapshot_timeout(self, timeout: Duration) -> Result<T> {
        self.take(Some(timeout)).map(|(_, value)| value)
    }

    /// As [`snapshot`](Self::snapshot), with the version at which the state was published.
    ///
    /// # Errors
    /// As there.
    pub fn snapshot_with_version(self) -> Result<(u64, T)> {
        self.take(None)
    }

    /// Sleeps until the version is greater than `version`, no longer than `timeout`, and returns what is published then,
    /// with its version.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn newer_than(self, version: u64, timeout: Duration) -> Result<(u64, T)> {
        self.version_word().wait_until_timeout(|now| now > version, timeout)?;
        self.take(Some(timeout))
    }

    fn take(self, timeout: Option<Duration>) -> Result<(u64, T)> {
        let deadline = timeout.and_then(deadline);
        let mut tries = 0u32;
        loop {
            let version = self.version();
            // Acquire, here and below: the copy is loaded between the two loads of the version.
            fence(Ordering::Acquire);
            let value = self.copy(version).try_load();
            fence(Ordering::Acquire);
            if self.version() == version {
                // Bytes that are no value are an error only where they are those of one state.
                return Ok((version, value?));
            }
            tries = tries.wrapping_add(1);
            if !tries.is_multiple_of(TRIES) {
                continue;
            }
            if let Some(error) = self.place().region().lost() {
                return Err(error);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Error::TimedOut(timeout.unwrap_or_default()));
            }
            std::thread::yield_now();
        }
    }

    /// Publishes `value`. It is on its way to every host when this returns, in the order of this host's stores. Returns
    /// its version.
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn publish(self, value: &T) -> Result<u64> {
        let turn = self.turn(None)?;
        self.replace(value, &turn)
    }

    /// As [`publish`](Self::publish), but waits no longer than `timeout` for other publishers.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn publish_timeout(self, value: &T, timeout: Duration) -> Result<u64> {
        let turn = self.turn(Some(timeout))?;
        self.replace(value, &turn)
    }

    /// Publishes what `update` makes of the last state. No other state comes in between. Returns the new version.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn publish_with(self, update: impl FnOnce(&mut T)) -> Result<u64> {
        let mut draft = self.draft()?;
        update(&mut draft);
        draft.publish()
    }

    /// As [`publish_with`](Self::publish_with), but waits no longer than `timeout` for other publishers.
    ///
    /// # Errors
    /// [`Error::TimedOut`], else as there.
    pub fn publish_with_timeout(self, update: impl FnOnce(&mut T), timeout: Duration) -> Result<u64> {
        let mut draft = self.draft_timeout(timeout)?;
        update(&mut draft);
        draft.publish()
    }

    /// A working copy of the last state, as plain `&mut T`, to be published by [`Draft::publish`]. Other publishers
    /// wait until it is published or dropped; readers do not.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn draft(self) -> Result<Draft<'s, T>> {
        self.begin(self.turn(None)?)
    }

    /// As [`draft`](Self::draft), but waits no longer than `timeout` for other publishers.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn draft_timeout(self, timeout: Duration) -> Result<Draft<'s, T>> {
        self.begin(self.turn(Some(timeout))?)
    }

    fn begin(self, turn: SemaphoreGuard<'s>) -> Result<Draft<'s, T>> {
        // Nobody publishes meanwhile, and what was published before is here.
        let value = self.copy(self.version()).try_load()?;
        Ok(Draft { of: self, value, turn })
    }

    /// The right to publish.
    fn turn(self, timeout: Option<Duration>) -> Result<SemaphoreGuard<'s>> {
        let turns = self.turns()?;
        let turn = match timeout {
            None => turns.lock(),
            Some(timeout) => turns.lock_timeout(timeout),
        };
        // Whoever died with it has left something in the copy that does not count, which is stored over.
        turn.or_else(|error| error.recover())
    }

    /// The line of publishers.
    fn turns(self) -> Result<Semaphore<'s>> {
        let (region, offset) = (self.place().region(), self.place().offset());
        let (id, name) = open_at(region, Object::Versioned, offset, SyncKind::Semaphore(1))?;
        Ok(Semaphore::new(region, id, name))
    }

    fn replace(self, value: &T, _turn: &SemaphoreGuard<'s>) -> Result<u64> {
        self.raise(value)
    }

    /// The caller is the only publisher.
    pub(super) fn raise(self, value: &T) -> Result<u64> {
        let version = self.version().wrapping_add(1);
        // In this order: who sees the version has the copy, on this host and on the others.
        publish_all(self.copy(version).place(), bytes_of(std::slice::from_ref(value)), None)?;
        fence(Ordering::Release);
        publish_all(self.version_word().place(), &version.to_ne_bytes(), None)?;
        Ok(version)
    }
}

#[cfg(feature = "async")]
impl<'s, T: SharedType + Copy> Shared<'s, Versioned<T>> {
    async fn turn_async(self) -> Result<SemaphoreGuard<'s>> {
        self.turns()?.lock_async().await.or_else(|error| error.recover())
    }

    /// As [`publish`](Self::publish), without blocking the thread. A future that is dropped before it is ready has
    /// published nothing. (The first publication by a process asks the server for the line, which blocks for that
    /// exchange.)
    ///
    /// # Errors
    /// As there, and as [`Semaphore::lock_async`].
    pub async fn publish_async(self, value: &T) -> Result<u64> {
        let turn = self.turn_async().await?;
        self.replace(value, &turn)
    }

    /// As [`publish_with`](Self::publish_with), without blocking the thread; see
    /// [`publish_async`](Self::publish_async).
    ///
    /// # Errors
    /// As there.
    pub async fn publish_with_async(self, update: impl FnOnce(&mut T)) -> Result<u64> {
        let mut draft = self.draft_async().await?;
        update(&mut draft);
        draft.publish()
    }

    /// As [`draft`](Self::draft), without blocking the thread; see [`publish_async`](Self::publish_async).
    ///
    /// # Errors
    /// As there.
    pub async fn draft_async(self) -> Result<Draft<'s, T>> {
        self.begin(self.turn_async().await?)
    }

    /// As [`newer_than`](Self::newer_than), without blocking the thread, and for as long as it takes. It may be dropped
    /// at any time.
    ///
    /// # Errors
    /// What the session's end causes.
    pub async fn newer_than_async(self, version: u64) -> Result<(u64, T)> {
        self.version_word().wait_until_async(|now| now > version).await?;
        self.take(None)
    }
}

impl<T: SharedType + Copy> ReadOnly<'_, Versioned<T>> {
    /// As [`Shared::version`].
    #[must_use]
    pub fn version(self) -> u64 {
        self.shared().version()
    }

    /// As [`Shared::snapshot`].
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn snapshot(self) -> Result<T> {
        self.shared().snapshot()
    }

    /// As [`Shared::newer_than`].
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn newer_than(self, version: u64, timeout: Duration) -> Result<(u64, T)> {
        self.shared().newer_than(version, timeout)
    }

    /// As [`Shared::newer_than_async`].
    ///
    /// # Errors
    /// What the session's end causes.
    #[cfg(feature = "async")]
    pub async fn newer_than_async(self, version: u64) -> Result<(u64, T)> {
        self.shared().newer_than_async(version).await
    }
}

/// A working copy of what is to be published: dereferences to it. Dropped, it publishes nothing.
///
/// It holds the right to publish, which belongs to the process: it may be sent to another thread, and be published there.
#[must_use = "nothing is published unless `publish` is called"]
pub struct Draft<'s, T: SharedType + Copy> {
    of: Shared<'s, Versioned<T>>,
    value: T,
    turn: SemaphoreGuard<'s>,
}

impl<T: SharedType + Copy> Draft<'_, T> {
    /// Publishes the working copy. Returns its version.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn publish(self) -> Result<u64> {
        match self.of.place().region().lost() {
            Some(error) => Err(error),
            None => self.of.replace(&self.value, &self.turn),
        }
    }
}

impl<T: SharedType + Copy> Deref for Draft<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: SharedType + Copy> DerefMut for Draft<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: SharedType + Copy + fmt::Debug> fmt::Debug for Draft<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Draft").field(&self.value).finish()
    }
}

/// Shows the type, not the value.
impl<T: SharedType + Copy> fmt::Debug for Versioned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(Self::LAYOUT, f)
    }
}
