//! Asynchronous variants of everything that waits.
//!
//! All of them do nothing before they are first polled, and can be dropped at any time: see each method for what that
//! means. They need no particular executor, and no thread but the reactor's of `async-io`. The first of a process asks
//! the arbiter for a bell, which blocks for that one short exchange.
//!
//! What blocks and has none is listed, with the reasons, under "Features" in the documentation of the crate.

pub(crate) use super::bell::not_ours;
use super::bell::{Bell, until};
use super::owned::owned;
use super::{LockError, LockResult, Mutex, MutexGuard, ReadLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use super::{OwnedMutex, OwnedMutexGuard, OwnedRwLock, OwnedRwLockReadGuard, OwnedRwLockWriteGuard};
use super::{OwnedSemaphore, OwnedSemaphoreGuard};
use crate::region::Region;
use crate::semaphore::{check, granted};
use crate::typed::{Atomic, AtomicFlag, Integer, Loaded, ReadOnly, Shared, SharedType};
use crate::wait::{Wait, submit};
use crate::{Barrier, BarrierWaitResult, Error, Result, Semaphore, SemaphoreGuard, Session};
use async_io::Timer;
use dsm_core::limits::SLOTS;
use dsm_core::record::{BARRIER, Kind};
use dsm_core::slot::Answer;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

/// Futures of one session that can wait on one host. The rest is for threads: each atomic operation needs its turn.
const FUTURES: usize = SLOTS / 4 * 3;

/// A question to the server whose answer is waited for. Dropping it before takes it back.
struct Asked<'a> {
    region: &'a Region,
    wait: Option<Wait<'a>>,
    kind: Kind,
    object: u32,
    units: u32,
    /// The process that asked, by the system's number: a child of `fork` must not take back what its parent asks.
    process: u32,
}

/// Begins a wait, of a region that is not lost, whose answer a future is to have.
///
/// # Errors
/// When too many wait already, or there is no bell to wake them.
pub(crate) fn begin(region: &Region) -> Result<Wait<'_>> {
    // Before anything is asked that would have to be taken back.
    Bell::of(region)?;
    Wait::try_begin(region, FUTURES).ok_or_else(|| {
        Error::TooLarge(format!("{FUTURES} futures of this session on this host wait already: no more can"))
    })
}

/// The answer.
async fn answer(region: &Region, wait: &Wait<'_>) -> Result<Answer> {
    let (slot, barrier) = (wait.slot(), region.log().barrier());
    until(region, || slot.listen(barrier), || slot.answer()).await
}

/// What the future has, or `None` at the deadline.
pub(crate) async fn by<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut timer = deadline.map(Timer::at);
    poll_fn(|cx| match (future.as_mut().poll(cx), &mut timer) {
        (Poll::Ready(output), _) => Poll::Ready(Some(output)),
        (Poll::Pending, Some(timer)) => Pin::new(timer).poll(cx).map(|_| None),
        (Poll::Pending, None) => Poll::Pending,
    })
    .await
}

/// The answer, or `None` at the deadline.
///
/// # Errors
/// When it can no longer come.
pub(crate) async fn answer_by(region: &Region, wait: &Wait<'_>, deadline: Option<Instant>) -> Result<Option<Answer>> {
    by(deadline, answer(region, wait)).await.transpose()
}

impl<'a> Asked<'a> {
    fn ask(region: &'a Region, kind: Kind, object: u32, units: u32) -> Result<Self> {
        if let Some(error) = region.lost() {
            return Err(error);
        }
        let wait = begin(region)?;
        submit(region, kind, 0, object, wait.token, units)?;
        Ok(Self { region, wait: Some(wait), kind, object, units, process: std::process::id() })
    }

