//! Configuration: flag, else `DSM_*` variable, else default.

use crate::auth::Key;
use crate::{Error, Result};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// Where `dsm daemon` listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7419";
/// Address of the daemon.
pub const DAEMON: &str = "DSM_DAEMON";
/// File that holds the cluster's key.
pub const KEY_FILE: &str = "DSM_KEY_FILE";
/// Directory of a host's arbiter.
pub const RUNTIME_DIR: &str = "DSM_RUNTIME_DIR";
/// How long an arbiter that was started on demand outlives its last process, in milliseconds.
pub const LINGER_MS: &str = "DSM_LINGER_MS";
/// How long a peer may be silent before it counts as dead, in milliseconds.
pub const PEER_TIMEOUT_MS: &str = "DSM_PEER_TIMEOUT_MS";
/// How long the event loop polls after its last work before it sleeps, in microseconds.
pub const POLL_US: &str = "DSM_POLL_US";

/// Where the daemon of a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// There: connect when a session is joined.
    At(String),
    /// In this node, listening at this address.
    Here(SocketAddr),
}

impl Daemon {
    /// Is it in another process of this machine, in whose place an arbiter that is started on demand can be the daemon, too?
    pub fn is_near(&self) -> bool {
        matches!(self, Self::At(there) if address(there).is_ok_and(|address| address.ip().is_loopback()))
    }
}

/// What a node consists of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the arbiter, if there is to be one.
    pub arbiter: Option<PathBuf>,
    /// The daemon.
    pub daemon: Daemon,
    /// The cluster's key.
    pub key: Option<Key>,
    /// End when unused for this long.
    pub linger: Option<Duration>,
    /// The library has started the arbiter, and can start another in its place.
    pub replaceable: bool,
    /// Sessions stay joined when their last process here has left, until the node ends.
    pub keep: bool,
    /// How long a peer may be silent.
    pub peer_timeout: Duration,
    /// How long to poll after the last work.
    pub poll: Duration,
    /// Serve this one session, and register it with the daemon, which must be elsewhere.
    pub serve: Option<(String, SocketAddr)>,
}

impl Config {
    /// The defaults, as the environment changes them.
    ///
    /// # Errors
    /// [`Error::Usage`] for a variable that makes no sense.
    pub fn from_env(daemon: Daemon) -> Result<Self> {
        Ok(Self {
            arbiter: None,
            daemon,
            key: key_from_env()?,
            linger: None,
            replaceable: false,
            keep: false,
            peer_timeout: Duration::from_millis(number(PEER_TIMEOUT_MS, 15_000, 100..=86_400_000)?),
            poll: Duration::from_micros(number(POLL_US, 200, 0..=1_000_000)?),
            serve: None,
        })
    }

    /// Refuses to listen where others can reach us while nobody has to show a key.
    ///
    /// # Errors
    /// [`Error::Usage`] that says what to do.
    pub fn check_listen(&self, address: SocketAddr) -> Result<()> {
        if address.ip().is_loopback() || self.key.is_some() {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "listening on {address} needs a key, since others can reach it: put at least 16 random bytes in a file of \
             mode 0600 (`head -c 32 /dev/urandom > key`) and name it with --key-file or {KEY_FILE}, on every host"
        )))
    }
}

/// The linger time of an arbiter started on demand.
///
/// # Errors
/// [`Error::Usage`] for a variable that makes no sense.
pub fn linger() -> Result<Duration> {
    Ok(Duration::from_millis(number(LINGER_MS, 500, 0..=86_400_000)?))
}

/// The key that the environment names, if it names one.
///
/// # Errors
/// [`Error::Usage`] or [`Error::Permission`] when there is something wrong with the file.
pub fn key_from_env() -> Result<Option<Key>> {
    std::env::var_os(KEY_FILE).filter(|path| !path.is_empty()).map(|path| Key::read(path.as_ref())).transpose()
}

/// One address from text.
///
/// # Errors
/// [`Error::Usage`] when it is none or cannot be resolved.
pub fn address(text: &str) -> Result<SocketAddr> {
    let none = |why: String| Error::Usage(format!("{text:?} is not an address like 127.0.0.1:7419: {why}"));
    let mut all = text.to_socket_addrs().map_err(|error| none(error.to_string()))?;
    all.next().ok_or_else(|| none("it has no address".into()))
}

fn number(variable: &str, default: u64, allowed: std::ops::RangeInclusive<u64>) -> Result<u64> {
    let Some(text) = std::env::var_os(variable).filter(|text| !text.is_empty()) else { return Ok(default) };
    let value = text.to_str().and_then(|text| text.parse().ok()).filter(|value| allowed.contains(value));
    value.ok_or_else(|| {
        Error::Usage(format!(
            "{variable}={text:?} makes no sense: a number from {} to {}",
            allowed.start(),
            allowed.end()
        ))
    })
}

impl std::fmt::Display for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(address) => f.write_str(address),
            Self::Here(address) => address.fmt(f),
        }
    }
}
