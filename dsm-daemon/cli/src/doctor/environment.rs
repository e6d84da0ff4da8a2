//! What is set up and what runs.

use super::{Check, State};
use crate::find;
use dsm_daemon::{config, runtime};
use std::os::unix::fs::MetadataExt;

pub(super) fn checks() -> Vec<Check> {
    vec![directory(), arbiter(), key(), namespaces()]
}

fn directory() -> Check {
    let dir = runtime::default_dir();
    let shown = dir.display().to_string();
    let good = "Programs of this user find their arbiter there, and nobody else can get in.";
    match std::fs::symlink_metadata(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // It is made, with its parents, when it is needed.
            let parent = dir.ancestors().find(|parent| parent.exists());
            let allowed = parent.is_some_and(|parent| {
                rustix::fs::access(parent, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
            });
            if allowed {
                let text = "It is made, for this user alone, when it is needed.";
                return Check::new("runtime directory", State::Ok, format!("{shown} (not there yet)"), text);
            }
            let text = format!("It cannot be made: name a directory that can, with {}.", config::RUNTIME_DIR);
            Check::new("runtime directory", State::Missing, shown, text)
        }
        Err(error) => {
            let text = format!("It cannot be used: name another with {}.", config::RUNTIME_DIR);
            Check::new("runtime directory", State::Missing, format!("{shown}: {error}"), text)
        }
        Ok(found) => {
            let described = format!("{shown} (user {}, mode {:o})", found.uid(), found.mode() & 0o7777);
            match runtime::prepare(&dir) {
                Ok(()) => Check::new("runtime directory", State::Ok, described, good),
                Err(error) => Check::new("runtime directory", State::Missing, described, format!("{error}.")),
            }
        }
    }
}

fn arbiter() -> Check {
    match find::arbiter(&runtime::default_dir()) {
        Ok(None) => {
            let text = "The first program that joins a session starts one.";
            Check::new("arbiter", State::Ok, "none is running", text)
        }
        Ok(Some(arbiter)) => {
            let status = arbiter.status;
            let found = format!("process {}, {} sessions, daemon {}", status.pid, status.sessions.len(), status.daemon);
            Check::new("arbiter", State::Ok, found, "`dsm ls` says what it does, `dsm down` ends it.")
        }
        Err(failure) => {
            let text =
                "One seems to run, but programs will not get on with it: end it, or use the same release of dsm.";
            Check::new("arbiter", State::Missing, failure.text, text)
        }
    }
}

fn key() -> Check {
    match config::key_from_env() {
        Ok(None) => {
            let text = format!(
                "Good for loopback, where only this user gets in; other hosts need one ({}).",
                config::KEY_FILE
            );
            Check::new("key", State::Ok, "none", text)
        }
        Ok(Some(_)) => Check::new("key", State::Ok, "can be read", "All hosts must have the same."),
        Err(error) => Check::new("key", State::Missing, error.to_string(), "Nothing starts with a key like this."),
    }
}

fn namespaces() -> Check {
    let tried = std::process::Command::new("ip").args(["netns", "list"]).output();
    let root = nix::unistd::geteuid().is_root();
    let text =
        "Only for trying several hosts, with networks of their own, on this machine; `dsm run --hosts` needs none.";
    match tried {
        Ok(output) if output.status.success() && root => Check::new("ip netns", State::Ok, "available", text),
        Ok(output) if output.status.success() => Check::new("ip netns", State::Ok, "available to root", text),
        Ok(_) | Err(_) => Check::new("ip netns", State::Ok, "not available", text),
    }
}