    async fn answer(mut self) -> Result<Answer> {
        let Some(wait) = &self.wait else { unreachable!("it is taken when the answer has come, and by the end") };
        let answer = answer(self.region, wait).await?;
        self.wait = None;
        Ok(answer)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let (region, object) = (self.region, self.object);
        let Some(wait) = self.wait.take() else { return };
        if self.process != std::process::id() {
            return std::mem::forget(wait);
        }
        if region.lost().is_some() {
            return;
        }
        match (self.kind, wait.slot().answer()) {
            // Given back as any other guard.
            (Kind::Acquire, Some(answer)) => drop(granted(region, object, self.units, answer)),
            (_, Some(_)) => {}
            (Kind::Acquire, None) => {
                // The order says whether it was granted before this; then the units go back.
                let _ = submit(region, Kind::Cancel, 0, object, wait.token, self.units);
                wait.abandon();
            }
            (Kind::Arrive, None) => {
                let _ = submit(region, Kind::Cancel, BARRIER, object, wait.token, 0);
                wait.abandon();
            }
            (_, None) => wait.abandon(),
        }
    }
}

/// Takes units of a semaphore.
async fn take(region: &Region, id: u32, units: u32) -> Result<SemaphoreGuard<'_>> {
    check(units)?;
    let answer = Asked::ask(region, Kind::Acquire, id, units)?.answer().await?;
    granted(region, id, units, answer)
        .ok_or_else(|| Error::Unavailable("the server cancelled a wait that nobody has given up".into()))
}

impl<'s> Semaphore<'s> {
    /// As [`Semaphore::lock`], without blocking the thread.
    ///
    /// A future that is dropped leaves the line; a unit that was granted meanwhile goes back.
    ///
    /// ```
    /// # fn main() -> dsm::Result<()> {
    #[doc = include_str!("example.txt")]
    /// let turns = session.semaphore("turns", 1)?;
    /// async_io::block_on(async {
    ///     let _guard = turns.lock_async().await?;
    ///     assert!(turns.try_lock()?.is_none());
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Semaphore::lock`]; [`Error::TooLarge`] when 3072 futures of this session wait on this host.
    pub async fn lock_async(&self) -> LockResult<SemaphoreGuard<'s>> {
        self.acquire_many_async(1).await
    }

    /// As [`Semaphore::acquire_many`], without blocking the thread; see [`Semaphore::lock_async`].
    ///
    /// # Errors
    /// As there, and as [`Semaphore::acquire_many`].
    pub async fn acquire_many_async(&self, units: u32) -> LockResult<SemaphoreGuard<'s>> {
        let (region, id) = self.object();
        let guard = take(region, id, units).await?;
        if guard.dirty() { Err(LockError::OwnerDied(guard, self.name().to_owned())) } else { Ok(guard) }
    }

    /// As [`Semaphore::wait`], without blocking the thread; see [`Semaphore::lock_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn wait_async(&self) -> Result<()> {
        self.lock_async().await?.keep();
        Ok(())
    }
}

impl OwnedSemaphore {
    /// See [`Semaphore::lock_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn lock_async(&self) -> LockResult<OwnedSemaphoreGuard> {
        self.acquire_many_async(1).await
    }

    /// See [`Semaphore::acquire_many_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn acquire_many_async(&self, units: u32) -> LockResult<OwnedSemaphoreGuard> {
        owned(self.inner().acquire_many_async(units).await, self.session())
    }
}

impl<'s, T: SharedType> Mutex<'s, T> {
    /// As [`Mutex::lock`], without blocking the thread; see [`Semaphore::lock_async`]. (The first use of a lock by a
    /// process asks the server for it, which blocks for that exchange.)
    ///
    /// # Errors
    /// As there, and as [`Mutex::lock`].
    pub async fn lock_async(self) -> LockResult<MutexGuard<'s, T>> {
        let (region, id, name) = self.object()?;
        self.guard(take(region, id, 1).await?, &name)
    }
}

impl<'s, T: SharedType> RwLock<'s, T> {
    /// As [`RwLock::read`], without blocking the thread; see [`Mutex::lock_async`].
    ///
    /// # Errors
    /// As there, and as [`RwLock::read`].
    pub async fn read_async(self) -> LockResult<RwLockReadGuard<'s, T>> {
        let (region, id, name) = self.object()?;
        self.read_guard(take(region, id, 1).await?, &name)
    }

    /// As [`RwLock::write`], without blocking the thread; see [`Mutex::lock_async`].
    ///
    /// # Errors
    /// As there, and as [`RwLock::write`].
    pub async fn write_async(self) -> LockResult<RwLockWriteGuard<'s, T>> {
        let (region, id, name) = self.object()?;
        self.write_guard(take(region, id, Self::READERS).await?, &name)
    }
}

