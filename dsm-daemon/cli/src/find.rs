//! What runs: this host's arbiters, and their daemons.

use crate::directory::virtual_hosts;
use crate::failure::{Failure, Result};
use dsm_core::wire::control::{Find, Found, Status};
use dsm_daemon::client::Client;
use dsm_daemon::local::Local;
use dsm_daemon::{config, runtime};
use std::path::{Path, PathBuf};

/// An arbiter that answers.
#[derive(Debug)]
pub struct Arbiter {
    /// Its directory.
    pub dir: PathBuf,
    /// The connection.
    pub local: Local,
    /// What it does.
    pub status: Status,
}

/// The arbiter in `dir`, if one is alive.
pub fn arbiter(dir: &Path) -> Result<Option<Arbiter>> {
    if !dir.exists() {
        return Ok(None);
    }
    let Some(mut local) = Local::connect(dir)? else { return Ok(None) };
    let status = local.status()?;
    Ok(Some(Arbiter { dir: dir.to_owned(), local, status }))
}

/// This host's arbiter, and those of the virtual hosts of runs that go on.
pub fn arbiters() -> Result<Vec<Arbiter>> {
    let base = runtime::default_dir();
    let mut found: Vec<Arbiter> = arbiter(&base)?.into_iter().collect();
    // A run may end while we look at it.
    found.extend(virtual_hosts(&base).iter().filter_map(|dir| arbiter(dir).ok().flatten()));
    Ok(found)
}

/// A connection to a daemon.
pub fn daemon(address: &str) -> Result<Client> {
    Ok(Client::daemon(address, config::key_from_env()?.as_ref())?)
}

/// The sessions of a daemon, by name, with the address of their server; empty for the daemon's own.
pub fn sessions(client: &mut Client, address: &str) -> Result<Vec<(String, String)>> {
    match client.find(&Find::List)? {
        Found::Sessions(sessions) => Ok(sessions),
        _ => Err(Failure { code: Failure::UNAVAILABLE, text: format!("the daemon at {address} makes no sense") }),
    }
}

/// Said when nothing runs.
pub fn nothing() -> String {
    format!(
        "nothing runs here: no arbiter in {}; name a daemon elsewhere with --daemon or {}",
        runtime::default_dir().display(),
        config::DAEMON
    )
}
