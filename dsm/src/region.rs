//! A session as it is mapped into this process.
//!
//! Two halves of one reservation: the **view** (read-only, what programs point into) and, [`SPACE`] bytes further on,
//! the **alias** (writable, the library's own). A captured store goes through the alias, so the view is never
//! unprotected and no other thread can slip a store past the capture.

use crate::connection::Connection;
use crate::hands::hands;
use crate::sync::Object;
use crate::wait::Unsaid;
use crate::{Error, Result};
use dsm_core::bias::Favour;
use dsm_core::control::{Ended, FINGERPRINT, GONE, MAGIC};
use dsm_core::limits::{LINE, PAGE, SEGMENTS, SPACE};
use dsm_core::log::{Door, SharedArea, SharedLog, Writer};
use dsm_core::memory::{Mapped, Memory};
use dsm_core::segment::SegmentInfo;
use dsm_core::sync::Ordering::{Acquire, Relaxed, Release};
use dsm_core::sys::{event, map, membarrier, process};
use dsm_core::wire::control::{Ask, Told};
use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
#[cfg(feature = "async")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// A segment that is mapped, and its file.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) info: SegmentInfo,
    pub(crate) file: OwnedFd,
}

/// How long `fork` waits for the library's own locks, which are held for microseconds (or to map a segment).
const PATIENCE: Duration = Duration::from_secs(5);

/// Locks that are held while the process forks.
pub(crate) struct Locks<'a> {
    _segments: MutexGuard<'a, Vec<Attached>>,
    _holes: MutexGuard<'a, Vec<(u64, u64)>>,
    _buffers: MutexGuard<'a, Vec<map::Range>>,
    /// The parent's affair.
    pub(crate) unsaid: MutexGuard<'a, Vec<Unsaid>>,
    /// To be forgotten in the child, which is another party of barriers.
    pub(crate) objects: MutexGuard<'a, Objects>,
}

type Objects = HashMap<(Object, u64), (u32, Arc<str>)>;

/// A session, mapped.
pub(crate) struct Region {
    view: usize,
    memory: Mapped,
    log: SharedLog<'static>,
    process: AtomicU32,
    /// A number that no other region of this process has, nor one that this was copied from by `fork`, in memory where
    /// a child finds 0 until it is a process of its own: it is not the thread that the lock is biased to. Behind it, the
    /// number of the process. It stays 0 where the kernel has no such memory.
    tag: ManuallyDrop<map::Range>,
    favours: bool,
    /// Everything goes through the trap door.
    trap_only: bool,
    bell: OwnedFd,
    /// Set when a child of `fork` could not become a process of its own.
    orphaned: AtomicBool,
    births: AtomicU32,
    socket: AtomicI32,
    /// `(start, end)` of the mapped segments: read by the signal handler, so no lock.
    extents: Box<[(AtomicU64, AtomicU64)]>,
    extent_count: AtomicUsize,
    connection: UnsafeCell<Mutex<Connection>>,
    pub(crate) segments: Mutex<Vec<Attached>>,
    /// Ranges of offsets under holes of this process.
    pub(crate) holes: Mutex<Vec<(u64, u64)>>,
    /// Private memory for holes, kept for the next.
    pub(crate) buffers: Mutex<Vec<map::Range>>,
    /// What wakes asynchronous waits, once there are any.
    #[cfg(feature = "async")]
    pub(crate) listening: OnceLock<crate::sync::Bell>,
    /// Sync objects behind fields, by their offset: their number, and what people call them.
    pub(crate) objects: Mutex<Objects>,
    /// Waits that are over, which could not be said.
    unsaid: Mutex<Vec<Unsaid>>,
    /// Are there any? So that a wait need not take the lock to see.
    has_unsaid: AtomicBool,
    /// What the segments that this process has opened consist of.
    pub(crate) types: crate::typed::Types,
    pub(crate) space: ManuallyDrop<map::Range>,
    area: ManuallyDrop<map::Range>,
    /// Name of the session.
    pub(crate) name: String,
    /// Where the arbiter listens, and how we joined: what a child of `fork` repeats.
    pub(crate) arbiter: PathBuf,
}

