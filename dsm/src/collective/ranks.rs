//! What the ranks do in each collective, whether a thread makes the call or a task.

use super::Operation;
use super::call::{Call, Step};
use super::said::{Said, What};
use super::team::Team;
use crate::Result;
use crate::typed::{InvalidValue, Received, SharedType, bytes_of, try_overwrite};
use crate::wait::Waiter;

/// A team whose calls are waited for in one way.
#[derive(Clone, Copy)]
pub(super) struct Ranks<'a, 's> {
    team: &'a Team<'s>,
    waiter: Waiter,
}

impl<'s> Team<'s> {
    /// Calls that block their thread.
    pub(super) fn by_thread(&self) -> Ranks<'_, 's> {
        Ranks { team: self, waiter: Waiter::Thread }
    }

    /// Calls that do not.
    #[cfg(feature = "async")]
    pub(super) fn by_task(&self) -> Ranks<'_, 's> {
        Ranks { team: self, waiter: Waiter::Task }
    }
}

impl<'a, 's> Ranks<'a, 's> {
    async fn call<T: SharedType>(self, what: What, operation: u8, root: usize, len: usize) -> Result<Call<'a, 's>> {
        let (region, size) = (self.team.region, self.team.size());
        assert!(root < size, "rank out of bounds: the size is {size} but the root is {root}");
        let said = Said {
            what: what as u8,
            operation,
            root: root as u32,
            len: len as u64,
            fingerprint: T::LAYOUT.fingerprint,
            process: u64::from(region.host()) << 32 | u64::from(region.process()),
            ..Said::default()
        };
        Call::begin(self.team, self.waiter, said).await
    }

    pub(super) async fn barrier(self) -> Result<()> {
        self.call::<u8>(What::Barrier, 0, 0, 0).await?.round(true).await
    }

    pub(super) async fn broadcast<T: SharedType + Copy>(self, root: usize, value: T) -> Result<T> {
        let mut values = [value];
        self.broadcast_slice(root, &mut values).await?;
        let [value] = values;
        Ok(value)
    }

    pub(super) async fn broadcast_slice<T: SharedType + Copy>(self, root: usize, values: &mut [T]) -> Result<()> {
        let mut call = self.call::<T>(What::Broadcast, 0, root, values.len()).await?;
        for step in call.steps::<T>(values.len()) {
            let values = &mut values[step.elements];
            if call.rank == root {
                call.put(root, &bytes_of(values)[step.bytes.clone()])?;
            }
            call.round(step.last).await?;
            if call.rank != root {
                try_overwrite(values, |bytes| call.get(root, &mut bytes[step.bytes]))?;
            }
        }
        Ok(())
    }

    pub(super) async fn reduce<T: SharedType + Copy>(
        self,
        root: usize,
        value: T,
        operation: impl Operation<T>,
    ) -> Result<Option<T>> {
        Ok(self.reduce_slice(root, &[value], operation).await?.and_then(|mut values| values.pop()))
    }

    pub(super) async fn reduce_slice<T: SharedType + Copy>(
        self,
        root: usize,
        values: &[T],
        operation: impl Operation<T>,
    ) -> Result<Option<Vec<T>>> {
        let mut result = values.to_vec();
        let call = self.call::<T>(What::Reduce, operation.code(), root, values.len()).await?;
        let wanted = call.rank == root;
        combine(call, &mut result, &operation, wanted).await?;
        Ok(wanted.then_some(result))
    }

    pub(super) async fn all_reduce<T: SharedType + Copy>(self, value: T, operation: impl Operation<T>) -> Result<T> {
        let mut values = [value];
        self.all_reduce_slice(&mut values, operation).await?;
        let [value] = values;
        Ok(value)
    }

    pub(super) async fn all_reduce_slice<T: SharedType + Copy>(
        self,
        values: &mut [T],
        operation: impl Operation<T>,
    ) -> Result<()> {
        let call = self.call::<T>(What::AllReduce, operation.code(), 0, values.len()).await?;
        combine(call, values, &operation, true).await
    }

    pub(super) async fn gather_slice<T: SharedType + Copy>(self, root: usize, values: &[T]) -> Result<Option<Vec<T>>> {
        let wanted = self.team.rank() == root;
        // Every place is overwritten; until then there is a value in it.
        let mut all = if wanted { values.repeat(self.team.size()) } else { Vec::new() };
        let call = self.call::<T>(What::Gather, 0, root, values.len()).await?;
        collect(call, values, &mut all).await?;
        Ok(wanted.then_some(all))
    }

