//! Waiting for what the server answers: poll for a bounded while, giving the processor away, then sleep on the slot.
//! Every wait ends: with the answer, with the caller's deadline, or when the answer can no longer come.

use crate::hands::hands;
use crate::patient::{patiently, patiently_by};
use crate::region::Region;
use crate::{Error, Result};
use dsm_core::limits::SLOTS;
use dsm_core::op::AtomicOp;
use dsm_core::record::{AtomicBody, BARRIER, Kind, SyncBody};
use dsm_core::slot::{Answer, Slot};
use dsm_core::sys::futex;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Rounds of giving the processor away before sleeping, at the least.
const POLLS: u32 = 100;
/// And how long, at the least: longer than an answer takes when everybody is awake. A round takes 0.1 us where nobody
/// else wants the processor, and going to sleep interrupts those who work on the answer.
const POLL: Duration = Duration::from_micros(50);
/// How much longer than its deadline a wait lasts to find out what the order says of it, where nobody answers.
pub(crate) const GRACE: Duration = Duration::from_millis(200);
/// One sleep; then the waiter looks whether its answer can still come.
const NAP: Duration = Duration::from_millis(20);

thread_local! {
    /// Where this thread found a free slot last time.
    static HINT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Looks again and again for a bounded while, giving the processor away in between. `None`: it is time to sleep.
/// Usable in the trap door.
#[inline(always)]
pub(crate) fn poll<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let mut round = 0;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        round += 1;
        if round > POLLS && start.elapsed() > POLL {
            return None;
        }
        futex::give_way();
    }
}

/// The end of a wait that begins now; `None` for one that is further off than clocks reach.
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// A slot, held for one operation.
pub(crate) struct Wait<'a> {
    region: &'a Region,
    slot: &'a Slot,
    /// Who claimed it: its number, and the region's `births`.
    process: u32,
    births: u32,
    /// Travels with the operation.
    pub(crate) token: u64,
}

/// A wait that was left, to be gone on with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    process: u32,
    births: u32,
    token: u64,
}

/// What came of [`Wait::ask`].
pub(crate) enum Asked<'a> {
    /// The answer.
    Answered(Answer),
    /// None by the deadline.
    Late(Wait<'a>),
}

/// A wait that is over for who waited, and not for the others.
#[derive(Debug)]
pub(crate) struct Unsaid {
    wait: Left,
    flags: u8,
    object: u32,
    units: u32,
}

/// What waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiter {
    /// A thread, which sleeps.
    Thread,
    /// A task, which is woken by the bell.
    #[cfg(feature = "async")]
    Task,
}

impl<'a> Wait<'a> {
    /// Claims a slot.
    pub(crate) fn begin(region: &'a Region) -> Self {
        loop {
            if let Some(wait) = Self::try_begin(region, SLOTS) {
                return wait;
            }
            // As many threads of this host wait as can wait at a time.
            region.give_up_if_lost();
            futex::give_way();
        }
    }

    /// As [`Wait::begin`]; `None` when the deadline came first.
    ///
    /// # Errors
    /// When the session has ended.
    pub(crate) fn begin_by(region: &'a Region, deadline: Option<Instant>) -> Result<Option<Self>> {
        if region.has_unsaid() {
            Self::catch_up(region)?;
        }
        loop {
            if let Some(wait) = Self::try_begin(region, SLOTS) {
                return Ok(Some(wait));
            }
            if let Some(error) = region.lost() {
                return Err(error);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            futex::give_way();
        }
    }

    /// Claims a slot, if one of the first `count` is free.
    pub(crate) fn try_begin(region: &'a Region, count: usize) -> Option<Self> {
        let slots = &region.log().slots()[..count];
        let mut at = HINT.get();
        if at == usize::MAX {
            // Spread over the slots by where this thread's stack is: threads are far apart.
            at = (&raw const at as usize >> 16).wrapping_mul(0x9e37_79b9) % slots.len();
        }
        for _ in 0..slots.len() {
            let number = at % slots.len();
            let process = region.process();
            if let Some(token) = slots[number].claim(number as u16, process) {
                HINT.set(number);
                return Some(Self { region, slot: &slots[number], process, births: region.births(), token });
            }
            at = number + 1;
        }
        None
    }

    /// The slot.
    #[cfg(feature = "async")]
    pub(crate) fn slot(&self) -> &'a Slot {
        self.slot
    }

    /// Is this the process that waits, and not a child of its `fork` that a signal handler has made in the middle?
    fn ours(&self) -> bool {
        self.region.births() == self.births
    }

    /// Submits the record whose answer this waits for; false, and nothing submitted, when the deadline came first.
    ///
    /// # Errors
    /// When the session ends while this waits for the lock or for room.
    pub(crate) fn submit_by(
        &self,
        deadline: Option<Instant>,
        kind: Kind,
        flags: u8,
        object: u32,
        amount: u32,
    ) -> Result<bool> {
        let body = SyncBody { token: self.token, amount, process: self.process };
        let log = self.region.log();
        patiently_by(self.region, deadline, |writer| {
            let place = u64::from(object);
            self.region.with_log(|| log.submit(writer, || self.ours(), kind, flags, place, bytemuck::bytes_of(&body)));
        })
    }