/// It is in every handle and guard: short.
impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Region({:?})", self.name)
    }
}

// SAFETY: all fields are synchronised themselves but `connection`, which is replaced only in the child of a `fork`,
// where there is one thread.
unsafe impl Sync for Region {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Region {}

/// What the arbiter gave us when we joined.
pub(crate) struct Joined {
    pub(crate) name: String,
    pub(crate) arbiter: PathBuf,
    pub(crate) connection: Connection,
    pub(crate) process: u16,
    pub(crate) area: OwnedFd,
    pub(crate) bell: OwnedFd,
}

impl Region {
    /// Maps a session.
    pub(crate) fn map(joined: Joined) -> Result<Box<Self>> {
        let Joined { name, arbiter, connection, process, area, bell } = joined;
        let cannot = |what: &str| Error::system(format!("session {name:?}: {what}"));
        let len = size_of::<SharedArea>();
        map::check_memory_file(&area, len as u64).map_err(cannot("the log is not what it should be"))?;
        let area = map::Range::of_file(&area, len).map_err(cannot("cannot map the log"))?;
        // SAFETY: a mapping of that size, sealed against shrinking, and unmapped in `close`.
        let shared = unsafe { shared(&area) };
        let fixed = &shared.control.fixed;
        if (fixed.magic.load(Relaxed), fixed.layout.load(Relaxed)) != (MAGIC, FINGERPRINT) {
            return Err(Error::Unavailable(format!("session {name:?}: the log was made by another release of dsm")));
        }
        if fixed.asymmetric.load(Relaxed) != 0 && !membarrier::register() {
            return Err(Error::Unavailable(format!(
                "session {name:?}: the arbiter uses membarrier(2), which this process may not: run both under the same \
                 seccomp profile"
            )));
        }
        // The same place in every process, where it is free, so that addresses can be compared by eye.
        let wish = 0x2000_0000_0000usize + (fingerprint(&name) as usize % 16) * (4 * SPACE as usize);
        let space = map::Range::reserve(2 * SPACE as usize, Some(wish)).map_err(cannot("no address space"))?;
        let wiped = map::Range::of_this_process(PAGE as usize);
        let favours = wiped.is_ok();
        let tag = wiped.or_else(|_| map::Range::private(PAGE as usize)).map_err(cannot("no memory"))?;
        let region = Box::new(Self {
            process: AtomicU32::new(u32::from(process)),
            favours,
            trap_only: std::env::var_os("DSM_CAPTURE").is_some_and(|mode| mode == "trap"),
            extents: (0..SEGMENTS).map(|_| Default::default()).collect(),
            name,
            arbiter,
            ..Self::new(shared.log(), area, space, SPACE, tag, bell, connection)
        });
        region.retag();
        Ok(region)
    }

    /// A region without extents, name, or a lock that is biased, of process 1. Its alias begins `alias` bytes into `space`.
    fn new(
        log: SharedLog<'static>,
        area: map::Range,
        space: map::Range,
        alias: u64,
        tag: map::Range,
        bell: OwnedFd,
        connection: Connection,
    ) -> Self {
        Self {
            view: space.base() as usize,
            // SAFETY: offsets are used only after `contains` or an attached segment's extent has shown them mapped.
            memory: unsafe { Mapped::new(space.base().wrapping_add(alias as usize)) },
            log,
            process: AtomicU32::new(1),
            tag: ManuallyDrop::new(tag),
            favours: false,
            trap_only: false,
            bell,
            orphaned: AtomicBool::new(false),
            births: AtomicU32::new(0),
            socket: AtomicI32::new(connection.descriptor()),
            extents: Box::default(),
            extent_count: AtomicUsize::new(0),
            connection: UnsafeCell::new(Mutex::new(connection)),
            segments: Mutex::default(),
            holes: Mutex::default(),
            buffers: Mutex::default(),
            #[cfg(feature = "async")]
            listening: OnceLock::new(),
            unsaid: Mutex::default(),
            has_unsaid: AtomicBool::new(false),
            objects: Mutex::default(),
            types: Default::default(),
            space: ManuallyDrop::new(space),
            area: ManuallyDrop::new(area),
            name: String::new(),
            arbiter: PathBuf::new(),
        }
    }

