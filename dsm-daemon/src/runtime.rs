//! The runtime directory: where the arbiter of a host (and user) can be found.

use crate::config::RUNTIME_DIR;
use crate::{Error, Result};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Socket on which an arbiter listens for processes.
pub const SOCKET: &str = "arbiter.sock";
/// Held locked for life by the arbiter.
pub const ALIVE: &str = "arbiter.lock";
/// Held locked while somebody starts an arbiter.
pub const STARTING: &str = "start.lock";

/// The directory: `DSM_RUNTIME_DIR`, else `dsm` in `XDG_RUNTIME_DIR`, else `/tmp/dsm-UID`.
pub fn default_dir() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable(RUNTIME_DIR)
        .or_else(|| variable("XDG_RUNTIME_DIR").map(|dir| dir.join("dsm")))
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/dsm-{}", nix::unistd::getuid())))
}

/// Makes the directory, or checks that the one that exists is ours alone.
///
/// # Errors
/// [`Error::Permission`] when others can get in.
pub fn prepare(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(dir);
    made.map_err(Error::system(format!("cannot make the runtime directory {}", dir.display())))?;
    let found = std::fs::symlink_metadata(dir).map_err(Error::system(format!("cannot look at {}", dir.display())))?;
    if !found.is_dir() || found.uid() != nix::unistd::getuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(Error::Permission(format!(
            "the runtime directory {} must be a directory of yours with mode 0700 (it is of user {}, mode {:o}): \
             correct it, or name another with {RUNTIME_DIR}",
            dir.display(),
            found.uid(),
            found.mode() & 0o7777
        )));
    }
    let socket = dir.join(SOCKET);
    if socket.as_os_str().len() > 107 {
        return Err(Error::Usage(format!(
            "the path {} is too long for a socket (107 bytes at most): name a shorter {RUNTIME_DIR}",
            socket.display()
        )));
    }
    Ok(())
}

/// Opens a lock file and takes its lock; `None` when somebody else has it.
///
/// # Errors
/// What the system says.
pub fn try_lock(dir: &Path, name: &str) -> Result<Option<File>> {
    loop {
        let file = open(dir, name)?;
        match file.try_lock() {
            Ok(()) if current(dir, name, &file) => return Ok(Some(file)),
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(Error::System { what: format!("cannot lock {name}"), error });
            }
        }
    }
}

/// As [`try_lock`], but waits.
///
/// # Errors
/// What the system says.
pub fn lock(dir: &Path, name: &str) -> Result<File> {
    loop {
        prepare(dir)?;
        let file = match open(dir, name) {
            // An arbiter that has just ended took the directory with it.
            Err(Error::System { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => continue,
            result => result?,
        };
        file.lock().map_err(Error::system(format!("cannot lock {name}")))?;
        if current(dir, name, &file) {
            return Ok(file);
        }
    }
}

/// Is this still the file of that name? Its last owner may have removed it while we waited.
fn current(dir: &Path, name: &str, file: &File) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), std::fs::metadata(dir.join(name))) else { return false };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

fn open(dir: &Path, name: &str) -> Result<File> {
    let path = dir.join(name);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    file.map_err(Error::system(format!("cannot open {}", path.display())))
}

/// Removes what an arbiter leaves behind, and the directory if nothing else is in it. The caller still holds
/// [`ALIVE`]'s lock, so no successor has begun; the name goes last.
pub fn clean(dir: &Path) {
    let _ = std::fs::remove_file(dir.join(SOCKET));
    if let Ok(Some(_starting)) = try_lock(dir, STARTING) {
        let _ = std::fs::remove_file(dir.join(STARTING));
    }
    let _ = std::fs::remove_file(dir.join(ALIVE));
    let _ = std::fs::remove_dir(dir);
}