    /// Submits the record, and waits for its answer: `None`, and nothing submitted, when the deadline came too soon for that;
    /// the wait, when it came before the answer.
    ///
    /// # Errors
    /// When the answer can no longer come.
    pub(crate) fn ask(
        region: &'a Region,
        deadline: Option<Instant>,
        kind: Kind,
        flags: u8,
        object: u32,
        units: u32,
    ) -> Result<Option<Asked<'a>>> {
        let Some(wait) = Self::begin_by(region, deadline)? else { return Ok(None) };
        if !wait.submit_by(deadline, kind, flags, object, units)? {
            return Ok(None);
        }
        Ok(Some(wait.answer(deadline)?.map_or(Asked::Late(wait), Asked::Answered)))
    }

    /// At the deadline of a wait for `units` of a semaphore: the answer, if the order had it before. It may be on its way;
    /// that of a fence comes behind it. Else what is granted from now on goes back by itself.
    ///
    /// # Errors
    /// When the answer can no longer come.
    pub(crate) fn too_late(self, semaphore: u32, units: u32) -> Result<Option<Answer>> {
        let end = deadline(GRACE);
        if let Some(fence) = Self::begin_by(self.region, end)?
            && fence.submit_by(end, Kind::Fence, 0, 0, 0)?
            && fence.answer(end)?.is_none()
        {
            fence.abandon();
        }
        if let Some(answer) = self.look()? {
            return Ok(Some(answer));
        }
        self.cancel(deadline(GRACE), 0, semaphore, units)?;
        Ok(None)
    }

    /// At the deadline of an arrival at a barrier: takes it back. The answer says whether all had come before; where nobody
    /// answers, there is none.
    ///
    /// # Errors
    /// When the answer can no longer come.
    pub(crate) fn take_back(self, barrier: u32) -> Result<Option<Answer>> {
        if !self.submit_by(deadline(GRACE), Kind::Cancel, BARRIER, barrier, 0)? {
            self.unsaid(BARRIER, barrier, 0);
            return Ok(None);
        }
        let answer = self.answer(deadline(GRACE))?;
        if answer.is_none() {
            self.abandon();
        }
        Ok(answer)
    }

    /// Gives up for good: what is granted goes back.
    fn cancel(self, deadline: Option<Instant>, flags: u8, object: u32, units: u32) -> Result<()> {
        if self.submit_by(deadline, Kind::Cancel, flags, object, units)? {
            self.abandon();
        } else {
            self.unsaid(flags, object, units);
        }
        Ok(())
    }

    /// A process of this host is stopped in the middle of a store, or the log is full: that the wait is over has to be said
    /// later, with this process's next one.
    fn unsaid(self, flags: u8, object: u32, units: u32) {
        let region = self.region;
        region.leave_unsaid(Unsaid { wait: self.leave(), flags, object, units });
    }

    /// Says what could not be said so far. What still cannot be comes back.
    fn catch_up(region: &Region) -> Result<()> {
        let end = deadline(GRACE);
        for Unsaid { wait, flags, object, units } in region.take_unsaid() {
            Wait::resume(region, wait).cancel(end, flags, object, units)?;
        }
        Ok(())
    }

    /// What it takes to go on with this wait later. It must be gone on with, or the slot is never free again.
    pub(crate) fn leave(self) -> Left {
        let left = Left { process: self.process, births: self.births, token: self.token };
        std::mem::forget(self);
        left
    }

    /// Goes on with a wait, in the region where it was begun.
    pub(crate) fn resume(region: &'a Region, left: Left) -> Self {
        let Left { process, births, token } = left;
        Self { region, slot: &region.log().slots()[usize::from(token as u16)], process, births, token }
    }

    /// Stops waiting: the answer, when it comes, frees the slot.
    pub(crate) fn abandon(self) {
        if self.ours() && self.slot.abandon() {
            std::mem::forget(self);
        }
    }

    /// The answer, or `None` at the deadline.
    ///
    /// # Errors
    /// When it can no longer come.
    pub(crate) fn answer(&self, deadline: Option<Instant>) -> Result<Option<Answer>> {
        if let Some(found) = poll(|| self.look().transpose()) {
            return found.map(Some);
        }
        loop {
            if let Some(answer) = self.look()? {
                return Ok(Some(answer));
            }
            let mut nap = NAP;
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(None);
                }
                nap = nap.min(left);
            }
            self.slot.sleep(nap, self.region.log().barrier());
            if self.look()?.is_none()
                && let Some(error) = self.region.lost()
            {
                // It may have come just before the end.
                return self.slot.answer().map(Some).ok_or(error);
            }
        }
    }

    fn look(&self) -> Result<Option<Answer>> {
        if self.ours() {
            return Ok(self.slot.answer());
        }
        let text = "this process was forked in the middle of a wait, which goes on in its parent alone";
        Err(self.region.lost().unwrap_or_else(|| Error::Unavailable(text.into())))
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.ours() {
            self.slot.free(self.token, self.process);
        }
    }
}

