//! Joining a session, and what can be opened in it.

use crate::barrier::Barrier;
use crate::connection::Connection;
use crate::place::Place;
use crate::region::{Joined, Region};
use crate::semaphore::Semaphore;
use crate::start::{self, Expected};
use crate::typed::{Layout, Shared, SharedType, Slice};
use crate::{Error, Result, raw_hole::RawHole, sync, trap, wait};
use dsm_core::segment::{OpenMode, OpenSegment, SegmentInfo, TypeDesc, check_name};
use dsm_core::wire::control::{Ask, Listing, SessionStatus, SyncKind, Told};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket's name in an arbiter's directory.
const SOCKET: &str = "arbiter.sock";

/// How to join a session: where its arbiter is, and as whom.
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    dir: Option<PathBuf>,
    daemon: Option<String>,
    rank: Option<usize>,
    size: Option<usize>,
    existing: bool,
    /// How many processes are to come, and how long they may take.
    pub(crate) expect: Option<(usize, Duration)>,
}

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
    /// The process that joined: its child of `fork` has a membership of its own, ended with its own copy.
    daemon: String,
}

impl Builder {
    /// Directory of the arbiter: another "virtual host" of this machine. Default: `DSM_RUNTIME_DIR`, else
    /// `dsm` in `XDG_RUNTIME_DIR`, else `/tmp/dsm-UID`.
    #[must_use]
    pub fn runtime_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Address of the daemon, `HOST:PORT`. Default: `DSM_DAEMON`, else whatever the arbiter uses.
    #[must_use]
    pub fn daemon(mut self, address: impl Into<String>) -> Self {
        self.daemon = Some(address.into());
        self
    }

    /// This process's rank among those that work together. Default: `DSM_RANK`, else 0.
    #[must_use]
    pub fn rank(mut self, rank: usize) -> Self {
        self.rank = Some(rank);
        self
    }

    /// How many processes work together. Default: `DSM_SIZE`, else 1.
    #[must_use]
    pub fn size(mut self, size: usize) -> Self {
        self.size = Some(size);
        self
    }

    /// Joins only a session that exists.
    #[must_use]
    pub fn existing(mut self) -> Self {
        self.existing = true;
        self
    }

    /// Joins.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::NotFound`] with [`Builder::existing`], [`Error::Unavailable`] when arbiter, daemon
    /// or server cannot be reached or started, [`Error::Permission`] when they do not let us in.
    pub fn join(self) -> Result<Session> {
        check_name(&self.name).map_err(|bad| Error::BadName(bad.to_string()))?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |given: Option<usize>, name: &str, default: usize| match given {
            Some(number) => Ok(number),
            None => variable(name).map_or(Ok(default), |text| {
                text.parse().map_err(|_| Error::Unavailable(format!("{name}={text:?} is not a number")))
            }),
        };
        let given = |given: Option<usize>, name: &str| given.is_some() || variable(name).is_some();
        let known = (given(self.rank, "DSM_RANK"), given(self.size, "DSM_SIZE"));
        let (rank, size) = (number(self.rank, "DSM_RANK", 0)?, number(self.size, "DSM_SIZE", 1)?);
        let dir = self.dir.unwrap_or_else(default_dir);
        let daemon = self.daemon.or_else(|| variable("DSM_DAEMON"));
        crate::signals::adopt()?;
        let ask = Ask::Join { session: self.name.clone(), daemon: daemon.clone(), existing: self.existing };
        // An arbiter that was about to end may hang up on us: then it is started anew.
        let mut tries = 0;
        let (mut connection, (told, descriptors)) = loop {
            tries += 1;
            let asked = connect(&dir, daemon.as_deref()).and_then(|mut connection| {
                let what = "the arbiter does not answer";
                connection.exchange(&ask).map(|answer| (Some(connection), answer)).map_err(Error::system(what))
            });
            match asked {
                Ok(answered) => break answered,
                Err(Error::System { source, .. }) if tries < 5 && (retryable(&source) || absent(&source)) => {}
                Err(error) => return Err(error),
            }
        };
        let (process, host, daemon) = match told {
            Told::Joined { process, host, daemon } => (process, host, daemon),
            Told::Refused(refusal) => return Err(refusal.into()),
            _ => return Err(Error::Unavailable("the arbiter's answer makes no sense".into())),
        };
        let mut descriptors = descriptors.into_iter();
        let (Some(area), Some(bell), Some(connection)) = (descriptors.next(), descriptors.next(), connection.take())
        else {
            return Err(Error::Unavailable("the arbiter's answer lacks its descriptors".into()));
        };
        let region =
            Region::map(Joined { name: self.name, arbiter: dir.join(SOCKET), connection, process, area, bell })?;
        trap::publish(&region)?;
        let mut session = Session { region: Some(region), host, rank, size, daemon };
        if let Some((processes, patience)) = self.expect {
            let (rank, size) = (known.0.then_some(rank), known.1.then_some(size));
            session.rank = start::together(&session, Expected { processes, patience, rank, size })?;
            session.size = processes;
        }
        Ok(session)
    }
}

fn retryable(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset | ConnectionAborted)
}

fn default_dir() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("DSM_RUNTIME_DIR")
        .or_else(|| variable("XDG_RUNTIME_DIR").map(|dir| dir.join("dsm")))
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/dsm-{}", nix::unistd::getuid())))
}

