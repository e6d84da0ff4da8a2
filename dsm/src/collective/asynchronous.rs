//! Collectives without blocking the thread.

use super::{Operation, Team};
use crate::Result;
use crate::typed::SharedType;
#[cfg(doc)]
use crate::{Error, Session};

/// Asynchronous variants: the ranks that meet in a call may use either.
///
/// They do nothing before they are first polled, and can be dropped at any time: see
/// [there](crate::collective#calls-that-are-given-up).
///
/// ```
/// use dsm::collective::Sum;
///
/// # fn main() -> dsm::Result<()> {
#[doc = include_str!("../sync/example.txt")]
/// let world = session.world()?;
/// async_io::block_on(async {
///     let total = world.all_reduce_async(1u64, Sum).await?;
///     assert_eq!(total, world.size() as u64);
///     Ok(())
/// })
/// # }
/// ```
impl Team<'_> {
    /// As [`Team::barrier`], without blocking the thread.
    ///
    /// # Errors
    /// As there; [`Error::TooLarge`] when 3072 futures of this session wait on this host.
    pub async fn barrier_async(&self) -> Result<()> {
        self.by_task().barrier().await
    }

    /// As [`Team::broadcast`]; see [`Team::barrier_async`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub async fn broadcast_async<T: SharedType + Copy>(&self, root: usize, value: T) -> Result<T> {
        self.by_task().broadcast(root, value).await
    }

    /// As [`Team::broadcast_slice`]; see [`Team::barrier_async`]. Some of the values may be replaced when the future is
    /// dropped.
    ///
    /// # Errors
    /// As there; the lengths must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub async fn broadcast_slice_async<T: SharedType + Copy>(&self, root: usize, values: &mut [T]) -> Result<()> {
        self.by_task().broadcast_slice(root, values).await
    }

    /// As [`Team::reduce`]; see [`Team::barrier_async`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub async fn reduce_async<T: SharedType + Copy>(
        &self,
        root: usize,
        value: T,
        operation: impl Operation<T>,
    ) -> Result<Option<T>> {
        self.by_task().reduce(root, value, operation).await
    }

    /// As [`Team::reduce_slice`]; see [`Team::barrier_async`].
    ///
    /// # Errors
    /// As there; the lengths must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub async fn reduce_slice_async<T: SharedType + Copy>(
        &self,
        root: usize,
        values: &[T],
        operation: impl Operation<T>,
    ) -> Result<Option<Vec<T>>> {
        self.by_task().reduce_slice(root, values, operation).await
    }

    /// As [`Team::all_reduce`]; see [`Team::barrier_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn all_reduce_async<T: SharedType + Copy>(&self, value: T, operation: impl Operation<T>) -> Result<T> {
        self.by_task().all_reduce(value, operation).await
    }

    /// As [`Team::all_reduce_slice`]; see [`Team::barrier_async`]. Some of the values may be replaced when the future is
    /// dropped.
    ///
    /// # Errors
    /// As there; the lengths must be the same.
    pub async fn all_reduce_slice_async<T: SharedType + Copy>(
        &self,
        values: &mut [T],
        operation: impl Operation<T>,
    ) -> Result<()> {
        self.by_task().all_reduce_slice(values, operation).await
    }

    /// As [`Team::gather`]; see [`Team::barrier_async`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub async fn gather_async<T: SharedType + Copy>(&self, root: usize, value: T) -> Result<Option<Vec<T>>> {
        self.by_task().gather_slice(root, &[value]).await
    }

    /// As [`Team::gather_slice`]; see [`Team::barrier_async`].
    ///
    /// # Errors
    /// As there; the lengths must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub async fn gather_slice_async<T: SharedType + Copy>(&self, root: usize, values: &[T]) -> Result<Option<Vec<T>>> {
        self.by_task().gather_slice(root, values).await
    }

    /// As [`Team::all_gather`]; see [`Team::barrier_async`].
    ///
    /// # Errors
    /// As there.
    pub async fn all_gather_async<T: SharedType + Copy>(&self, value: T) -> Result<Vec<T>> {
        self.by_task().all_gather_slice(&[value]).await
    }

    /// As [`Team::all_gather_slice`]; see [`Team::barrier_async`].
    ///
    /// # Errors
    /// As there; the lengths must be the same.
    pub async fn all_gather_slice_async<T: SharedType + Copy>(&self, values: &[T]) -> Result<Vec<T>> {
        self.by_task().all_gather_slice(values).await
    }

    /// As [`Team::scatter`]; see [`Team::barrier_async`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When there is no rank `root`, or, in rank `root`, when the number of values is not the number of ranks.
    pub async fn scatter_async<T: SharedType + Copy>(&self, root: usize, values: &[T]) -> Result<T> {
        self.by_task().scatter(root, values).await
    }

    /// As [`Team::scatter_slice`]; see [`Team::barrier_async`]. Some of `mine` may be replaced when the future is
    /// dropped.
    ///
    /// # Errors
    /// As there; the lengths of `mine` must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`, or, in rank `root`, when `values` is not as long as all shares.
    pub async fn scatter_slice_async<T: SharedType + Copy>(
        &self,
        root: usize,
        values: &[T],
        mine: &mut [T],
    ) -> Result<()> {
        self.by_task().scatter_slice(root, values, mine).await
    }
}
