//! What the binaries do: `dsm-daemon`, `dsm-server`, `dsm-arbiter`, the same under `dsm`, and the embedded default.

use crate::client::Client;
use crate::config::{self, Config, DAEMON, DEFAULT_LISTEN, Daemon};
use crate::node::{self, Node};
use crate::{Error, Result, runtime};
use dsm_core::wire::control::Find;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A role with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The directory, and the servers of the sessions that it starts.
    Daemon {
        /// Where to listen.
        listen: String,
    },
    /// The server of one session, registered with a daemon elsewhere.
    Server {
        /// Name of the session.
        session: String,
        /// Where to listen.
        listen: String,
        /// The daemon.
        daemon: String,
    },
    /// The arbiter of this host.
    Arbiter {
        /// Its directory.
        dir: PathBuf,
        /// The daemon; one is started in this process where none is named, or none answers at a loopback address.
        daemon: Option<String>,
        /// End when unused.
        linger: bool,
        /// The library has started it, and can start another.
        replaceable: bool,
        /// Sessions outlive their last process here.
        keep: bool,
    },
}

/// Usage of the three binaries.
const USAGE: &str = "\
usage: dsm-daemon  [--listen ADDRESS] [--key-file FILE]
       dsm-server  --session NAME --daemon ADDRESS [--listen ADDRESS] [--key-file FILE]
       dsm-arbiter [--runtime-dir DIR] [--daemon ADDRESS] [--key-file FILE] [--linger] [--keep]

Environment: DSM_DAEMON, DSM_RUNTIME_DIR, DSM_KEY_FILE, DSM_POLL_US, DSM_PEER_TIMEOUT_MS, DSM_LINGER_MS";

/// `main` of a named binary: parses the arguments, runs, exits.
pub fn main(binary: &str) -> ! {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        std::process::exit(0);
    }
    if arguments.iter().any(|argument| argument == "--version" || argument == "-V") {
        println!("{binary} {}", env!("CARGO_PKG_VERSION"));
        std::process::exit(0);
    }
    finish(binary, parse(binary, &arguments).and_then(|role| run(&role)))
}

/// Ends the process: 0, or one line on stderr and the error's exit code.
pub fn finish(binary: &str, result: Result<()>) -> ! {
    match result {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("{binary}: {error}");
            std::process::exit(error.exit_code());
        }
    }
}

/// The role that `binary` has with these arguments.
///
/// # Errors
/// [`Error::Usage`].
pub fn parse(binary: &str, arguments: &[String]) -> Result<Role> {
    let mut values = std::collections::HashMap::new();
    let (mut linger, mut keep) = (false, false);
    let mut rest = arguments.iter();
    let known: &[&str] = match binary {
        "dsm-daemon" => &["--listen", "--key-file"],
        "dsm-server" => &["--session", "--listen", "--daemon", "--key-file"],
        _ => &["--runtime-dir", "--daemon", "--key-file"],
    };
    while let Some(argument) = rest.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        match name {
            "--linger" if binary == "dsm-arbiter" => linger = true,
            "--keep" if binary == "dsm-arbiter" => keep = true,
            name if known.contains(&name) => {
                let value = value.or_else(|| rest.next().cloned());
                let value = value.ok_or_else(|| Error::Usage(format!("{name} wants a value\n{USAGE}")))?;
                values.insert(name.to_owned(), value);
            }
            _ => return Err(Error::Usage(format!("{argument:?} is not known\n{USAGE}"))),
        }
    }
    let mut value = |name: &str| values.remove(name);
    if let Some(file) = value("--key-file") {
        // SAFETY: the binaries parse their arguments before they start any thread.
        unsafe { std::env::set_var(config::KEY_FILE, file) };
    }
    let daemon = value("--daemon").or_else(|| std::env::var(DAEMON).ok().filter(|text| !text.is_empty()));
    Ok(match binary {
        "dsm-daemon" => Role::Daemon { listen: value("--listen").unwrap_or_else(|| DEFAULT_LISTEN.to_owned()) },
        "dsm-server" => Role::Server {
            session: value("--session").ok_or_else(|| Error::Usage(format!("--session is missing\n{USAGE}")))?,
            listen: value("--listen").unwrap_or_else(|| "127.0.0.1:0".to_owned()),
            daemon: daemon.ok_or_else(|| Error::Usage(format!("--daemon (or {DAEMON}) is missing\n{USAGE}")))?,
        },
        _ => Role::Arbiter {
            dir: value("--runtime-dir").map_or_else(runtime::default_dir, PathBuf::from),
            daemon,
            linger,
            replaceable: false,
            keep,
        },
    })
}

