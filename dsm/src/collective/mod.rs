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
//! # When a rank does not come
//!
//! A rank whose process leaves or dies ends the others' wait with [`Error::TeamBroken`], and so every later call. A wait
//! for a rank that lives has no end unless [`Team::with_timeout`] gives it one. Ranks that call different collectives
//! all get [`Error::CollectiveMismatch`], which names both calls.

mod operation;
mod team;

pub use operation::{Max, Min, Number, Operation, Sum};
pub use team::Team;
pub(crate) use team::Teams;

use crate::Result;
use crate::typed::{Plain, bytes_of, overwrite, zeroed};
#[cfg(doc)]
use crate::{Builder, Error, Session};
use team::{Call, What};

impl Team<'_> {
    /// Waits until all ranks have called it.
    ///
    /// # Errors
    /// As for all collectives: [`Error::TeamBroken`], [`Error::CollectiveMismatch`], [`Error::TimedOut`] with
    /// [`Team::with_timeout`], and what the session's end causes.
    pub fn barrier(&self) -> Result<()> {
        self.call::<u8>(What::Barrier, 0, 0, 0, |call| call.round())
    }

    /// The value that rank `root` has given; what the others give is ignored.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn broadcast<T: Plain>(&self, root: usize, value: T) -> Result<T> {
        let mut values = [value];
        self.broadcast_slice(root, &mut values)?;
        let [value] = values;
        Ok(value)
    }

    /// Copies the values of rank `root` to all others.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn broadcast_slice<T: Plain>(&self, root: usize, values: &mut [T]) -> Result<()> {
        self.call::<T>(What::Broadcast, 0, root, values.len(), |call| {
            let len = size_of_val(values);
            if call.rank == root {
                let bytes = bytes_of(values);
                return call.pieces(len).try_for_each(|piece| {
                    call.put(root, &bytes[piece]);
                    call.round()
                });
            }
            let mut result = Ok(());
            overwrite(values, |bytes| {
                result = call.pieces(len).try_for_each(|piece| {
                    call.round()?;
                    call.get(root, &mut bytes[piece]);
                    Ok(())
                });
            });
            result
        })
    }

    /// All ranks' values, combined by rank; for rank `root`, and `None` for the others.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn reduce<T: Plain>(&self, root: usize, value: T, operation: impl Operation<T>) -> Result<Option<T>> {
        Ok(self.reduce_slice(root, &[value], operation)?.and_then(|mut values| values.pop()))
    }

    /// All ranks' values, combined by rank, element by element; for rank `root`, and `None` for the others.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn reduce_slice<T: Plain>(
        &self,
        root: usize,
        values: &[T],
        operation: impl Operation<T>,
    ) -> Result<Option<Vec<T>>> {
        let mut result = values.to_vec();
        self.call::<T>(What::Reduce, operation.code(), root, values.len(), |call| {
            combine(call, &mut result, &operation, call.rank == root)
        })?;
        Ok((self.rank() == root).then_some(result))
    }

    /// All ranks' values, combined by rank, for all ranks.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    pub fn all_reduce<T: Plain>(&self, value: T, operation: impl Operation<T>) -> Result<T> {
        let mut values = [value];
        self.all_reduce_slice(&mut values, operation)?;
        let [value] = values;
        Ok(value)
    }

    /// Replaces the values by those of all ranks, combined by rank, element by element.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths must be the same. Some of the values may be replaced when it fails.
    pub fn all_reduce_slice<T: Plain>(&self, values: &mut [T], operation: impl Operation<T>) -> Result<()> {
        self.call::<T>(What::AllReduce, operation.code(), 0, values.len(), |call| {
            combine(call, values, &operation, true)
        })
    }

    /// All ranks' values in the order of ranks; for rank `root`, and `None` for the others.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn gather<T: Plain>(&self, root: usize, value: T) -> Result<Option<Vec<T>>> {
        self.gather_slice(root, &[value])
    }

    /// All ranks' values, one rank's behind the other's; for rank `root`, and `None` for the others.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`.
    pub fn gather_slice<T: Plain>(&self, root: usize, values: &[T]) -> Result<Option<Vec<T>>> {
        let wanted = self.rank() == root;
        let mut all = vec![zeroed::<T>(); if wanted { values.len() * self.size() } else { 0 }];
        self.call::<T>(What::Gather, 0, root, values.len(), |call| collect(call, values, &mut all))?;
        Ok(wanted.then_some(all))
    }

    /// All ranks' values in the order of ranks, for all ranks.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    pub fn all_gather<T: Plain>(&self, value: T) -> Result<Vec<T>> {
        self.all_gather_slice(&[value])
    }

    /// All ranks' values, one rank's behind the other's, for all ranks.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths must be the same.
    pub fn all_gather_slice<T: Plain>(&self, values: &[T]) -> Result<Vec<T>> {
        let mut all = vec![zeroed::<T>(); values.len() * self.size()];
        self.call::<T>(What::AllGather, 0, 0, values.len(), |call| collect(call, values, &mut all))?;
        Ok(all)
    }

    /// Gives every rank its value of those that rank `root` has: `values` is looked at in rank `root` alone, and
    /// must hold one for each rank there.
    ///
    /// # Errors
    /// As [`Team::barrier`].
    ///
    /// # Panics
    /// When there is no rank `root`, or, in rank `root`, when the number of values is not the number of ranks.
    pub fn scatter<T: Plain>(&self, root: usize, values: &[T]) -> Result<T> {
        let mut mine = [zeroed::<T>()];
        self.scatter_slice(root, values, &mut mine)?;
        let [mine] = mine;
        Ok(mine)
    }

    /// Gives every rank its share, as long as `mine`, of the values that rank `root` has: `values` is looked at in rank
    /// `root` alone.
    ///
    /// # Errors
    /// As [`Team::barrier`]; the lengths of `mine` must be the same.
    ///
    /// # Panics
    /// When there is no rank `root`, or, in rank `root`, when `values` is not as long as all shares.
    pub fn scatter_slice<T: Plain>(&self, root: usize, values: &[T], mine: &mut [T]) -> Result<()> {
        let each = mine.len();
        assert!(
            self.rank() != root || values.len() == each * self.size(),
            "scatter: {} ranks with {each} values each need {}, but there are {}",
            self.size(),
            each * self.size(),
            values.len()
        );
        self.call::<T>(What::Scatter, 0, root, each, |call| {
            let (all, share) = (bytes_of(values), size_of_val(mine));
            let mut result = Ok(());
            overwrite(mine, |mine| {
                result = call.pieces(share).try_for_each(|piece| {
                    if call.rank == root {
                        // Nobody else writes during a scatter, so each rank's place is there for what it is to get.
                        for rank in 0..call.size {
                            call.put(rank, &all[rank * share..][piece.clone()]);
                        }
                    }
                    call.round()?;
                    call.get(call.rank, &mut mine[piece]);
                    Ok(())
                });
            });
            result
        })
    }
}