    /// See the field.
    #[inline(always)]
    fn tag(&self) -> &[AtomicU64; 2] {
        // SAFETY: a page of zeros that is mapped, for reading and writing, as long as the region.
        unsafe { &*self.tag.base().cast::<[AtomicU64; 2]>() }
    }

    fn retag(&self) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if !self.favours {
            return;
        }
        let [tag, process] = self.tag();
        process.store(u64::from(std::process::id()), Relaxed);
        tag.store(NEXT.fetch_add(1, Relaxed), Relaxed);
    }

    /// A region of `len` bytes of plain memory, alone in its session, with nobody behind it: for tests, of which Miri runs
    /// some. View and alias are one; what is logged stays in the log.
    #[cfg(test)]
    pub(crate) fn plain(len: usize) -> Box<Self> {
        let private = |len| map::Range::private(len).expect("memory");
        let area = private(size_of::<SharedArea>());
        // SAFETY: a mapping of that size; zeros are the empty log. It is unmapped in `close`.
        let shared = unsafe { shared(&area) };
        shared.control.producer.leased.store(1, Relaxed);
        let bell = event::doorbell().expect("a descriptor");
        let region = Self::new(shared.log(), area, private(len), 0, private(PAGE as usize), bell, Connection::nobody());
        Box::new(Self { name: "plain".into(), ..region })
    }

