//! The private directory of a run: `run-PID-RANDOM` in the runtime directory, with one directory for each virtual host.
//!
//! Its owner holds a lock on a file in it for as long as it lives, so that the next run can tell what a run that was
//! killed has left behind, whatever process numbers have been reused since.

use crate::failure::{Failure, Result};
use dsm_daemon::runtime;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the directory of a run begins.
const RUN: &str = "run-";
/// How it begins until its owner has locked it.
const NEW: &str = "new-";
/// Held locked by the owner.
const OWNER: &str = "owner.lock";
/// A directory that is not locked after this long never will be.
const STILLBORN: Duration = Duration::from_secs(60);

/// A run's directory, removed when dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The runtime directory, when it was made for this run.
    made: Option<PathBuf>,
    _owner: File,
}

impl Directory {
    /// Makes one, and removes what dead runs have left.
    pub fn make() -> Result<Self> {
        let base = runtime::default_dir();
        let made = (!base.exists()).then(|| base.clone());
        // Whoever ends just now may remove the runtime directory between any two steps of ours.
        let mut tries = 0;
        loop {
            runtime::prepare(&base)?;
            sweep(&base);
            match Self::attempt(&base) {
                Ok((path, owner)) => return Ok(Self { path, made, _owner: owner }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && tries < 10 => tries += 1,
                Err(error) => {
                    return Err(Failure::system(format!("cannot make a directory in {}", base.display()))(error));
                }
            }
        }
    }

    fn attempt(base: &Path) -> std::io::Result<(PathBuf, File)> {
        let mut random = [0u8; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name = format!("{}-{:08x}", std::process::id(), u32::from_ne_bytes(random));
        let (new, path) = (base.join(format!("{NEW}{name}")), base.join(format!("{RUN}{name}")));
        DirBuilder::new().mode(0o700).create(&new)?;
        let owner = OpenOptions::new().create_new(true).write(true).mode(0o600).open(new.join(OWNER))?;
        owner.lock()?;
        // Only now can it be found, and then it is locked.
        fs::rename(&new, &path)?;
        Ok((path, owner))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where virtual host number `host` is.
    pub fn host(&self, host: usize) -> PathBuf {
        self.path.join(format!("h{host}"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        if let Some(made) = &self.made {
            // Only if nothing else is in it by now.
            let _ = fs::remove_dir(made);
        }
    }
}

/// The directories of the virtual hosts of all runs that go on in the runtime directory `base`.
pub fn virtual_hosts(base: &Path) -> Vec<PathBuf> {
    let mut hosts: Vec<PathBuf> =
        entries(base, RUN).into_iter().flat_map(|run| entries(&run, "h")).filter(|host| host.is_dir()).collect();
    hosts.sort();
    hosts
}

fn entries(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let ours = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
    entries.flatten().filter(ours).map(|entry| entry.path()).collect()
}

/// Removes the directories of runs whose owner is dead. Nobody but this user can write to `base`: so it was checked.
fn sweep(base: &Path) {
    for dir in entries(base, RUN) {
        match OpenOptions::new().write(true).open(dir.join(OWNER)) {
            Ok(owner) if owner.try_lock().is_ok() => drop(fs::remove_dir_all(&dir)),
            // The file goes first when a directory is removed, and somebody did not come further than that.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => drop(fs::remove_dir_all(&dir)),
            _ => {}
        }
    }
    for dir in entries(base, NEW) {
        let made = fs::metadata(&dir).and_then(|found| found.modified()).ok();
        if made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > STILLBORN) {
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_have_left_is_swept() {
        let base = tempfile::tempdir().unwrap();
        let (alive, owner) = Directory::attempt(base.path()).unwrap();
        let (dead, gone) = Directory::attempt(base.path()).unwrap();
        fs::create_dir(dead.join("h0")).unwrap();
        fs::create_dir(alive.join("h0")).unwrap();
        drop(gone);
        let fresh = base.path().join("new-1-2");
        fs::create_dir(&fresh).unwrap();
        sweep(base.path());
        assert!(alive.exists() && !dead.exists() && fresh.exists());
        assert_eq!(virtual_hosts(base.path()), [alive.join("h0")]);
        drop(owner);
        sweep(base.path());
        assert!(!alive.exists());
    }
}