/// Runs a role until it ends.
///
/// # Errors
/// Why it could not start, or had to end.
pub fn run(role: &Role) -> Result<()> {
    let nowhere = Daemon::Here(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut config = Config::from_env(nowhere)?;
    match role {
        Role::Daemon { listen } => {
            config.daemon = Daemon::Here(config::address(listen)?);
            announce(&config)
        }
        Role::Server { session, listen, daemon } => {
            dsm_core::segment::check_name(session).map_err(|bad| Error::Usage(bad.to_string()))?;
            config.daemon = Daemon::At(daemon.clone());
            config.serve = Some((session.clone(), config::address(listen)?));
            let node = Node::start(&config)?;
            let address = node.address().map(|address| address.to_string()).unwrap_or_default();
            let mut client = Client::daemon(daemon, config.key.as_ref())?;
            client.find(&Find::Register { name: session.clone(), address: address.clone() })?;
            std::thread::spawn(move || {
                // The registration lasts as long as the connection, and the server as long as it is registered.
                while client.ping().is_ok() {
                    std::thread::sleep(Duration::from_secs(1));
                }
                node::stop();
            });
            run_node(node, &address)
        }
        Role::Arbiter { dir, daemon, linger, replaceable, keep } => {
            config.replaceable = *replaceable;
            config.arbiter = Some(dir.clone());
            config.linger = if *linger { Some(config::linger()?) } else { None };
            config.keep = *keep;
            let Some(daemon) = daemon else { return announce(&config) };
            let address = config::address(daemon)?;
            if !address.ip().is_loopback() {
                config.daemon = Daemon::At(daemon.clone());
                return announce(&config);
            }
            config.daemon = Daemon::Here(address);
            match announce(&config) {
                Err(Error::InUse(_)) => {
                    // Somebody listens there: the daemon that was meant, or a stranger, which its greeting tells.
                    Client::daemon(daemon, config.key.as_ref())?;
                    config.daemon = Daemon::At(daemon.clone());
                    announce(&config)
                }
                result => result,
            }
        }
    }
}

/// Starts and runs a node.
fn announce(config: &Config) -> Result<()> {
    let node = Node::start(config)?;
    let address = match &config.daemon {
        Daemon::At(address) => address.clone(),
        Daemon::Here(_) => node.address().map_or_else(String::new, |address| address.to_string()),
    };
    run_node(node, &address)
}

/// Says on stdout that connections are accepted, and at which address; then runs.
fn run_node(node: Node, address: &str) -> Result<()> {
    use std::io::Write;
    catch_signals()?;
    let mut out = std::io::stdout();
    // Whoever started us may have gone: that is no reason not to run.
    let _ = writeln!(out, "ready {address}");
    let _ = out.flush();
    node.run();
    Ok(())
}

extern "C" fn on_stop(_signal: libc::c_int) {
    node::stop();
}

/// SIGTERM and SIGINT end the node in good order; SIGPIPE and SIGHUP must not.
fn catch_signals() -> Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let set = |signal, handler| {
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler stores to an atomic and does nothing else.
        let result = unsafe { sigaction(signal, &action) };
        result.map_err(|error| Error::System { what: "cannot handle signals".into(), error: error.into() })
    };
    set(Signal::SIGTERM, SigHandler::Handler(on_stop))?;
    set(Signal::SIGINT, SigHandler::Handler(on_stop))?;
    set(Signal::SIGPIPE, SigHandler::SigIgn)?;
    set(Signal::SIGHUP, SigHandler::SigIgn)?;
    Ok(())
}

/// A line for whoever looks after this process: on stderr, which the embedded default sends to nowhere unless
/// `DSM_LOG` names a file.
pub fn note(text: &str) {
    use std::io::Write;
    // Nobody may be left to read it: no reason to end.
    let _ = writeln!(std::io::stderr(), "dsm[{}]: {text}", std::process::id());
}