    /// Unmaps everything.
    ///
    /// # Safety
    /// Nobody uses the region, or what points into it, from now on.
    pub(crate) unsafe fn close(mut self: Box<Self>) {
        #[cfg(feature = "async")]
        self.listening.take().into_iter().for_each(crate::sync::Bell::close);
        // SAFETY: not used again: `self` ends here.
        unsafe { ManuallyDrop::drop(&mut self.space) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.area) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.tag) };
    }

    /// The connection to the arbiter.
    pub(crate) fn connection(&self) -> MutexGuard<'_, Connection> {
        // SAFETY: replaced only by `replace_connection`, in the child of a fork, where no other thread is.
        let mutex = unsafe { &*self.connection.get() };
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the arbiter.
    ///
    /// # Errors
    /// What it refuses; when it does not answer, why the session is over, if it is.
    pub(crate) fn ask(&self, ask: &Ask) -> Result<(Told, Vec<OwnedFd>)> {
        self.ask_by(&mut self.connection(), ask)
    }

    /// As [`Region::ask`], for who has the connection.
    pub(crate) fn ask_by(&self, connection: &mut Connection, ask: &Ask) -> Result<(Told, Vec<OwnedFd>)> {
        connection.ask(ask).map_err(|error| match error {
            Error::System { .. } => self.lost().unwrap_or(error),
            error => error,
        })
    }

    /// In the child of a `fork`: from now on a process of its own.
    ///
    /// # Safety
    /// There is one thread, and it holds no guard of the connection.
    pub(crate) unsafe fn reborn(&self, connection: Option<(Connection, u16)>) {
        self.births.fetch_add(1, Relaxed);
        let Some((connection, process)) = connection else {
            self.orphaned.store(true, Release);
            return;
        };
        self.socket.store(connection.descriptor(), Relaxed);
        self.process.store(u32::from(process), Relaxed);
        // SAFETY: by the contract nobody else looks. The old mutex may be locked by a thread that this process does
        // not have, so it is overwritten, not dropped; its socket is closed by the caller.
        unsafe { self.connection.get().write(Mutex::new(connection)) };
        if !self.log.barrier().is_cheap() || membarrier::register() {
            self.retag();
        }
    }

    /// The library's own locks in this region, for the time of a `fork`. `None` when they cannot be had: the caller is
    /// a signal handler that has interrupted their holder.
    pub(crate) fn freeze(&self) -> Option<Locks<'_>> {
        let start = Instant::now();
        loop {
            let locks = (free(&self.objects), free(&self.segments), free(&self.holes), free(&self.buffers));
            if let (Some(objects), Some(segments), Some(holes), Some(buffers)) = locks
                && let Some(unsaid) = free(&self.unsaid)
            {
                return Some(Locks { _segments: segments, _holes: holes, _buffers: buffers, unsaid, objects });
            }
            if start.elapsed() > PATIENCE {
                return None;
            }
            std::thread::yield_now();
        }
    }

    /// Makes log and alias inaccessible to this process.
    pub(crate) fn seal(&self) {
        let _ = self.area.protect(0, self.area.len(), map::Access::None);
        let _ = self.space.protect(SPACE as usize, SPACE as usize, map::Access::None);
    }

    /// Maps a segment that the arbiter has opened.
    pub(crate) fn attach(&self, info: &SegmentInfo, file: OwnedFd) -> Result<()> {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let known = segments.iter().position(|segment| segment.info.id == info.id);
        let has = known.map_or(0, |at| segments[at].info.len);
        if known.is_some() && has >= info.len {
            return Ok(());
        }
        let fits = info.offset.checked_add(info.len).is_some_and(|end| end <= SPACE);
        if !fits || !info.offset.is_multiple_of(PAGE) || !info.len.is_multiple_of(PAGE) {
            return Err(Error::Unavailable(format!("the arbiter put segment {:?} where nothing can be", info.name)));
        }
        let cannot = |what: &str| Error::system(format!("segment {:?}: {what}", info.name));
        map::check_memory_file(&file, info.len).map_err(cannot("its memory is not what it should be"))?;
        let at = known.unwrap_or(self.extent_count.load(Relaxed));
        let Some((start, end)) = self.extents.get(at) else {
            return Err(Error::TooLarge(format!("the session already has {SEGMENTS} segments")));
        };
        // Of one that has grown, only what is new: there may be a hole over the rest.
        let (offset, len) = ((info.offset + has) as usize, (info.len - has) as usize);
        self.space.map_file_part(offset, len, map::Access::Read, &file, has).map_err(cannot("cannot map it"))?;
        self.space
            .map_file_part(offset + SPACE as usize, len, map::Access::ReadWrite, &file, has)
            .map_err(cannot("cannot map it"))?;
        start.store(info.offset, Relaxed);
        end.store(info.offset + info.len, Relaxed);
        // Release: pairs with the Acquire in `contains`.
        self.extent_count.fetch_max(at + 1, Release);
        match known {
            Some(at) => segments[at].info = info.clone(),
            None => segments.push(Attached { info: info.clone(), file }),
        }
        Ok(())
    }

    /// Do these bytes lie in one mapped segment? Segments never touch: a page of nothing follows each.
    pub(crate) fn contains(&self, offset: u64, len: usize) -> bool {
        let count = self.extent_count.load(Acquire).min(self.extents.len());
        let inside = |(start, end): &(AtomicU64, AtomicU64)| {
            offset >= start.load(Relaxed) && offset.checked_add(len as u64).is_some_and(|to| to <= end.load(Relaxed))
        };
        self.extents[..count].iter().any(inside)
    }

    /// Offset of an address of the view.
    pub(crate) fn offset_of(&self, address: usize) -> Option<u64> {
        let offset = address.checked_sub(self.view)? as u64;
        (offset < SPACE).then_some(offset)
    }

    /// Address in the view.
    pub(crate) fn address(&self, offset: u64) -> *mut u8 {
        self.space.base().wrapping_add(offset as usize)
    }

    /// Offset of an address that is known to lie in the view.
    #[inline(always)]
    pub(crate) fn offset_at(&self, address: *mut u8) -> u64 {
        (address as usize).wrapping_sub(self.view) as u64
    }

    /// The log.
    #[inline(always)]
    pub(crate) fn log(&self) -> &SharedLog<'static> {
        &self.log
    }

    /// The replica, through the alias.
    #[inline(always)]
    pub(crate) fn memory(&self) -> &Mapped {
        &self.memory
    }

    /// This process's number on the host.
    pub(crate) fn process(&self) -> u32 {
        self.process.load(Relaxed)
    }

    /// How often this process, or one that it descends from, was the child of a `fork`: numbers are used again.
    pub(crate) fn has_unsaid(&self) -> bool {
        self.has_unsaid.load(Relaxed)
    }

    pub(crate) fn leave_unsaid(&self, wait: Unsaid) {
        self.with_unsaid(|waits| waits.push(wait));
    }

    pub(crate) fn take_unsaid(&self) -> Vec<Unsaid> {
        self.with_unsaid(std::mem::take)
    }

    /// As with the log: a signal handler, which may wait, too, finds the lock free.
    fn with_unsaid<R>(&self, action: impl FnOnce(&mut Vec<Unsaid>) -> R) -> R {
        self.with_log(|| {
            let mut waits = self.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
            let result = action(&mut waits);
            self.has_unsaid.store(!waits.is_empty(), Relaxed);
            result
        })
    }

    pub(crate) fn births(&self) -> u32 {
        self.births.load(Relaxed)
    }

    /// This host's number in the session.
    pub(crate) fn host(&self) -> u32 {
        self.log.control().fixed.host.load(Relaxed)
    }

    /// Shall everything go through the trap door?
    #[inline(always)]
    pub(crate) fn trap_only(&self) -> bool {
        self.trap_only
    }

    /// The direct door for a naturally aligned word. A function for every width, so that the width is a constant all
    /// the way down.
    #[inline]
    pub(crate) fn store_word<const N: usize>(&self, offset: u64, word: [u8; N]) {
        // A copy, so that what it points to is known to stay the same.
        let log = self.log;
        let store = || log.try_store_word(&self.memory, self, Door::Direct, offset, word);
        if N > 8 || !hands().quickly(store) {
            self.store_in_line(offset, &word);
        }
    }

    /// The direct door for bytes within one line.
    #[inline(never)]
    pub(crate) fn store_in_line(&self, offset: u64, bytes: &[u8]) {
        let hands = hands();
        if hands.capture(|| self.log.store(&self.memory, self, Door::Direct, offset, bytes)).is_none() {
            hands.defer(self, offset, bytes);
        }
    }

    /// The direct door for any number of bytes.
    #[inline(never)]
    pub(crate) fn store_bytes(&self, offset: u64, bytes: &[u8]) {
        let hands = hands();
        // Pieces, so that the replica lock is not held for long and the ring need not hold everything.
        for (at, piece) in (offset..).step_by(PAGE as usize).zip(bytes.chunks(PAGE as usize)) {
            if hands.capture(|| self.log.store_long(&self.memory, self, Door::Direct, at, piece)).is_none() {
                dsm_core::record::by_line(at, piece).for_each(|(at, line)| hands.defer(self, at, line));
            }
        }
    }

    /// The trap door: signals are blocked, so nothing interrupts it; but it may itself have interrupted a capture.
    pub(crate) fn store_trapped(&self, offset: u64, bytes: &[u8]) {
        let hands = hands();
        let stored = hands.capture(|| {
            if offset % LINE + bytes.len() as u64 <= LINE {
                self.log.store(&self.memory, self, Door::Trap, offset, bytes);
            } else {
                self.log.store_long(&self.memory, self, Door::Trap, offset, bytes);
            }
        });
        if stored.is_none() {
            dsm_core::record::by_line(offset, bytes).for_each(|(at, line)| hands.defer(self, at, line));
        }
    }

    /// What a signal handler has left, within one line.
    pub(crate) fn store_deferred(&self, offset: u64, bytes: &[u8]) {
        self.log.store(&self.memory, self, Door::Direct, offset, bytes);
    }

    /// Carries out `action`, which uses the log, unless it would interrupt a capture of this very thread.
    #[inline(always)]
    pub(crate) fn with_log<R>(&self, action: impl FnOnce() -> R) -> R {
        match hands().capture(action) {
            Some(result) => result,
            None => cannot_wait(),
        }
    }

    /// Why nothing can be waited for any more, if so.
    pub(crate) fn lost(&self) -> Option<Error> {
        // Before the reason, which is there by then if there is one.
        let gone = self.arbiter_gone();
        if let Some(why) = self.log.ended() {
            return Some(Error::SessionEnded { session: self.name.clone(), why });
        }
        gone.then(|| Error::ArbiterGone { session: self.name.clone() })
    }

    fn arbiter_gone(&self) -> bool {
        if self.orphaned.load(Relaxed) {
            return true;
        }
        // The kernel says so before it closes the arbiter's sockets, which may take it a while.
        // Acquire: pairs with the Release in the arbiter's `end`, which says first why.
        let marked = self.log.control().rare.arbiter.word.load(Acquire) & GONE != 0;
        // SAFETY: the descriptor belongs to `connection`, which lives as long as the region, and is replaced together
        // with it.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket.load(Relaxed)) };
        marked || process::hung_up(socket)
    }

    /// For operations that cannot return an error: panics, or, where there is nothing to unwind to, ends the process.
    #[cold]
    pub(crate) fn give_up_if_lost(&self) {
        let gone = self.arbiter_gone();
        let ended = self.log.ended();
        if ended.is_none() && !gone {
            return;
        }
        if hands().trapped() {
            let why: &[u8] = match ended {
                Some(Ended::ServerGone) => b": the connection to its server broke",
                Some(Ended::ShutDown) => b": somebody ended it",
                Some(_) => b": its arbiter ended it",
                None => b": its arbiter is gone",
            };
            fatal(&[b"dsm: a store to session ", self.name.as_bytes(), b" cannot be shared any more", why]);
        }
        if let Some(error) = self.lost() {
            panic!("a store or atomic cannot be shared any more: {error}");
        }
    }

    /// Address of the doorbell's descriptor, for closing in a child.
    pub(crate) fn socket(&self) -> i32 {
        self.socket.load(Relaxed)
    }

    /// The bytes of the view, copied.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) {
        self.memory.read(offset, out);
    }
}

