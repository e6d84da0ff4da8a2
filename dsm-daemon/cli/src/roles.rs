//! `dsm daemon`, `dsm server`, `dsm arbiter`: the three named binaries under one name.

use crate::failure::{Failure, Result};
use dsm_daemon::role::{self, Role};
use dsm_daemon::{config, runtime};
use std::path::PathBuf;

/// Where the daemon is.
#[derive(Clone, Debug, clap::Args)]
pub struct DaemonAddress {
    /// Address of the daemon, HOST:PORT [env: DSM_DAEMON]
    #[arg(long = "daemon", value_name = "ADDRESS")]
    pub address: Option<String>,
}

/// The cluster's key.
#[derive(Clone, Debug, clap::Args)]
pub struct KeyFile {
    /// File that holds the cluster's key, readable by its owner alone [env: DSM_KEY_FILE]
    #[arg(long = "key-file", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl DaemonAddress {
    /// The flag, else the variable.
    pub fn get(&self) -> Option<String> {
        self.address.clone().or_else(|| std::env::var(config::DAEMON).ok()).filter(|address| !address.is_empty())
    }
}

impl KeyFile {
    /// Makes the flag known to everything in this process, and to what it starts.
    pub fn publish(&self) {
        if let Some(path) = &self.path {
            // SAFETY: commands call this first thing, before they start any thread.
            unsafe { std::env::set_var(config::KEY_FILE, path) };
        }
    }
}

/// Arguments of `dsm daemon`.
#[derive(Debug, clap::Args)]
pub struct DaemonArgs {
    /// Where to listen; anywhere but on loopback needs a key
    #[arg(long, value_name = "ADDRESS", default_value = config::DEFAULT_LISTEN)]
    listen: String,
    #[command(flatten)]
    key: KeyFile,
}

/// Arguments of `dsm server`.
#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    /// Name of the session
    #[arg(long, value_name = "NAME")]
    session: String,
    /// Where to listen; anywhere but on loopback needs a key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: String,
    #[command(flatten)]
    daemon: DaemonAddress,
    #[command(flatten)]
    key: KeyFile,
}

/// Arguments of `dsm arbiter`.
#[derive(Debug, clap::Args)]
pub struct ArbiterArgs {
    /// Directory in which programs find it [env: DSM_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    #[command(flatten)]
    daemon: DaemonAddress,
    #[command(flatten)]
    key: KeyFile,
    /// End when nobody has used it for a moment (DSM_LINGER_MS)
    #[arg(long)]
    linger: bool,
    /// Stay joined to sessions that no process of this host uses any more
    #[arg(long)]
    keep: bool,
}

impl DaemonArgs {
    /// Runs the daemon until it ends.
    pub fn run(self) -> Result<()> {
        self.key.publish();
        Ok(role::run(&Role::Daemon { listen: self.listen })?)
    }
}

impl ServerArgs {
    /// Runs the server until it ends.
    pub fn run(self) -> Result<()> {
        self.key.publish();
        let Some(daemon) = self.daemon.get() else {
            return Err(Failure::usage("the daemon to register with is missing: name it with --daemon or DSM_DAEMON"));
        };
        Ok(role::run(&Role::Server { session: self.session, listen: self.listen, daemon })?)
    }
}

impl ArbiterArgs {
    /// Runs the arbiter until it ends.
    pub fn run(self) -> Result<()> {
        self.key.publish();
        let daemon = self.daemon.get();
        let dir = self.runtime_dir.unwrap_or_else(runtime::default_dir);
        Ok(role::run(&Role::Arbiter { dir, daemon, linger: self.linger, replaceable: false, keep: self.keep })?)
    }
}
