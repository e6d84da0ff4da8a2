//! The trio behind dsm, over sockets: the directory daemon, the session server and the host's arbiter.
//!
//! All three are parts of one [`node::Node`]: a single-threaded event loop around the state machines of `dsm-core`.
//! Which parts a node has is configuration, so that the embedded default can run all of them in one process, where an
//! arbiter beside its server talks to it through memory.

pub mod arbiter;
pub mod auth;
pub mod client;
pub mod config;
pub mod directory;
pub mod link;
pub mod local;
pub mod node;
pub mod pace;
pub mod role;
pub mod runtime;
pub mod server;
pub mod spawn;

/// What can go wrong when a role starts or runs; one line for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Arguments or environment.
    #[error("{0}")]
    Usage(String),
    /// Somebody else's fault: not there, or not reachable.
    #[error("{0}")]
    Unavailable(String),
    /// Nothing listens at the daemon's address.
    #[error("{0}")]
    NobodyThere(String),
    /// Another program has the address.
    #[error("{0} is in use by another program: choose another address, or end what listens there")]
    InUse(std::net::SocketAddr),
    /// Not allowed.
    #[error("{0}")]
    Permission(String),
    /// The system refused.
    #[error("{what}: {}", said(.error))]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// A request was refused.
    #[error("{}", .0.text)]
    Refused(dsm_core::wire::control::Refusal),
}

/// What the system says, to people: a socket that has nothing for as long as we wait is not "temporarily unavailable".
fn said(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            format!("it does not answer (within {:?}): is it stopped, or another program?", auth::PATIENCE)
        }
        _ => error.to_string(),
    }
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Exit status for a command that ends with this error (sysexits).
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Usage(_) => 2,
            Self::Unavailable(_) | Self::NobodyThere(_) | Self::InUse(_) => 69,
            Self::Permission(_) => 77,
            Self::System { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => 77,
            Self::System { .. } | Self::Refused(_) => 1,
        }
    }

    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::System { what, error }
    }
}
