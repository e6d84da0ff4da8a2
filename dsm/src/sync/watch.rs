//! Waiting until a word of shared memory has a certain value.

use crate::place::Place;
use crate::typed::{Atomic, AtomicFlag, Integer, Loaded, ReadOnly, Shared, SharedType};
use crate::wait::{deadline, poll};
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// One sleep; then the waiter looks whether it can still be woken.
const NAP: Duration = Duration::from_millis(100);

impl<'s, T: SharedType> Shared<'s, T> {
    /// Waits until `reached` says yes to the value, and returns that value: an integer, a float or a `bool`, or, of an enum or
    /// a `char`, what its getter gives, a `Result`.
    ///
    /// The thread sleeps meanwhile: it is woken when this host's arbiter has seen a store to the same 64 bytes, by
    /// another host, or by another process or thread of this one. Of values that follow each other fast, some may be
    /// missed: wait for what stays true (`>= 3`, not `== 3`), or for a value that nobody changes before you answer it.
    /// What the storing thread stored before is here by then.
    ///
    /// ```
    /// # fn main() -> dsm::Result<()> {
    #[doc = include_str!("example.txt")]
    /// let phase = session.open::<u32>("phase")?;
    /// std::thread::scope(|scope| {
    ///     let waiting = scope.spawn(|| phase.wait_until(|phase| phase >= 2));
    ///     phase.set(2);
    ///     assert_eq!(waiting.join().unwrap()?, 2);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn wait_until(self, reached: impl FnMut(T::ReadGetter<'s>) -> bool) -> Result<T::ReadGetter<'s>>
    where
        T::ReadGetter<'s>: Loaded,
    {
        until(self.place(), || T::read_field(self.read_only()), reached, None)
    }

    /// As [`wait_until`](Self::wait_until), but no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn wait_until_timeout(
        self,
        reached: impl FnMut(T::ReadGetter<'s>) -> bool,
        timeout: Duration,
    ) -> Result<T::ReadGetter<'s>>
    where
        T::ReadGetter<'s>: Loaded,
    {
        until(self.place(), || T::read_field(self.read_only()), reached, Some(timeout))
    }
}

impl<T: Integer> Atomic<'_, T> {
    /// Waits until `reached` says yes to the value, and returns that value; see [`Shared::wait_until`].
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn wait_until(self, reached: impl FnMut(T) -> bool) -> Result<T> {
        self.shared().wait_until(reached)
    }

    /// As [`wait_until`](Self::wait_until), but no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn wait_until_timeout(self, reached: impl FnMut(T) -> bool, timeout: Duration) -> Result<T> {
        self.shared().wait_until_timeout(reached, timeout)
    }
}

impl AtomicFlag<'_> {
    /// Waits until `reached` says yes to the value, and returns that value; see [`Shared::wait_until`].
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn wait_until(self, mut reached: impl FnMut(bool) -> bool) -> Result<bool> {
        self.byte().wait_until(|byte| reached(byte != 0)).map(|byte| byte != 0)
    }

    /// As [`wait_until`](Self::wait_until), but no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn wait_until_timeout(self, mut reached: impl FnMut(bool) -> bool, timeout: Duration) -> Result<bool> {
        self.byte().wait_until_timeout(|byte| reached(byte != 0), timeout).map(|byte| byte != 0)
    }
}

impl<'s, T: SharedType> ReadOnly<'s, T> {
    /// Waits until `reached` says yes to the value, and returns that value; see [`Shared::wait_until`].
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn wait_until(self, reached: impl FnMut(T::ReadGetter<'s>) -> bool) -> Result<T::ReadGetter<'s>>
    where
        T::ReadGetter<'s>: Loaded,
    {
        self.shared().wait_until(reached)
    }

    /// As [`wait_until`](Self::wait_until), but no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or what the session's end causes.
    pub fn wait_until_timeout(
        self,
        reached: impl FnMut(T::ReadGetter<'s>) -> bool,
        timeout: Duration,
    ) -> Result<T::ReadGetter<'s>>
    where
        T::ReadGetter<'s>: Loaded,
    {
        self.shared().wait_until_timeout(reached, timeout)
    }
}

/// Waits for what `load` finds at `place`.
fn until<V: Copy>(
    place: Place<'_>,
    load: impl Fn() -> V,
    mut reached: impl FnMut(V) -> bool,
    timeout: Option<Duration>,
) -> Result<V> {
    let (region, offset) = (place.region(), place.offset());
    let (watch, barrier) = (&region.log().control().watch, region.log().barrier());
    let mut look = || Some(load()).filter(|value| reached(*value));
    let deadline = timeout.and_then(deadline);
    if let Some(value) = poll(&mut look) {
        return Ok(value);
    }
    loop {
        let turn = watch.enter(offset, barrier);
        if let Some(value) = look() {
            return Ok(value);
        }
        if let Some(error) = region.lost() {
            return Err(error);
        }
        let left = deadline.map_or(NAP, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err(Error::TimedOut(timeout.unwrap_or_default()));
        }
        watch.sleep(turn, left.min(NAP));
    }
}
