//! The daemon's part: session name -> where its server is.

use crate::link::Link;
use crate::server::Server;
use dsm_core::segment::check_name;
use dsm_core::wire::FrameKind;
use dsm_core::wire::control::{Find, Found, Reason, Refusal, frame, parse};
use std::collections::BTreeMap;
use std::task::Context;
use std::time::{Duration, Instant};

/// The sessions that this node serves itself.
pub type Servers = BTreeMap<String, Server>;

/// Sessions that one daemon serves.
const SESSIONS: usize = 4096;

/// The directory.
#[derive(Debug, Default)]
pub struct Directory {
    asking: Vec<(Link, Vec<String>)>,
    /// Servers elsewhere that registered, by session.
    elsewhere: BTreeMap<String, String>,
    /// Somebody asked the daemon to end.
    pub ending: bool,
}

impl Directory {
    /// Somebody connected.
    pub fn admit(&mut self, link: Link) {
        self.asking.push((link, Vec::new()));
    }

    /// Do servers elsewhere rely on us?
    pub fn in_use(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// Where the server of `name` is; starts one here if there is none, unless only `existing` ones are wanted.
    pub fn find(&mut self, name: &str, existing: bool, servers: &mut Servers) -> Found {
        if let Err(bad) = check_name(name) {
            return Found::Refused(Refusal::new(Reason::BadName, bad.to_string()));
        }
        if let Some(address) = self.elsewhere.get(name) {
            return Found::Server(address.clone());
        }
        if !servers.contains_key(name) {
            if existing {
                let text = format!("there is no session {name:?}: `dsm ls` shows those that there are");
                return Found::Refused(Refusal::new(Reason::NotFound, text));
            }
            if servers.len() >= SESSIONS {
                let text = format!("the daemon already serves {SESSIONS} sessions");
                return Found::Refused(Refusal::new(Reason::TooLarge, text));
            }
            servers.insert(name.to_owned(), Server::new(name));
        }
        Found::Server(String::new())
    }

    /// Answers one question.
    fn answer(&mut self, at: usize, find: Find, servers: &mut Servers) -> Found {
        match find {
            Find::Session { name, existing } => self.find(&name, existing, servers),
            Find::Register { name, address } => {
                if let Err(bad) = check_name(&name) {
                    return Found::Refused(Refusal::new(Reason::BadName, bad.to_string()));
                }
                if servers.contains_key(&name) || self.elsewhere.contains_key(&name) {
                    let text = format!("session {name:?} has a server already");
                    return Found::Refused(Refusal::new(Reason::Exists, text));
                }
                self.asking[at].1.push(name.clone());
                self.elsewhere.insert(name, address);
                Found::Done
            }
            Find::List => {
                let here = servers.keys().map(|name| (name.clone(), String::new()));
                let there = self.elsewhere.iter().map(|(name, address)| (name.clone(), address.clone()));
                Found::Sessions(here.chain(there).collect())
            }
            Find::Down(Some(name)) => match servers.get_mut(&name) {
                Some(server) => {
                    server.end();
                    Found::Done
                }
                None => {
                    let text = format!("this daemon serves no session {name:?}");
                    Found::Refused(Refusal::new(Reason::NotFound, text))
                }
            },
            Find::Down(None) => {
                self.ending = true;
                Found::Done
            }
        }
    }

    /// Does what can be done now.
    pub fn pump(&mut self, now: Instant, servers: &mut Servers) -> bool {
        let mut busy = false;
        for at in 0..self.asking.len() {
            let link = &mut self.asking[at].0;
            if link.receive() > 0 {
                busy = true;
                link.heard(now);
            }
            let mut reader = std::mem::take(&mut link.reader);
            loop {
                let find = match reader.next() {
                    Ok(None) => break,
                    Ok(Some(frame)) if frame.kind == FrameKind::Ping => continue,
                    Ok(Some(frame)) if frame.kind == FrameKind::Control => {
                        parse::<Find>(frame.payload).ok().map(|find| (find, frame.header.from))
                    }
                    Ok(Some(_)) | Err(_) => None,
                };
                let Some((find, id)) = find else {
                    self.asking[at].0.cut();
                    break;
                };
                let found = self.answer(at, find, servers);
                match frame(&found, id, 0, 0) {
                    Ok(bytes) => self.asking[at].0.queue_whole(&bytes),
                    Err(_) => self.asking[at].0.cut(),
                }
            }
            let link = &mut self.asking[at].0;
            link.reader = reader;
            busy |= link.flush();
        }
        let elsewhere = &mut self.elsewhere;
        self.asking.retain(|(link, names)| {
            if link.broken() {
                names.iter().for_each(|name| drop(elsewhere.remove(name)));
            }
            !link.broken()
        });
        busy
    }

    /// Signs of life.
    pub fn tick(&mut self, now: Instant, patience: Duration) {
        self.asking.iter_mut().for_each(|(link, _)| link.tick(now, patience));
    }

    /// Is there anything to do? Else asks to be woken.
    pub fn poll(&self, cx: &mut Context<'_>) -> bool {
        self.asking.iter().fold(false, |ready, (link, _)| link.poll(cx, true) || ready)
    }
}
