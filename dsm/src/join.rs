//! Joining a session: finding, or starting, its arbiter.

use crate::connection::Connection;
use crate::region::{Joined, Region};
use crate::session::Session;
use crate::start::{self, Expected, Meeting};
use crate::{Error, Result, trap};
use dsm_core::limits::SOCKET_PATH;
use dsm_core::segment::check_name;
use dsm_core::wire::control::{Ask, Told};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket's name in an arbiter's directory.
const SOCKET: &str = "arbiter.sock";

/// How to join a session: where its arbiter is, and as whom.
///
/// ```
/// # fn main() -> dsm::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
/// use dsm::Session;
///
/// // Two "virtual hosts" of one machine, each with an arbiter of its own.
/// let on = |name: &str| Session::builder("game").runtime_dir(dir.path().join(name)).daemon(&address).size(2);
/// let (one, other) = (on("one").rank(0).join()?, on("other").rank(1).join()?);
/// one.open::<u64>("count")?.set(7);
/// other.open::<u64>("count")?.wait_until(|count| count == 7)?;
/// assert_eq!((one.rank(), other.rank()), (0, 1));
/// assert_ne!(one.host(), other.host());
/// # Ok(())
/// # }
/// ```
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

impl Builder {
    pub(crate) fn new(name: String) -> Self {
        Self { name, dir: None, daemon: None, rank: None, size: None, existing: false, expect: None }
    }

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
        let (session, meeting) = self.enter(|| false)?;
        if let Some(meeting) = meeting {
            meeting.wait(&session)?;
        }
        session.announce()?;
        Ok(session)
    }

    /// Joins, and takes a rank where others are expected, who have still to be met. Ends early when the caller has given
    /// up.
    pub(crate) fn enter(self, given_up: impl Fn() -> bool) -> Result<(Session, Option<Meeting>)> {
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
        if self.expect.is_none() && rank >= size {
            return Err(Error::Mismatch(format!(
                "rank {rank} of {size} processes: ranks begin at 0 and are less than the size (DSM_RANK and DSM_SIZE, or \
                 `Builder::rank` and `size`)"
            )));
        }
        // Absolute: the arbiter that is started there, and a child of ours, may have another working directory.
        let dir = std::path::absolute(self.dir.unwrap_or_else(default_dir))
            .map_err(Error::system("the runtime directory has no name"))?;
        if dir.join(SOCKET).as_os_str().len() > SOCKET_PATH {
            return Err(Error::Unavailable(format!(
                "the path {} is too long for a socket ({SOCKET_PATH} bytes at most): name a shorter DSM_RUNTIME_DIR",
                dir.join(SOCKET).display()
            )));
        }
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
        let mut session = Session::joined(region, host, rank, size, daemon);
        if let Some((processes, patience)) = self.expect {
            let (rank, size) = (known.0.then_some(rank), known.1.then_some(size));
            let expected = Expected { processes, patience, rank, size };
            let (rank, meeting) = start::take_a_rank(&session, expected, given_up)?;
            session.place(rank, processes);
            return Ok((session, Some(meeting)));
        }
        Ok((session, None))
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
        Err(error) if absent(&error) || retryable(&error) => start_arbiter(dir, &path, daemon, error),
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
fn start_arbiter(dir: &Path, path: &Path, daemon: Option<&str>, _why: std::io::Error) -> Result<Connection> {
    use dsm_daemon::runtime;
    crate::embedded::keep();
    runtime::prepare(dir)?;
    // One process starts it; the others wait here and find it.
    let _starting = runtime::lock(dir, runtime::STARTING, runtime::PATIENCE)?;
    match Connection::open(path) {
        Ok(connection) => return Ok(connection),
        Err(error) if absent(&error) || retryable(&error) => {}
        Err(error) => return Err(unreachable(path, error)),
    }
    dsm_daemon::spawn::arbiter(dir, daemon)?;
    Connection::open(path).map_err(|error| unreachable(path, error))
}

#[cfg(not(feature = "embedded"))]
fn start_arbiter(_dir: &Path, path: &Path, _daemon: Option<&str>, why: std::io::Error) -> Result<Connection> {
    Err(Error::Unavailable(format!("no arbiter answers at {} ({why}): start one with `dsm arbiter`", path.display())))
}