/// Connects to the arbiter in `dir`, starting it when none is alive.
fn connect(dir: &Path, daemon: Option<&str>) -> Result<Connection> {
    let path = dir.join(SOCKET);
    match Connection::open(&path) {
        Ok(connection) => Ok(connection),
        Err(error) if absent(&error) || retryable(&error) => start(dir, &path, daemon, error),
        Err(error) => Err(unreachable(&path, error)),
    }
}

fn absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

fn unreachable(path: &Path, source: std::io::Error) -> Error {
    Error::System { what: format!("cannot talk to the arbiter at {}", path.display()), source }
}

#[cfg(feature = "embedded")]
fn start(dir: &Path, path: &Path, daemon: Option<&str>, _why: std::io::Error) -> Result<Connection> {
    crate::embedded::keep();
    dsm_daemon::runtime::prepare(dir)?;
    // One process starts it; the others wait here and find it.
    let _starting = dsm_daemon::runtime::lock(dir, dsm_daemon::runtime::STARTING)?;
    match Connection::open(path) {
        Ok(connection) => return Ok(connection),
        Err(error) if absent(&error) || retryable(&error) => {}
        Err(error) => return Err(unreachable(path, error)),
    }
    dsm_daemon::spawn::arbiter(dir, daemon)?;
    Connection::open(path).map_err(|error| unreachable(path, error))
}

#[cfg(not(feature = "embedded"))]
fn start(_dir: &Path, path: &Path, _daemon: Option<&str>, why: std::io::Error) -> Result<Connection> {
    Err(Error::Unavailable(format!("no arbiter answers at {} ({why}): start one with `dsm arbiter`", path.display())))
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
        Builder { name: name.into(), dir: None, daemon: None, rank: None, size: None, existing: false, expect: None }
    }

    /// Stays joined until the program ends, so that handles can go anywhere.
    #[must_use]
    pub fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
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

    /// How many processes were started together; 1 without `dsm run`.
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

    /// Opens `name` as an array of `len` values: attaches to it, or creates it as zeros.
    ///
    /// # Errors
    /// [`Error::TypeDiffers`] when there is something else by that name, or a shorter array; else as
    /// [`Session::open`].
    pub fn array<T: SharedType>(&self, name: &str, len: usize) -> Result<Slice<'_, T>> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes > 0).ok_or_else(|| {
            Error::TooLarge(format!("an array of {len} elements of {} bytes is not possible", size_of::<T>()))
        })?;
        let fields = T::LAYOUT.describe();
        let ty = TypeDesc {
            name: format!("[{}]", T::LAYOUT),
            size: size_of::<T>() as u64,
            fingerprint: T::LAYOUT.sequence_fingerprint(),
            fields,
        };
        let place = self.segment(name, bytes as u64, ty, OpenMode::OpenOrCreate)?;
        // SAFETY: page-aligned, and the segment has at least `bytes` bytes: the arbiter has refused less, and
        // `segment` has checked it.
        Ok(unsafe { Slice::new(place, len) })
    }

    fn value<T: SharedType>(&self, name: &str, mode: OpenMode) -> Result<Shared<'_, T>> {
        let place = self.segment(name, size_of::<T>() as u64, describe(T::LAYOUT), mode)?;
        // SAFETY: page-aligned, and the segment has at least this many bytes (checked in `segment`).
        Ok(unsafe { Shared::new(place) })
    }

    fn segment(&self, name: &str, len: u64, ty: TypeDesc, mode: OpenMode) -> Result<Place<'_>> {
        let region = self.region();
        let open = OpenSegment { name: name.to_owned(), len, ty, mode };
        dsm_core::segment::check_name(name).map_err(|bad| Error::BadName(bad.to_string()))?;
        dsm_core::segment::check_open(&open).map_err(Error::TooLarge)?;
        if let Some(error) = region.lost() {
            return Err(error);
        }
        crate::signals::adopt()?;
        let (info, file) = match region.connection().ask(&Ask::Open(open))? {
            (Told::Opened(info), mut files) if !files.is_empty() => (info, files.remove(0)),
            _ => return Err(Error::Unavailable("the arbiter's answer makes no sense".into())),
        };
        check_info(&info, len)?;
        region.attach(&info, file)?;
        Ok(Place::new(region, info.offset))
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

    fn sync(&self, name: &str, kind: SyncKind) -> Result<u32> {
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

    /// What is in the session.
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn list(&self) -> Result<Listing> {
        match self.region().connection().ask(&Ask::List(self.name().to_owned()))?.0 {
            Told::Listing(listing) => Ok(listing),
            _ => Err(Error::Unavailable("the arbiter's answer makes no sense".into())),
        }
    }

    /// What this host's arbiter has done for the session.
    ///
    /// # Errors
    /// What the session's end causes.
    pub fn status(&self) -> Result<SessionStatus> {
        match self.region().connection().ask(&Ask::Status)?.0 {
            Told::Status(status) => status
                .sessions
                .into_iter()
                .find(|session| session.name == self.name())
                .ok_or_else(|| Error::NotFound("the session has ended on this host".into())),
            _ => Err(Error::Unavailable("the arbiter's answer makes no sense".into())),
        }
    }
}

/// Does the segment that was opened have what we need?
fn check_info(info: &SegmentInfo, len: u64) -> Result<()> {
    if info.len < len {
        return Err(Error::TypeDiffers(format!("segment {:?} has {} bytes, {len} are needed", info.name, info.len)));
    }
    Ok(())
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
