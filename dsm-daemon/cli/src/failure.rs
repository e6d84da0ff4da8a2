//! How a command ends when it does not end well.

use std::io::ErrorKind;

/// An exit status, and one line that says what failed and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Exit status.
    pub code: i32,
    /// One line; empty when there is nobody left to read it.
    pub text: String,
}

/// Result of a command.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Arguments or environment make no sense.
    pub const USAGE: i32 = 2;
    /// Something that is needed is not there.
    pub const UNAVAILABLE: i32 = 69;
    /// Not allowed.
    pub const PERMISSION: i32 = 77;

    /// It did not work.
    pub fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// It was not asked in a way that makes sense.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: Self::USAGE, text: text.into() }
    }

    /// The system refused.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self { code: code(&error), text: format!("{what}: {error}") }
    }

    /// As [`Failure::system`], from an error number.
    pub fn errno(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let system = Self::system(what);
        move |errno| system(errno.into())
    }
}

fn code(error: &std::io::Error) -> i32 {
    if error.kind() == ErrorKind::PermissionDenied { Failure::PERMISSION } else { 1 }
}

impl From<dsm_daemon::Error> for Failure {
    fn from(error: dsm_daemon::Error) -> Self {
        Self { code: error.exit_code(), text: error.to_string() }
    }
}

impl From<dsm::Error> for Failure {
    fn from(error: dsm::Error) -> Self {
        let code = match &error {
            dsm::Error::Unavailable(_) => Self::UNAVAILABLE,
            dsm::Error::Permission(_) => Self::PERMISSION,
            dsm::Error::System { source, .. } => code(source),
            _ => 1,
        };
        Self { code, text: error.to_string() }
    }
}
