//! A session, and what can be opened in it.

use crate::barrier::Barrier;
use crate::collective::Teams;
use crate::join::Builder;
use crate::place::Place;
use crate::region::Region;
use crate::semaphore::Semaphore;
use crate::typed::{Layout, ReadOnly, Shared, SharedType, Slice};
use crate::{Error, Result, raw_hole::RawHole, sync, trap, wait};
use dsm_core::segment::{OpenMode, OpenSegment, TypeDesc, check_name};
use dsm_core::wire::control::{Ask, Listing, SessionStatus, SyncKind, Told};
use std::time::Duration;

/// An array has offsets for as many times its size, so that it can grow.
const GROWTH: u64 = 8;
/// And for this many bytes.
const LEAST_ROOM: u64 = 64 << 20;

/// A process's membership in a session.
///
/// Handles borrow it, so they cannot outlive it; to share it among threads, borrow it in [`std::thread::scope`], or
/// make it last for the whole program with [`Session::leak`]. Dropping it leaves the session.
#[derive(Debug)]
pub struct Session {
    region: Option<Box<Region>>,
    host: u16,
    rank: usize,
    size: usize,
    daemon: String,
    teams: Teams,
}

impl Session {
    /// Joins the session `name`, starting what is not running yet: on a single machine nothing else is needed.
    ///
    /// # Errors
    /// See [`Builder::join`].
    pub fn join(name: impl Into<String>) -> Result<Self> {
        Self::builder(name).join()
    }

