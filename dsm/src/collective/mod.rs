//! Collectives: what all ranks of a team do together, each calling the same methods in the same order.
//!
//! [`Session::world`] is the team of all processes that were started together (`dsm run`, [`Builder::size`]);
//! [`Session::team`] makes others.
//!
//! ```
//! use dsm::collective::{Max, Sum};
//!
//! # fn main() -> dsm::Result<()> {
#![doc = include_str!("../sync/example.txt")]
//! let world = session.world()?;
//! let share = (world.rank() as u64 + 1) * 10;
//! let total = world.all_reduce(share, Sum)?;
//! let most = world.all_reduce(share, Max)?;
//! let all = world.all_gather(share)?; // by rank
//! assert!(most <= total && all[world.rank()] == share);
//! # Ok(())
//! # }
//! ```
//!
//! A call returns when all ranks have made it (so each is a barrier, too: who returns from it has everything that any
//! rank stored before it). Reductions combine by rank, 0 first, so that floats give the same on all ranks, every time.
//!
//! They are for all shared types that can be copied, enums and `char`s among them. (What another program has stored in a
//! team's memory, if it is no value, is [`Error::InvalidValue`]; then this rank has given the call up, see below.)
//!
//! # When a rank does not come
//!
//! A rank whose process leaves or dies ends the others' wait with [`Error::TeamBroken`], and so every later call. A wait
//! for a rank that lives has no end unless [`Team::with_timeout`] gives it one. Ranks that call different collectives
//! all get [`Error::CollectiveMismatch`], which names both calls.
//!
//! # Calls that are given up
//!
//! A call is given up by a timeout, by dropping the future of its asynchronous variant (`barrier_async`, ...), or
//! by a panic of the program's own operation. This rank can go on with its next call, and the others wait for it until it
//! does:
//! - Before anything was exchanged, it is as if the call had never been made, and it can be made again, with other values,
//!   too.
//! - Half way (large data are exchanged in pieces, one by one), the others' call ends with [`Error::CollectiveMismatch`]
//!   when this rank makes its next one. Then all are in step again.
//!
//! A future that is dropped at the moment when the last of the others comes may be too late: they have this rank's part,
//! and the call has been made, although this rank does not know. Who has to know uses [`Team::with_timeout`], for futures,
//! too: a call that ends with [`Error::TimedOut`] has not been made.

#[cfg(feature = "async")]
mod asynchronous;
mod call;
mod operation;
mod ranks;
mod said;
mod team;

pub use operation::{Max, Min, Number, Operation, Sum};
pub use team::Team;
pub(crate) use team::Teams;

use crate::Result;
use crate::typed::SharedType;
#[cfg(doc)]
use crate::{Builder, Error, Session};
use call::now;

impl Team<'_> {
    /// Waits until all ranks have called it.
    ///
    /// # Errors
    /// As for all collectives: [`Error::TeamBroken`], [`Error::CollectiveMismatch`], [`Error::TimedOut`] with
    /// [`Team::with_timeout`], and what the session's end causes.
    pub fn barrier(&self) -> Result<()> {
        now(self.by_thread().barrier())
    }

    /// The value that rank `root` has given; what the others give is ignored.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn broadcast<T: SharedType + Copy>(&self, root: usize, value: T) -> Result<T> {
        now(self.by_thread().broadcast(root, value))
    }

    /// Copies the values of rank `root` to all others.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn broadcast_slice<T: SharedType + Copy>(&self, root: usize, values: &mut [T]) -> Result<()> {
        now(self.by_thread().broadcast_slice(root, values))
    }

    /// All ranks' values, combined by rank; for rank `root`, and `None` for the others.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn reduce<T: SharedType + Copy>(
        &self,
        root: usize,
        value: T,
        operation: impl Operation<T>,
    ) -> Result<Option<T>> {
        now(self.by_thread().reduce(root, value, operation))
    }

    /// All ranks' values, combined by rank, element by element; for rank `root`, and `None` for the others.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn reduce_slice<T: SharedType + Copy>(
        &self,
        root: usize,
        values: &[T],
        operation: impl Operation<T>,
    ) -> Result<Option<Vec<T>>> {
        now(self.by_thread().reduce_slice(root, values, operation))
    }

    /// All ranks' values, combined by rank, for all ranks.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    pub fn all_reduce<T: SharedType + Copy>(&self, value: T, operation: impl Operation<T>) -> Result<T> {
        now(self.by_thread().all_reduce(value, operation))
    }

    /// Replaces the values by those of all ranks, combined by rank, element by element.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths must be the same. Some of the values may be replaced when it fails.
    pub fn all_reduce_slice<T: SharedType + Copy>(&self, values: &mut [T], operation: impl Operation<T>) -> Result<()> {
        now(self.by_thread().all_reduce_slice(values, operation))
    }

    /// All ranks' values in the order of ranks; for rank `root`, and `None` for the others.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn gather<T: SharedType + Copy>(&self, root: usize, value: T) -> Result<Option<Vec<T>>> {
        now(self.by_thread().gather_slice(root, &[value]))
    }

    /// All ranks' values, one rank's behind the other's; for rank `root`, and `None` for the others.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn gather_slice<T: SharedType + Copy>(&self, root: usize, values: &[T]) -> Result<Option<Vec<T>>> {
        now(self.by_thread().gather_slice(root, values))
    }

    /// All ranks' values in the order of ranks, for all ranks.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    pub fn all_gather<T: SharedType + Copy>(&self, value: T) -> Result<Vec<T>> {
        now(self.by_thread().all_gather_slice(&[value]))
    }

    /// All ranks' values, one rank's behind the other's, for all ranks.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths must be the same.
    pub fn all_gather_slice<T: SharedType + Copy>(&self, values: &[T]) -> Result<Vec<T>> {
        now(self.by_thread().all_gather_slice(values))
    }

    /// Gives every rank its value of those that rank `root` has: `values` is looked at in rank `root` alone, and
    /// must hold one for each rank there.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    ///
    /// # Panics
    /// When there is no rank `root`, or, in rank `root`, when the number of values is not the number of ranks.
    pub fn scatter<T: SharedType + Copy>(&self, root: usize, values: &[T]) -> Result<T> {
        now(self.by_thread().scatter(root, values))
    }

    /// Gives every rank its share, as long as `mine`, of the values that rank `root` has: `values` is looked at in rank
    /// `root` alone.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths of `mine` must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`, or, in rank `root`, when `values` is not as long as all shares.
    pub fn scatter_slice<T: SharedType + Copy>(&self, root: usize, values: &[T], mine: &mut [T]) -> Result<()> {
        now(self.by_thread().scatter_slice(root, values, mine))
    }
}