/// Combines all ranks' `values` by rank, into `values` where that is `wanted`.
fn combine<T: Plain>(
    call: &mut Call<'_, '_>,
    values: &mut [T],
    operation: &impl Operation<T>,
    wanted: bool,
) -> Result<()> {
    // As many elements at a time as go in one piece, or one that needs several.
    let group = (call.piece() / size_of::<T>()).max(1);
    let mut others = vec![zeroed::<T>(); if wanted { group.min(values.len()) * call.size } else { 0 }];
    if values.is_empty() {
        return call.round();
    }
    for group in values.chunks_mut(group) {
        collect(call, group, &mut others)?;
        if wanted {
            let count = group.len();
            for (at, value) in group.iter_mut().enumerate() {
                let others = |rank: usize| others[rank * count + at];
                *value = (1..call.size).fold(others(0), |sum, rank| operation.combine(sum, others(rank)));
            }
        }
    }
    Ok(())
}

/// Collects all ranks' `values`, one rank's behind the other's, in `all`, unless that is empty.
fn collect<T: Plain>(call: &mut Call<'_, '_>, values: &[T], all: &mut [T]) -> Result<()> {
    let (values, mut result) = (bytes_of(values), Ok(()));
    overwrite(all, |all| {
        result = call.pieces(values.len()).try_for_each(|piece| {
            call.put(call.rank, &values[piece.clone()]);
            call.round()?;
            if !all.is_empty() {
                for rank in 0..call.size {
                    call.get(rank, &mut all[rank * values.len()..][piece.clone()]);
                }
            }
            Ok(())
        });
    });
    result
}
