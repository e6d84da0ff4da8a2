//! What can go wrong, as a type.

use dsm_core::control::Ended;
use dsm_core::wire::control::{Reason, Refusal};

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. The texts say what was asked, what was found, and what to do.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that cannot be one.
    #[error("{0}")]
    BadName(String),
    /// There is nothing by that name.
    #[error("{0}")]
    NotFound(String),
    /// There is already something by that name.
    #[error("{0}")]
    Exists(String),
    /// What exists by that name holds another type; the text names the first field that differs.
    #[error("{0}")]
    TypeDiffers(String),
    /// A limit would be exceeded.
    #[error("{0}")]
    TooLarge(String),
    /// A machine does not have the memory.
    #[error("{0}")]
    NoMemory(String),
    /// Arbiter, daemon or server are not there, or cannot be reached.
    #[error("{0}")]
    Unavailable(String),
    /// Not allowed: another user, or a key that is missing or wrong.
    #[error("{0}")]
    Permission(String),
    /// The session has ended on this host.
    #[error("session {session:?} has ended on this host: {why}; join again to begin anew")]
    SessionEnded {
        /// Name of the session.
        session: String,
        /// Why.
        why: Ended,
    },
    /// This host's arbiter is gone, and with it this process's part in the session.
    #[error("the arbiter of session {session:?} is gone: join again to start from what the other hosts have")]
    ArbiterGone {
        /// Name of the session.
        session: String,
    },
    /// The time that the caller allowed is over.
    #[error("timed out after {0:?}: try again, allow more, or see with `dsm ls` who is waited for")]
    TimedOut(std::time::Duration),
    /// A party of the barrier has left or died, so it can never fill up.
    #[error("barrier {0:?} is broken: a party has left or died; wait again when another has taken its place")]
    BarrierBroken(String),
    /// A rank of the team has left or died, so its collectives can never be completed.
    #[error("team {0:?} is broken: a rank has left or died; those who are left can form another team")]
    TeamBroken(String),
    /// The ranks of a team have called different collectives, or the same with different lengths, types or roots; or one
    /// of them has given up its call half way.
    #[error("{0}")]
    CollectiveMismatch(String),
    /// Processes that work together do not agree: on how many they are. The text says who did what.
    #[error("{0}")]
    Mismatch(String),
    /// The last owner died with units of the semaphore, or with the lock; what it protects may be half done.
    #[error("the last owner of {0:?} died or panicked while it held it: look at what it protects, then `recover`")]
    OwnerDied(String),
    /// Another hole of this process covers some of the same bytes.
    #[error("bytes {start:#x}..{end:#x} of the session lie in another hole of this process: fill that one first")]
    HolesOverlap {
        /// First offset asked for.
        start: u64,
        /// First offset after.
        end: u64,
    },
    /// Another process has stored bytes that make no value of the type.
    #[error(transparent)]
    InvalidValue(#[from] crate::typed::InvalidValue),
    /// Another process has stored what is no text.
    #[error(transparent)]
    InvalidText(#[from] crate::typed::InvalidText),
    /// A text or a list has no room for so much.
    #[error(transparent)]
    Capacity(#[from] crate::typed::CapacityError),
    /// A pointer that leads to no value of its type, or that cannot be stored.
    #[error(transparent)]
    BadPointer(#[from] crate::typed::BadPointer),
    /// The system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// As `Display`: what a `main` that returns an error shows to people.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Error {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.text;
        match refusal.reason {
            Reason::BadName => Self::BadName(text),
            Reason::NotFound => Self::NotFound(text),
            Reason::Exists => Self::Exists(text),
            Reason::TypeDiffers => Self::TypeDiffers(text),
            Reason::TooLarge => Self::TooLarge(text),
            Reason::NoMemory => Self::NoMemory(text),
            Reason::Permission => Self::Permission(text),
            Reason::Unavailable | Reason::Malformed => Self::Unavailable(text),
        }
    }
}

#[cfg(feature = "embedded")]
impl From<dsm_daemon::Error> for Error {
    fn from(error: dsm_daemon::Error) -> Self {
        match error {
            dsm_daemon::Error::Permission(text) => Self::Permission(text),
            dsm_daemon::Error::Refused(refusal) => refusal.into(),
            dsm_daemon::Error::System { what, error } => Self::System { what, source: error },
            error => Self::Unavailable(error.to_string()),
        }
    }
}