impl<T: SharedType> OwnedMutex<T> {
    /// See [`Mutex::lock_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn lock_async(&self) -> LockResult<OwnedMutexGuard<T>> {
        owned(self.inner().lock_async().await, self.session())
    }
}

impl<T: SharedType> OwnedRwLock<T> {
    /// See [`RwLock::read_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_async(&self) -> LockResult<OwnedRwLockReadGuard<T>> {
        owned(self.inner().read_async().await, self.session())
    }

    /// See [`RwLock::write_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_async(&self) -> LockResult<OwnedRwLockWriteGuard<T>> {
        owned(self.inner().write_async().await, self.session())
    }
}

impl<'s, T: SharedType> ReadLock<'s, T> {
    /// See [`RwLock::read_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_async(self) -> LockResult<RwLockReadGuard<'s, T>> {
        self.lock().read_async().await
    }
}

impl Barrier<'_> {
    /// As [`Barrier::wait`], without blocking the thread. The party arrives when the future is first polled.
    ///
    /// A future that is dropped takes the arrival back, and the others go on waiting for this party; if they had all
    /// come before, they are through, and this arrival was one of them.
    ///
    /// # Errors
    /// As [`Barrier::wait`]; [`Error::TooLarge`] when 3072 futures of this session wait on this host.
    pub async fn wait_async(&self) -> Result<BarrierWaitResult> {
        let (region, id) = self.object();
        let answer = Asked::ask(region, Kind::Arrive, id, 0)?.answer().await?;
        self.passed(Some(answer), None)
    }
}

impl Session {
    /// As [`Session::fence`], without blocking the thread: covers what this process did before the future is first
    /// polled. It may be dropped at any time.
    ///
    /// # Errors
    /// As [`Session::fence`]; [`Error::TooLarge`] when 3072 futures of this session wait on this host.
    pub async fn fence_async(&self) -> Result<()> {
        Asked::ask(self.region(), Kind::Fence, 0, 0)?.answer().await?;
        Ok(())
    }
}

impl<'s, T: SharedType> Shared<'s, T> {
    /// As [`Shared::wait_until`], without blocking the thread. It may be dropped at any time.
    ///
    /// # Errors
    /// What the session's end causes.
    pub async fn wait_until_async(self, mut reached: impl FnMut(T::ReadGetter<'s>) -> bool) -> Result<T::ReadGetter<'s>>
    where
        T::ReadGetter<'s>: Loaded,
    {
        let (region, offset) = (self.place().region(), self.place().offset());
        let (watch, barrier) = (&region.log().control().watch, region.log().barrier());
        let look = || Some(T::read_field(self.read_only())).filter(|value| reached(*value));
        until(region, || watch.listen(offset, barrier), look).await
    }
}

impl<T: Integer> Atomic<'_, T> {
    /// See [`Shared::wait_until_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn wait_until_async(self, reached: impl FnMut(T) -> bool) -> Result<T> {
        self.shared().wait_until_async(reached).await
    }
}

impl AtomicFlag<'_> {
    /// See [`Shared::wait_until_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn wait_until_async(self, mut reached: impl FnMut(bool) -> bool) -> Result<bool> {
        Ok(self.byte().wait_until_async(|byte| reached(byte != 0)).await? != 0)
    }
}

impl<'s, T: SharedType> ReadOnly<'s, T> {
    /// See [`Shared::wait_until_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn wait_until_async(self, reached: impl FnMut(T::ReadGetter<'s>) -> bool) -> Result<T::ReadGetter<'s>>
    where
        T::ReadGetter<'s>: Loaded,
    {
        self.shared().wait_until_async(reached).await
    }
}