    pub(super) async fn all_gather_slice<T: SharedType + Copy>(self, values: &[T]) -> Result<Vec<T>> {
        let mut all = values.repeat(self.team.size());
        let call = self.call::<T>(What::AllGather, 0, 0, values.len()).await?;
        collect(call, values, &mut all).await?;
        Ok(all)
    }

    pub(super) async fn scatter<T: SharedType + Copy>(self, root: usize, values: &[T]) -> Result<T> {
        let mut mine = Received::<T>::default();
        let get = |call: &Call<'_, '_>, step: Step| {
            call.get(call.rank, &mut mine.bytes()[step.bytes]);
            Ok(())
        };
        self.scatter_each(root, values, 1, get).await?;
        Ok(mine.check()?)
    }

    pub(super) async fn scatter_slice<T: SharedType + Copy>(
        self,
        root: usize,
        values: &[T],
        mine: &mut [T],
    ) -> Result<()> {
        let each = mine.len();
        let get = |call: &Call<'_, '_>, step: Step| {
            try_overwrite(&mut mine[step.elements], |bytes| call.get(call.rank, &mut bytes[step.bytes]))
        };
        self.scatter_each(root, values, each, get).await
    }

    /// Has `get` get what this rank is given, step by step.
    async fn scatter_each<T: SharedType + Copy>(
        self,
        root: usize,
        values: &[T],
        each: usize,
        mut get: impl FnMut(&Call<'_, '_>, Step) -> Result<(), InvalidValue>,
    ) -> Result<()> {
        let size = self.team.size();
        assert!(
            self.team.rank() != root || values.len() == each * size,
            "scatter: {size} ranks with {each} values each need {}, but there are {}",
            each * size,
            values.len()
        );
        let mut call = self.call::<T>(What::Scatter, 0, root, each).await?;
        for step in call.steps::<T>(each) {
            if call.rank == root {
                // Nobody else writes during a scatter, so each rank's place is there for what it is to get.
                for rank in 0..size {
                    let share = &values[rank * each..][step.elements.clone()];
                    call.put(rank, &bytes_of(share)[step.bytes.clone()])?;
                }
            }
            call.round(step.last).await?;
            get(&call, step)?;
        }
        Ok(())
    }
}

/// Combines all ranks' `values` by rank, into `values` where that is `wanted`.
async fn combine<T: SharedType + Copy>(
    mut call: Call<'_, '_>,
    values: &mut [T],
    operation: &impl Operation<T>,
    wanted: bool,
) -> Result<()> {
    let mut others = Vec::new();
    for step in call.steps::<T>(values.len()) {
        let values = &mut values[step.elements];
        call.put(call.rank, &bytes_of(values)[step.bytes.clone()])?;
        call.round(step.last).await?;
        if !wanted || values.is_empty() {
            continue;
        }
        let count = values.len();
        others.resize(count * call.size, values[0]);
        for (rank, values) in others.chunks_mut(count).enumerate() {
            try_overwrite(values, |bytes| call.get(rank, &mut bytes[step.bytes.clone()]))?;
        }
        if step.completes {
            for (at, value) in values.iter_mut().enumerate() {
                let others = |rank: usize| others[rank * count + at];
                *value = (1..call.size).fold(others(0), |sum, rank| operation.combine(sum, others(rank)));
            }
        }
    }
    Ok(())
}

/// Collects all ranks' `values`, one rank's behind the other's, in `all`, unless that is empty.
async fn collect<T: SharedType + Copy>(mut call: Call<'_, '_>, values: &[T], all: &mut [T]) -> Result<()> {
    for step in call.steps::<T>(values.len()) {
        call.put(call.rank, &bytes_of(&values[step.elements.clone()])[step.bytes.clone()])?;
        call.round(step.last).await?;
        if !all.is_empty() {
            for rank in 0..call.size {
                let values = &mut all[rank * values.len()..][step.elements.clone()];
                try_overwrite(values, |bytes| call.get(rank, &mut bytes[step.bytes.clone()]))?;
            }
        }
    }
    Ok(())
}
