//! [`Versioned`]: a value of which every reader sees one published state, never a mix of two.

use super::layout::{Argument, Field, Layout};
use super::private::structure;
use super::read_only::ReadOnly;
use super::shared::{Assign, Plain, Shared, SharedType, its_own_handle};
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
/// `T` is a type of which any bytes make a value (no `char`s, no enums). The bytes are 16 (the version, and 8 that are reserved) and twice those of `T`. `T` may be aligned to at most 16 bytes,
/// and the whole must have no padding: one of an alignment of 1, 2 or 4 must have a multiple of 4 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Versioned<T> {
    version: u64,
    _reserved: u64,
    copies: [T; 2],
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

    /// A value that is stored as a whole with the struct that it is a field of: `value`, as version 0.
    #[must_use]
    pub fn new(value: T) -> Self
    where
        T: Copy,
    {
        Self { version: 0, _reserved: 0, copies: [value; 2] }
    }
}

// SAFETY: a struct `repr(C)` of shared types, whose padding is asserted away wherever its layout is used; `Unstructured`
// is a transparent wrapper of the handle.
unsafe impl<T: SharedType> SharedType for Versioned<T> {
    const LAYOUT: &'static Layout = &{
        let () = Self::HAS_NO_PADDING;
        structure::<Self>("Versioned", Self::FIELDS).with_arguments(Self::ARGUMENTS)
    };
    its_own_handle!();
}

// SAFETY: any bytes are a version, and any are a `T`.
unsafe impl<T: Plain> Plain for Versioned<T> {}

impl<T: SharedType + Copy> Assign for Versioned<T> {
    type Setter<'a> = &'a Self;

    #[inline]
    fn set_field(field: Shared<'_, Self>, value: &Self) {
        field.store(value);
    }
}

/// Looks at a version that is changing before a reader gives the processor away.
const TRIES: u32 = 16;

impl<'s, T: Plain> Shared<'s, Versioned<T>> {
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
    /// What the session's end causes.
    pub fn snapshot(self) -> Result<T> {
        self.take(None).map(|(_, value)| value)
    }

    /// As [`snapshot`](Self::snapshot), but tries no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn snapshot_timeout(self, timeout: Duration) -> Result<T> {
        self.take(Some(timeout)).map(|(_, value)| value)
    }

    /// As [`snapshot`](Self::snapshot), with the version at which the state was published.
    ///
    /// # Errors
    /// What the session's end causes.
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
            let value = self.copy(version).load();
            fence(Ordering::Acquire);
            if self.version() == version {
                return Ok((version, value));
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
        Ok(self.replace(value, &turn))
    }

    /// As [`publish`](Self::publish), but waits no longer than `timeout` for other publishers.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn publish_timeout(self, value: &T, timeout: Duration) -> Result<u64> {
        let turn = self.turn(Some(timeout))?;
        Ok(self.replace(value, &turn))
    }

    /// Publishes what `update` makes of the last state. No other state comes in between. Returns the new version.
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn publish_with(self, update: impl FnOnce(&mut T)) -> Result<u64> {
        let mut draft = self.draft()?;
        update(&mut draft);
        draft.publish()
    }

    /// A working copy of the last state, as plain `&mut T`, to be published by [`Draft::publish`]. Other publishers
    /// wait until it is published or dropped; readers do not.
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn draft(self) -> Result<Draft<'s, T>> {
        self.begin(None)
    }

    /// As [`draft`](Self::draft), but waits no longer than `timeout` for other publishers.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn draft_timeout(self, timeout: Duration) -> Result<Draft<'s, T>> {
        self.begin(Some(timeout))
    }

    fn begin(self, timeout: Option<Duration>) -> Result<Draft<'s, T>> {
        let turn = self.turn(timeout)?;
        // Nobody publishes meanwhile, and what was published before is here.
        let value = self.copy(self.version()).load();
        Ok(Draft { of: self, value, turn })
    }

    /// The right to publish.
    fn turn(self, timeout: Option<Duration>) -> Result<SemaphoreGuard<'s>> {
        let (region, offset) = (self.place().region(), self.place().offset());
        let (id, name) = open_at(region, Object::Versioned, offset, SyncKind::Semaphore(1))?;
        let turns = Semaphore::new(region, id, name);
        let turn = match timeout {
            None => turns.lock(),
            Some(timeout) => turns.lock_timeout(timeout),
        };
        // Whoever died with it has left something in the copy that does not count, which is stored over.
        turn.or_else(|error| error.recover())
    }

    fn replace(self, value: &T, _turn: &SemaphoreGuard<'s>) -> u64 {
        let version = self.version().wrapping_add(1);
        // In this order: who sees the version has the copy, on this host and on the others.
        self.copy(version).store(value);
        fence(Ordering::Release);
        self.version_word().set(version);
        version
    }
}

impl<T: Plain> ReadOnly<'_, Versioned<T>> {
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
}

/// A working copy of what is to be published: dereferences to it. Dropped, it publishes nothing.
#[must_use = "nothing is published unless `publish` is called"]
pub struct Draft<'s, T: Plain> {
    of: Shared<'s, Versioned<T>>,
    value: T,
    turn: SemaphoreGuard<'s>,
}

impl<T: Plain> Draft<'_, T> {
    /// Publishes the working copy. Returns its version.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn publish(self) -> Result<u64> {
        match self.of.place().region().lost() {
            Some(error) => Err(error),
            None => Ok(self.of.replace(&self.value, &self.turn)),
        }
    }
}

impl<T: Plain> Deref for Draft<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Plain> DerefMut for Draft<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for Draft<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Draft").field(&self.value).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Versioned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = &self.copies[(self.version % 2) as usize];
        f.debug_struct("Versioned").field("version", &self.version).field("value", value).finish()
    }
}
