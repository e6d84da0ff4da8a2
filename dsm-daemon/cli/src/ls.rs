//! `dsm ls`: sessions, what is in them, and what this host's arbiters do for them.

use crate::failure::{Failure, Result};
use crate::find::{self, Arbiter};
use crate::roles::{DaemonAddress, KeyFile};
use dsm_core::wire::control::{BarrierListing, Listing, SegmentListing, SemaphoreListing, SessionStatus};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;

/// Arguments of `dsm ls`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this session
    session: Option<String>,
    #[command(flatten)]
    daemon: DaemonAddress,
    #[command(flatten)]
    key: KeyFile,
    /// An array of sessions, for scripts
    #[arg(long)]
    json: bool,
}

/// One session of one daemon.
struct Session {
    name: String,
    daemon: String,
    /// Where its server is.
    server: String,
    /// What is in it, if an arbiter of this host has joined it.
    listing: Option<Listing>,
    /// What this host's arbiters do for it: directory, process number, status.
    arbiters: Vec<(String, u32, SessionStatus)>,
}

/// Runs `dsm ls`.
pub fn run(args: &Args) -> Result<()> {
    args.key.publish();
    let mut arbiters = find::arbiters()?;
    let named = args.daemon.get();
    let mut daemons: BTreeSet<String> = match &named {
        Some(daemon) => [daemon.clone()].into(),
        None => arbiters.iter().map(|arbiter| arbiter.status.daemon.clone()).collect(),
    };
    let mut sessions = Vec::new();
    let mut failed = None;
    for daemon in daemons.clone() {
        match look(&daemon, &mut arbiters, args.session.as_deref()) {
            Ok(found) => sessions.extend(found),
            Err(failure) if named.is_some() => return Err(failure),
            Err(failure) => {
                // A run that ends while we look takes its daemon with it, which is nobody's fault.
                arbiters.retain_mut(|arbiter| arbiter.status.daemon != daemon || arbiter.local.status().is_ok());
                daemons.remove(&daemon);
                failed = arbiters.iter().any(|arbiter| arbiter.status.daemon == daemon).then_some(failure).or(failed);
            }
        }
    }
    if daemons.is_empty() && failed.is_none() {
        eprintln!("dsm ls: {}", find::nothing());
    }
    if let (Some(name), true) = (&args.session, sessions.is_empty() && !daemons.is_empty()) {
        let text = format!("there is no session {name:?}: `dsm ls` shows those that there are");
        return Err(Failure::new(text));
    }
    let text = if args.json {
        let all: Vec<Value> = sessions.iter().map(to_json).collect();
        format!("{:#}\n", Value::Array(all))
    } else {
        let idle = arbiters.iter().filter(|arbiter| args.session.is_none() && arbiter.status.sessions.is_empty());
        sessions.iter().map(describe).chain(idle.map(describe_idle)).collect()
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::system("cannot write the list"))?;
    if sessions.is_empty() && !daemons.is_empty() {
        let daemons: Vec<String> = daemons.into_iter().collect();
        eprintln!("dsm ls: no sessions at {}", daemons.join(", "));
    }
    failed.map_or(Ok(()), Err)
}

/// The sessions of one daemon.
fn look(daemon: &str, arbiters: &mut [Arbiter], only: Option<&str>) -> Result<Vec<Session>> {
    let there = find::sessions(&mut find::daemon(daemon)?, daemon)?;
    let mut sessions = Vec::new();
    for (name, server) in there.into_iter().filter(|(name, _)| only.is_none_or(|only| only == name)) {
        let mut session = Session {
            server: if server.is_empty() { daemon.to_owned() } else { server },
            daemon: daemon.to_owned(),
            name,
            listing: None,
            arbiters: Vec::new(),
        };
        for arbiter in arbiters.iter_mut().filter(|arbiter| same(&arbiter.status.daemon, daemon)) {
            let Some(status) = arbiter.status.sessions.iter().find(|status| status.name == session.name) else {
                continue;
            };
            session.arbiters.push((arbiter.dir.display().to_string(), arbiter.status.pid, status.clone()));
            if session.listing.is_none() {
                // It may end while we look: then it is shown without.
                session.listing = arbiter.local.list(&session.name).ok();
            }
        }
        sessions.push(session);
    }
    Ok(sessions)
}