    /// Joins with settings.
    #[must_use]
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder::new(name.into())
    }

    /// Stays joined until the program ends, so that handles can go anywhere.
    #[must_use]
    pub fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    /// One of those that started together.
    pub(crate) fn place(&mut self, rank: usize, size: usize) {
        (self.rank, self.size) = (rank, size);
    }

    pub(crate) fn joined(region: Box<Region>, host: u16, rank: usize, size: usize, daemon: String) -> Self {
        Self { region: Some(region), host, rank, size, daemon, teams: Teams::default() }
    }

    pub(crate) fn teams(&self) -> &Teams {
        &self.teams
    }

    pub(crate) fn region(&self) -> &Region {
        match &self.region {
            Some(region) => region,
            None => unreachable!("the region is taken when the session is dropped, and not before"),
        }
    }

    /// Name of the session.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.region().name
    }

    /// Number of this host in the session.
    #[must_use]
    pub fn host(&self) -> u16 {
        self.host
    }

    /// Rank of this process, from 0, among the [`Session::size`] that were started together (`dsm run`).
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes were started together; 1 without `dsm run` and [`Builder::expect`].
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Address of the daemon, for other hosts to join by.
    #[must_use]
    pub fn daemon(&self) -> &str {
        &self.daemon
    }

    /// Opens the value `name`: attaches to it, or creates it as zeros.
    ///
    /// # Errors
    /// [`Error::TypeDiffers`] when there is something else by that name; the text names the first field that
    /// differs. [`Error::BadName`], [`Error::TooLarge`], [`Error::NoMemory`], and what the session's end causes.
    pub fn open<T: SharedType>(&self, name: &str) -> Result<Shared<'_, T>> {
        self.value(name, OpenMode::OpenOrCreate)
    }

    /// Opens the value `name`, as [`Session::open`] does, to be read only: what stores is not among the methods of its
    /// handle.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_read_only<T: SharedType>(&self, name: &str) -> Result<ReadOnly<'_, T>> {
        self.open(name).map(Shared::read_only)
    }

    /// Creates the value `name` as zeros.
    ///
    /// # Errors
    /// [`Error::Exists`], else as [`Session::open`].
    pub fn create_new<T: SharedType>(&self, name: &str) -> Result<Shared<'_, T>> {
        self.value(name, OpenMode::CreateNew)
    }

    /// Attaches to the value `name`.
    ///
    /// # Errors
    /// [`Error::NotFound`], else as [`Session::open`].
    pub fn attach<T: SharedType>(&self, name: &str) -> Result<Shared<'_, T>> {
        self.value(name, OpenMode::Attach)
    }

    /// Opens `name` as an array of `len` values: attaches to its first `len` values, or creates it as zeros.
    ///
    /// # Errors
    /// [`Error::TypeDiffers`] when there is something else by that name, or a shorter array; else as
    /// [`Session::open`].
    pub fn array<T: SharedType>(&self, name: &str, len: usize) -> Result<Slice<'_, T>> {
        self.sequence(name, len, OpenMode::OpenOrCreate)
    }

    /// Creates `name` as an array of `len` values, as zeros.
    ///
    /// # Errors
    /// [`Error::Exists`], else as [`Session::array`].
    pub fn create_new_array<T: SharedType>(&self, name: &str, len: usize) -> Result<Slice<'_, T>> {
        self.sequence(name, len, OpenMode::CreateNew)
    }

    /// Attaches to the array `name`, all of it.
    ///
    /// # Errors
    /// [`Error::NotFound`], else as [`Session::array`].
    pub fn attach_array<T: SharedType>(&self, name: &str) -> Result<Slice<'_, T>> {
        let (place, bytes) = self.open_segment(sequence::<T>(name, 1, OpenMode::Attach)?)?;
        self.know::<T>(place, bytes);
        // SAFETY: page-aligned, and the segment has at least `bytes` bytes (checked in `open_segment`).
        Ok(unsafe { Slice::new(place, bytes as usize / size_of::<T>()) })
    }

    /// Makes the array `name` at least `len` values long, and attaches to all of it. What is new are zeros.
    ///
    /// It grows in place: what is attached, here and on other hosts, keeps working, with the length that it has. Who
    /// attaches again sees the new one. An array has room for eight times its first size, and for 64 MiB at least,
    /// unless the session has come to have little left.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::TooLarge`] beyond that room; else as [`Session::array`].
    pub fn grow_array<T: SharedType>(&self, name: &str, len: usize) -> Result<Slice<'_, T>> {
        let (place, bytes) = self.open_segment(sequence::<T>(name, len, OpenMode::Grow)?)?;
        self.know::<T>(place, bytes);
        // SAFETY: page-aligned, and the segment has at least `bytes` bytes (checked in `open_segment`).
        Ok(unsafe { Slice::new(place, bytes as usize / size_of::<T>()) })
    }

    /// Removes the value or array `name`: the name is free at once, for anything.
    ///
    /// Who has attached it, on any host, keeps it and goes on sharing it with the others who have, as with a file that
    /// was unlinked. The memory is given back when the hosts that attached it have left the session; its number is not
    /// used again, and a session can have 4096 in all.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what the session's end causes.
    pub fn remove(&self, name: &str) -> Result<()> {
        check_name(name).map_err(|bad| Error::BadName(bad.to_string()))?;
        match self.region().ask(&Ask::Remove(name.to_owned()))?.0 {
            Told::Done => Ok(()),
            _ => Err(Error::Unavailable("the arbiter's answer makes no sense".into())),
        }
    }

    fn sequence<T: SharedType>(&self, name: &str, len: usize, mode: OpenMode) -> Result<Slice<'_, T>> {
        let (place, bytes) = self.open_segment(sequence::<T>(name, len, mode)?)?;
        self.know::<T>(place, bytes);
        // SAFETY: page-aligned, and the segment has at least as many bytes as were asked for (checked in
        // `open_segment`).
        Ok(unsafe { Slice::new(place, len) })
    }

    fn value<T: SharedType>(&self, name: &str, mode: OpenMode) -> Result<Shared<'_, T>> {
        let place = self.segment(name, size_of::<T>() as u64, describe(T::LAYOUT), mode)?;
        self.know::<T>(place, size_of::<T>() as u64);
        // SAFETY: page-aligned, and the segment has at least this many bytes (checked in `segment`).
        Ok(unsafe { Shared::new(place) })
    }

    /// Notes that there are `bytes` bytes of values of type `T` at `place`: for pointers that lead there.
    fn know<T: SharedType>(&self, place: Place<'_>, bytes: u64) {
        self.region().types.know(place.offset(), bytes, T::LAYOUT);
    }

    pub(crate) fn segment(&self, name: &str, len: u64, ty: TypeDesc, mode: OpenMode) -> Result<Place<'_>> {
        Ok(self.open_segment(OpenSegment { name: name.to_owned(), len, ty, mode, room: 0 })?.0)
    }

    /// Where the segment is, and how many bytes it has: at least as many as are asked for.
    fn open_segment(&self, open: OpenSegment) -> Result<(Place<'_>, u64)> {
        let region = self.region();
        check_name(&open.name).map_err(|bad| Error::BadName(bad.to_string()))?;
        dsm_core::segment::check_open(&open).map_err(Error::TooLarge)?;
        if let Some(error) = region.lost() {
            return Err(error);
        }
        crate::signals::adopt()?;
        let len = open.len;
        let (info, file) = match region.ask(&Ask::Open(open))? {
            (Told::Opened(info), mut files) if !files.is_empty() => (info, files.remove(0)),
            _ => return Err(Error::Unavailable("the arbiter's answer makes no sense".into())),
        };
        if info.bytes < len || info.len < info.bytes {
            let text = format!("segment {:?} has {} bytes, {len} are needed", info.name, info.bytes);
            return Err(Error::TypeDiffers(text));
        }
        region.attach(&info, file)?;
        Ok((Place::new(region, info.offset), info.bytes))
    }

    /// Opens the counting semaphore `name`, with `units` at first if it is new (at most 32,767).
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::TooLarge`], and what the session's end causes.
    pub fn semaphore(&self, name: &str, units: u32) -> Result<Semaphore<'_>> {
        let id = self.sync(name, SyncKind::Semaphore(units))?;
        Ok(Semaphore::new(self.region(), id, name))
    }

    /// Opens the barrier `name` for this many parties.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it is for another number; [`Error::BadName`], and what the session's end causes.
    pub fn barrier(&self, name: &str, parties: usize) -> Result<Barrier<'_>> {
        let parties = u32::try_from(parties).unwrap_or(u32::MAX);
        let id = self.sync(name, SyncKind::Barrier(parties))?;
        Ok(Barrier::new(self.region(), id, name))
    }

    pub(crate) fn sync(&self, name: &str, kind: SyncKind) -> Result<u32> {
        check_name(name).map_err(|bad| Error::BadName(bad.to_string()))?;
        sync::ask(self.region(), name, kind)
    }

    /// Returns when all that this process did before is ordered, and applied on this host.
    ///
    /// What other hosts have seen by then is not said: for that, use a barrier or a semaphore.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn fence(&self) -> Result<()> {
        wait::fence(self.region(), None)
    }

    /// As [`Session::fence`], but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or when the session has ended.
    pub fn fence_timeout(&self, timeout: Duration) -> Result<()> {
        wait::fence(self.region(), Some(timeout))
    }

    /// Why the session can no longer be used, if so.
    #[must_use]
    pub fn ended(&self) -> Option<Error> {
        self.region().lost()
    }

    /// A hole over the pages that hold `len` bytes at `pointer`, which must lie in one segment of this session: until
    /// it is filled, the program and the kernel may store there natively.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the bytes are not in one segment, [`Error::HolesOverlap`], [`Error::System`].
    pub fn raw_hole(&self, pointer: *mut u8, len: usize) -> Result<RawHole<'_>> {
        RawHole::open(self.region(), pointer as usize, len)
    }

    /// What is in the session: names, types, sizes, who has attached.
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn list(&self) -> Result<Listing> {
        match self.region().ask(&Ask::List(self.name().to_owned()))?.0 {
            Told::Listing(listing) => Ok(listing),
            _ => Err(Error::Unavailable("the arbiter's answer makes no sense".into())),
        }
    }

    /// What this host's arbiter has done for the session.
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn status(&self) -> Result<SessionStatus> {
        match self.region().ask(&Ask::Status)?.0 {
            Told::Status(status) => status
                .sessions
                .into_iter()
                .find(|session| session.name == self.name())
                .ok_or_else(|| Error::NotFound("the session has ended on this host".into())),
            _ => Err(Error::Unavailable("the arbiter's answer makes no sense".into())),
        }
    }
}

/// What to ask for to open an array.
fn sequence<T: SharedType>(name: &str, len: usize, mode: OpenMode) -> Result<OpenSegment> {
    let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes > 0).ok_or_else(|| {
        Error::TooLarge(format!("an array of {len} elements of {} bytes is not possible", size_of::<T>()))
    })? as u64;
    let ty = TypeDesc {
        name: format!("[{}]", T::LAYOUT),
        size: size_of::<T>() as u64,
        fingerprint: T::LAYOUT.sequence_fingerprint(),
        fields: T::LAYOUT.describe(),
    };
    let room = bytes.saturating_mul(GROWTH).max(LEAST_ROOM);
    Ok(OpenSegment { name: name.to_owned(), len: bytes, ty, mode, room })
}

fn describe(layout: &Layout) -> TypeDesc {
    TypeDesc {
        name: layout.to_string(),
        size: layout.size as u64,
        fingerprint: layout.fingerprint,
        fields: layout.describe(),
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(region) = self.region.take() else { return };
        trap::withdraw(&region);
        if region.lost().is_none() {
            // What was stored is in the log, which outlives us; what was held is given back.
            let _ = region.connection().exchange(&Ask::Leave);
        }
        // SAFETY: handles and guards borrow the session, which ends here, and the trap door has forgotten it.
        unsafe { region.close() };
    }
}