impl Writer for Region {
    #[inline(always)]
    fn number(&self) -> u32 {
        self.process.load(Relaxed)
    }

    #[inline(always)]
    fn favour(&self) -> Option<&Favour> {
        let [tag, process] = self.tag();
        hands().favour(tag.load(Relaxed), || process.load(Relaxed) as u32)
    }

    fn ring_doorbell(&self) {
        event::ring(self.bell.as_fd());
    }

    fn stalled(&self) {
        self.give_up_if_lost();
    }

    fn holds(&self) -> bool {
        hands().holds()
    }

    fn let_in(&self) {
        hands().let_in();
    }
}

/// The log in a mapping.
///
/// # Safety
/// It is as large as that, and stays mapped as long as this is used.
unsafe fn shared(area: &map::Range) -> &'static SharedArea {
    // SAFETY: by the contract; page-aligned, and all fields are atomics, valid for any bytes.
    unsafe { &*area.base().cast::<SharedArea>() }
}

#[cold]
fn cannot_wait() -> ! {
    fatal(&[
        b"dsm: a signal handler that interrupted a store of its own thread asks for what has to wait (an ",
        b"atomic, a semaphore, a barrier or a hole): call dsm::signals::adopt() after installing handlers",
    ])
}

/// The guard of a mutex that nobody holds.
fn free<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Writes a line to stderr and ends the process. Allocates nothing: for the trap door.
pub(crate) fn fatal(parts: &[&[u8]]) -> ! {
    for part in parts.iter().chain(&[&b"\n"[..]]) {
        // SAFETY: writes bytes that we own to a descriptor that may be closed, which does no harm.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

fn fingerprint(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
