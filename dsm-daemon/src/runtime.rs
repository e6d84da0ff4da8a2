//! The runtime directory: where the arbiter of a host (and user) can be found.

use crate::config::RUNTIME_DIR;
use crate::{Error, Result};
use dsm_core::limits::SOCKET_PATH;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Socket on which an arbiter listens for processes.
pub const SOCKET: &str = "arbiter.sock";
/// Held locked for life by the arbiter.
pub const ALIVE: &str = "arbiter.lock";
/// Held locked while somebody starts an arbiter.
pub const STARTING: &str = "start.lock";

/// Set in the mode of a directory that we have made, and shall remove; otherwise without effect in one that is ours alone.
const OURS: u32 = 0o1000;

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
    let made = DirBuilder::new().mode(0o700 | OURS).recursive(true).create(dir);
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
    if socket.as_os_str().len() > SOCKET_PATH {
        return Err(Error::Usage(format!(
            "the path {} is too long for a socket ({SOCKET_PATH} bytes at most): name a shorter {RUNTIME_DIR}",
            socket.display()
        )));
    }
    Ok(())
}

/// How long [`lock`] waits. Who has the lock starts an arbiter, which takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a lock that somebody has: the system has no timed way to wait for it.
const NAP: Duration = Duration::from_millis(1);

/// A lock on a file, given back when dropped.
#[derive(Debug)]
pub struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // Closing is not enough: a child that was forked meanwhile has the file open, too, and with it the lock.
        let _ = self.0.unlock();
    }
}

/// Opens a lock file and takes its lock; `None` when somebody else has it.
///
/// # Errors
/// What the system says.
pub fn try_lock(dir: &Path, name: &str) -> Result<Option<Held>> {
    loop {
        let file = open(dir, name)?;
        match file.try_lock() {
            Ok(()) if current(dir, name, &file) => return Ok(Some(Held(file))),
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(Error::System { what: format!("cannot lock {name}"), error });
            }
        }
    }
}

/// As [`try_lock`], but waits, up to `patience`.
///
/// # Errors
/// What the system says; [`Error::Unavailable`] when somebody else has it all the time.
pub fn lock(dir: &Path, name: &str, patience: Duration) -> Result<Held> {
    let start = Instant::now();
    loop {
        prepare(dir)?;
        match try_lock(dir, name) {
            // An arbiter that has just ended took the directory with it.
            Err(Error::System { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Ok(Some(held)) => return Ok(held),
            Err(error) => return Err(error),
            Ok(None) => {}
        }
        if start.elapsed() > patience {
            return Err(Error::Unavailable(format!(
                "somebody has been starting an arbiter for more than {patience:?}, and is not done: `fuser {}` names \
                 the process; end it, or name another {RUNTIME_DIR}",
                dir.join(name).display()
            )));
        }
        std::thread::sleep(NAP);
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

/// Removes what an arbiter leaves behind, and the directory if we have made it and nothing else is in it. The caller still holds
/// [`ALIVE`]'s lock, so no successor has begun; the name goes last.
pub fn clean(dir: &Path) {
    let _ = std::fs::remove_file(dir.join(SOCKET));
    if let Ok(Some(_starting)) = try_lock(dir, STARTING) {
        let _ = std::fs::remove_file(dir.join(STARTING));
    }
    let _ = std::fs::remove_file(dir.join(ALIVE));
    if std::fs::symlink_metadata(dir).is_ok_and(|found| found.mode() & OURS != 0) {
        let _ = std::fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child of a `fork` in the middle has the file open for as long as it lives; a second descriptor of the same open
    /// file stands for it.
    #[test]
    fn a_child_does_not_keep_what_its_parent_has_given_back() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("h");
        let held = lock(&dir, STARTING, PATIENCE).unwrap();
        let child = held.0.try_clone().unwrap();
        assert!(try_lock(&dir, STARTING).unwrap().is_none());
        drop(held);
        assert!(try_lock(&dir, STARTING).unwrap().is_some());
        drop(child);
    }

    #[test]
    fn a_directory_that_somebody_else_has_made_stays() {
        let base = tempfile::tempdir().unwrap();
        let [theirs, ours] = ["theirs", "ours"].map(|name| base.path().join(name));
        DirBuilder::new().mode(0o700).create(&theirs).unwrap();
        for dir in [&theirs, &ours] {
            drop(lock(dir, STARTING, PATIENCE).unwrap());
            clean(dir);
        }
        assert!(theirs.exists() && theirs.read_dir().unwrap().next().is_none());
        assert!(!ours.exists());
    }

    #[test]
    fn whoever_waits_for_a_lock_is_told_that_it_does_not_come() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("h");
        let held = lock(&dir, STARTING, PATIENCE).unwrap();
        let error = lock(&dir, STARTING, Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().contains("fuser"), "{error}");
        let wait = std::thread::spawn(move || lock(&dir, STARTING, PATIENCE).map(drop));
        drop(held);
        wait.join().unwrap().unwrap();
    }

    #[test]
    fn a_lock_whose_directory_was_removed_meanwhile_is_taken_anew() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("gone");
        let held = lock(&dir, STARTING, PATIENCE).unwrap();
        clean(&dir);
        assert!(dir.exists(), "somebody starts there");
        let wait = std::thread::spawn({
            let dir = dir.clone();
            move || lock(&dir, STARTING, PATIENCE).map(drop)
        });
        std::fs::remove_dir_all(&dir).unwrap();
        drop(held);
        wait.join().unwrap().unwrap();
        clean(&dir);
        assert!(!dir.exists());
    }
}