/// Do two texts name the same daemon?
fn same(one: &str, other: &str) -> bool {
    let address = |text| dsm_daemon::config::address(text).ok();
    one == other || (address(one).is_some() && address(one) == address(other))
}

fn to_json(session: &Session) -> Value {
    let arbiters: Vec<Value> = session
        .arbiters
        .iter()
        .map(|(dir, pid, status)| {
            json!({
                "dir": dir, "pid": pid, "host": status.host, "processes": status.processes,
                "direct": status.direct, "trapped": status.trapped, "bulk": status.bulk, "applied": status.applied,
                "frames": status.frames, "bytes_in": status.bytes_in, "bytes_out": status.bytes_out,
            })
        })
        .collect();
    let mut value = json!({
        "session": session.name, "daemon": session.daemon, "server": session.server,
        "ordered": null, "hosts": null, "segments": null, "semaphores": null, "barriers": null,
        "arbiters": arbiters,
    });
    if let Some(listing) = &session.listing {
        let segment = |of: &SegmentListing| {
            json!({
                "name": of.name, "bytes": of.bytes, "type": of.ty, "hosts": of.hosts, "processes_here": of.processes,
            })
        };
        let semaphore = |of: &SemaphoreListing| json!({"name": of.name, "value": of.units, "waiting": of.waiting});
        let barrier = |of: &BarrierListing| json!({"name": of.name, "parties": of.parties, "arrived": of.arrived});
        value["ordered"] = listing.ordered.into();
        value["hosts"] = listing.hosts.clone().into();
        value["segments"] = listing.segments.iter().map(segment).collect();
        value["semaphores"] = listing.semaphores.iter().map(semaphore).collect();
        value["barriers"] = listing.barriers.iter().map(barrier).collect();
    }
    value
}

fn describe(session: &Session) -> String {
    use std::fmt::Write;
    let mut text = format!("session {}   server {}", session.name, session.server);
    match &session.listing {
        None => text.push_str("\n  not joined on this host: run this there, or join it, to see what is in it\n"),
        Some(listing) => {
            let hosts: Vec<String> = listing.hosts.iter().map(u16::to_string).collect();
            let _ = writeln!(text, "   hosts {}   {} operations ordered", hosts.join(", "), count(listing.ordered));
            for SegmentListing { name, bytes: size, ty, hosts, .. } in &listing.segments {
                let hosts = if *hosts == 1 { "1 host".to_owned() } else { format!("{hosts} hosts") };
                let _ = writeln!(text, "  segment    {name:<20} {:>12}   {ty}, on {hosts}", bytes(*size));
            }
            for SemaphoreListing { name, units, waiting, .. } in &listing.semaphores {
                let _ = writeln!(text, "  semaphore  {name:<20} {units:>12}   {waiting} waiting");
            }
            for BarrierListing { name, parties, arrived, .. } in &listing.barriers {
                let _ = writeln!(text, "  barrier    {name:<20} {:>12}   arrived", format!("{arrived} of {parties}"));
            }
        }
    }
    for (dir, pid, status) in &session.arbiters {
        let SessionStatus { host, processes, direct, trapped, bulk, applied, frames, bytes_in, bytes_out, .. } = status;
        let _ = writeln!(text, "  host {host}: {} here, arbiter {pid} in {dir}", plural(processes.len(), "process"));
        let _ = writeln!(
            text,
            "    captured {} direct, {} trapped, {} bulk; applied {}; {} frames; {} in, {} out",
            count(*direct),
            count(*trapped),
            count(*bulk),
            count(*applied),
            count(*frames),
            bytes(*bytes_in),
            bytes(*bytes_out)
        );
    }
    text
}

fn describe_idle(arbiter: &Arbiter) -> String {
    let (pid, dir, daemon) = (arbiter.status.pid, arbiter.dir.display(), &arbiter.status.daemon);
    format!("arbiter {pid} in {dir}: no session; its daemon is {daemon}\n")
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}es") }
}

/// A number with a comma after every three digits.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A size for people.
pub fn bytes(size: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (size as f64, "B");
    for next in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{size} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(4_194_304), "4,194,304");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1 << 40), "1.0 TiB");
    }

    #[test]
    fn one_daemon_under_two_names_is_one() {
        assert!(same("127.0.0.1:7", "127.0.0.1:7") && same("localhost:7", "localhost:7"));
        assert!(!same("127.0.0.1:7", "127.0.0.1:8") && !same("", "127.0.0.1:8"));
    }
}