impl Waiter {
    /// Begins a wait, of a region that is not lost; `None` when the deadline comes before there is a slot.
    ///
    /// # Errors
    /// When the session has ended; when too many tasks wait already, or there is no bell to wake them.
    pub(crate) fn begin(self, region: &Region, deadline: Option<Instant>) -> Result<Option<Wait<'_>>> {
        match self {
            Self::Thread => Wait::begin_by(region, deadline),
            #[cfg(feature = "async")]
            Self::Task => crate::sync::asynchronous::begin(region).map(Some),
        }
    }

    /// The answer, or `None` at the deadline. For a thread, the future is ready when it is first polled.
    ///
    /// # Errors
    /// When it can no longer come.
    pub(crate) async fn answer(self, wait: &Wait<'_>, deadline: Option<Instant>) -> Result<Option<Answer>> {
        match self {
            Self::Thread => wait.answer(deadline),
            #[cfg(feature = "async")]
            Self::Task => crate::sync::asynchronous::answer_by(wait.region, wait, deadline).await,
        }
    }
}

/// Submits a synchronising record of this wait.
///
/// # Errors
/// When the session ends while this waits for room.
pub(crate) fn submit(region: &Region, kind: Kind, flags: u8, object: u32, token: u64, amount: u32) -> Result<()> {
    let body = SyncBody { token, amount, process: region.process() };
    patiently(region, |writer| {
        let (births, place) = (region.births(), u64::from(object));
        let ours = || region.births() == births;
        region.with_log(|| region.log().submit(writer, ours, kind, flags, place, bytemuck::bytes_of(&body)));
    })
}

/// An atomic operation at its place in the total order. Usable in the trap door.
#[inline(always)]
pub(crate) fn atomic(region: &Region, offset: u64, op: AtomicOp) -> u128 {
    // A copy, so that what it points to is known to stay the same.
    let (log, mut old) = (*region.log(), None);
    let aligned = offset.is_multiple_of(u64::from(op.width.max(1)));
    if aligned && log.leased() {
        hands().quickly(|| {
            let memory = region.memory();
            old = match op.width {
                1 => log.try_atomic_word::<1>(memory, region, offset, &op),
                2 => log.try_atomic_word::<2>(memory, region, offset, &op),
                4 => log.try_atomic_word::<4>(memory, region, offset, &op),
                8 => log.try_atomic_word::<8>(memory, region, offset, &op),
                _ => None,
            };
            old.is_some()
        });
    }
    match old {
        Some(old) => old,
        None => atomic_slowly(region, offset, op),
    }
}

/// Any operand, leased or not, and whatever there is to be waited for.
#[inline(never)]
fn atomic_slowly(region: &Region, offset: u64, op: AtomicOp) -> u128 {
    loop {
        let log = region.log();
        if log.leased()
            && let Some(old) = region.with_log(|| log.atomic(region.memory(), region, offset, &op))
        {
            return old;
        }
        if let Some(old) = ordered_atomic(region, offset, op) {
            return old;
        }
    }
}

/// An atomic for which the server is asked; `None` when it has left the matter to this host meanwhile, or when this is a
/// child of `fork` by now: as after an instruction that a signal interrupts, parent and child carry it out, each once.
#[inline(never)]
fn ordered_atomic(region: &Region, offset: u64, op: AtomicOp) -> Option<u128> {
    let wait = Wait::begin(region);
    let body = AtomicBody::new(wait.token, op);
    if !region.with_log(|| region.log().submit_atomic(region, || wait.ours(), offset, &body)) {
        return None;
    }
    loop {
        // Without `lost`, whose error allocates: in the trap door that would not do.
        let found = poll(|| if wait.ours() { wait.slot.answer().map(Some) } else { Some(None) });
        match found {
            Some(Some(answer)) => return Some(answer.value),
            Some(None) => {
                region.give_up_if_lost();
                return None;
            }
            None => {}
        }
        wait.slot.sleep(NAP, region.log().barrier());
        if wait.ours() && wait.slot.answer().is_none() {
            region.give_up_if_lost();
        }
    }
}

/// Returns when everything that this process did before is ordered and applied here.
pub(crate) fn fence(region: &Region, timeout: Option<Duration>) -> Result<()> {
    let deadline = timeout.and_then(deadline);
    if let Some(wait) = Wait::begin_by(region, deadline)?
        && wait.submit_by(deadline, Kind::Fence, 0, 0, 0)?
    {
        if wait.answer(deadline)?.is_some() {
            return Ok(());
        }
        wait.abandon();
    }
    Err(Error::TimedOut(timeout.unwrap_or_default()))
}
