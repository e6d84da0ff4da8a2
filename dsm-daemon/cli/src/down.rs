//! `dsm down`: ends this host's arbiter, a session, or a daemon.

use crate::failure::{Failure, Result};
use crate::find;
use crate::roles::{DaemonAddress, KeyFile};
use dsm_core::wire::control::Find;
use dsm_daemon::runtime;
use std::time::{Duration, Instant};

/// How long what was told to end may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `dsm down`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End this session on all hosts; without a name, this host's arbiter is ended
    session: Option<String>,
    #[command(flatten)]
    daemon: DaemonAddress,
    #[command(flatten)]
    key: KeyFile,
    /// End the daemon, and the sessions that it serves
    #[arg(long, conflicts_with = "session")]
    all: bool,
}

/// Runs `dsm down`.
pub fn run(args: &Args) -> Result<()> {
    args.key.publish();
    if args.session.is_none() && !args.all {
        if args.daemon.address.is_some() {
            return Err(Failure::usage("what shall end there? Name a session, or say --all for the daemon itself"));
        }
        return arbiter();
    }
    let here = find::arbiter(&runtime::default_dir())?.map(|arbiter| arbiter.status.daemon);
    let Some(daemon) = args.daemon.get().or(here) else {
        if let Some(session) = &args.session {
            return Err(Failure::new(format!("there is no session {session:?}: {}", find::nothing())));
        }
        eprintln!("dsm down: {}", find::nothing());
        return Ok(());
    };
    let mut client = find::daemon(&daemon)?;
    client.find(&Find::Down(args.session.clone()))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = find::sessions(&mut client, &daemon);
        let over = match (&args.session, left) {
            (Some(session), Ok(left)) => !left.iter().any(|(name, _)| name == session),
            (None, Ok(_)) => false,
            (Some(_), Err(failure)) => return Err(failure),
            (None, Err(_)) => true,
        };
        if over {
            return Ok(());
        }
        if Instant::now() > deadline {
            let what = args.session.as_deref().map_or("the daemon".to_owned(), |name| format!("session {name:?}"));
            return Err(Failure::new(format!("{what} has been told to end, but has not after {PATIENCE:?}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn arbiter() -> Result<()> {
    match find::arbiter(&runtime::default_dir())? {
        Some(arbiter) => Ok(arbiter.local.down()?),
        None => {
            eprintln!("dsm down: no arbiter in {}: there is nothing to end", runtime::default_dir().display());
            Ok(())
        }
    }
}
