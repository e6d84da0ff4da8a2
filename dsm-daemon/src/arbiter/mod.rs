//! The arbiter: one per host and user. Looks after the processes that connect to it, and has a [`session::HostSession`]
//! for each session that they have joined.

mod process;
pub mod session;

use crate::auth::Key;
use crate::client;
use crate::config::{Daemon, address};
use crate::directory::{Directory, Servers};
use crate::link::{Link, Seat};
use crate::runtime;
use crate::{Error, Result};
use async_io::Async;
use dsm_core::wire::control::{Ask, Found, Reason, Refusal, Status, Told};
use process::{Client, Leaving};
use session::{HostSession, Uplink};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Context;
use std::time::{Duration, Instant};

/// A connection to a server, made by a helper thread.
type Connected = (String, Result<(TcpStream, u16)>);

/// What the arbiter needs of the rest of its node.
pub struct Around<'a> {
    /// The directory, when the daemon is in this node.
    pub directory: Option<&'a mut Directory>,
    /// The servers of this node.
    pub servers: &'a mut Servers,
}

/// The arbiter of a host.
#[derive(Debug)]
pub struct Arbiter {
    dir: PathBuf,
    /// Held for life: whoever can lock the file knows that no arbiter is alive.
    _alive: runtime::Held,
    listener: Async<UnixListener>,
    clients: BTreeMap<u64, Client>,
    /// Processes without a connection that may still store. Their numbers are theirs until they cannot.
    leaving: Vec<Leaving>,
    next_client: u64,
    sessions: BTreeMap<String, HostSession>,
    /// Sessions that have ended, as long as processes still hold them.
    ended: Vec<HostSession>,
    /// Processes that wait until a session's server has been reached.
    joining: BTreeMap<String, Vec<u64>>,
    connected: (Sender<Connected>, Receiver<Connected>),
    daemon: Daemon,
    key: Option<Key>,
    keep: bool,
    /// It was started on demand, and another can be.
    replaceable: bool,
    /// Somebody asked us to end, or another is to take our place.
    pub ending: bool,
}

impl Arbiter {
    /// Starts to listen in `dir`. `replaceable`: it was started on demand, and ends when nobody needs it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when an arbiter is alive there already.
    pub fn start(dir: &Path, daemon: Daemon, key: Option<Key>, keep: bool, replaceable: bool) -> Result<Self> {
        runtime::prepare(dir)?;
        let Some(alive) = runtime::try_lock(dir, runtime::ALIVE)? else {
            return Err(Error::Unavailable(format!("an arbiter is already running in {}", dir.display())));
        };
        let path = dir.join(runtime::SOCKET);
        // Whoever left it there is not alive: we hold the lock.
        let _ = std::fs::remove_file(&path);
        let cannot = format!("cannot listen on {}", path.display());
        let listener = UnixListener::bind(&path).map_err(Error::system(cannot.clone()))?;
        let listener = Async::new(listener).map_err(Error::system(cannot))?;
        Ok(Self {
            dir: dir.to_owned(),
            _alive: alive,
            listener,
            clients: BTreeMap::new(),
            leaving: Vec::new(),
            next_client: 0,
            sessions: BTreeMap::new(),
            ended: Vec::new(),
            joining: BTreeMap::new(),
            connected: channel(),
            daemon,
            key,
            keep,
            replaceable,
            ending: false,
        })
    }

    /// Is anybody connected?
    pub fn in_use(&self) -> bool {
        !self.clients.is_empty() || !self.sessions.is_empty() || !self.joining.is_empty()
    }

    /// Does what can be done now. `rarely`: also look for what comes seldom.
    pub fn pump(&mut self, now: Instant, around: &mut Around<'_>, rarely: bool) -> bool {
        let mut busy = false;
        if rarely {
            busy |= self.accept();
            busy |= self.hear(around);
        }
        for session in self.sessions.values_mut().chain(&mut self.ended) {
            busy |= session.pump(now, around.servers);
            for (client, told, descriptors) in session.answers() {
                busy = true;
                if let Some(client) = self.clients.get_mut(&client) {
                    client.tell(&told, descriptors);
                }
            }
        }
        self.close(around);
        busy
    }

    fn accept(&mut self) -> bool {
        let mut busy = false;
        while let Ok((stream, _)) = self.listener.get_ref().accept() {
            busy = true;
            if let Some(client) =
                stream.set_nonblocking(true).and_then(|()| Seat::new(stream)).ok().and_then(Client::new)
            {
                self.clients.insert(self.next_client, client);
                self.next_client += 1;
            }
        }
        while let Ok((name, result)) = self.connected.1.try_recv() {
            busy = true;
            let waiting = self.joining.remove(&name).unwrap_or_default();
            let made = result.and_then(|(stream, host)| {
                let link = Link::new(stream).map_err(Error::system("cannot use the connection to the server"))?;
                HostSession::new(&name, host, Uplink::Remote(Box::new(link)))
            });
            self.joined(name, made, &waiting);
        }
        busy
    }

    fn joined(&mut self, name: String, made: Result<HostSession>, waiting: &[u64]) {
        match made {
            // Hung up on already, to be asked again of the one that comes.
            _ if self.ending => {}
            Ok(session) => {
                self.sessions.insert(name.clone(), session);
                waiting.iter().for_each(|client| self.seat(&name, *client));
            }
            // The daemon was in the arbiter of another host, and has ended with it. Nothing keeps us here, and one that
            // is started now has a daemon of its own: those who wait are hung up on, and see to that.
            Err(Error::NobodyThere(_)) if self.replaceable && self.sessions.is_empty() && self.daemon.is_near() => {
                self.ending = true;
            }
            Err(error) => {
                let refusal = client::refusal(error);
                for client in waiting {
                    if let Some(client) = self.clients.get_mut(client) {
                        client.tell(&Told::Refused(refusal.clone()), Vec::new());
                    }
                }
            }
        }
    }

    /// Makes a connected client a process of a session.
    fn seat(&mut self, name: &str, id: u64) {
        let (Some(session), Some(client)) = (self.sessions.get_mut(name), self.clients.get_mut(&id)) else { return };
        match session.admit(id, client.pid()) {
            Ok((process, descriptors)) => {
                client.session = Some(name.to_owned());
                client.process = process;
                let daemon = self.daemon.to_string();
                client.tell(&Told::Joined { process, host: session.host(), daemon }, descriptors);
            }
            Err(refusal) => client.tell(&Told::Refused(refusal), Vec::new()),
        }
    }

    fn hear(&mut self, around: &mut Around<'_>) -> bool {
        let mut busy = false;
        let mut questions = Vec::new();
        for (id, client) in &mut self.clients {
            busy |= client.pump();
            while let Some(ask) = client.next() {
                questions.push((*id, ask));
            }
        }
        // Who wants to join may be what one that has gone has become (`exec`): that one comes first. What else they ask
        // is answered in its turn.
        let joins = |(id, ask): &(u64, Ask)| matches!(ask, Ask::Join { .. }).then_some(*id);
        let joining: Vec<u64> = questions.iter().filter_map(joins).collect();
        let (joins, others): (Vec<_>, Vec<_>) = questions.into_iter().partition(|(id, _)| joining.contains(id));
        for (id, ask) in others {
            busy = true;
            self.answer(id, ask, around);
        }
        let gone: Vec<u64> = self.clients.iter().filter(|(_, client)| client.gone()).map(|(id, _)| *id).collect();
        let closely = !gone.is_empty();
        for id in gone {
            busy = true;
            let Some(client) = self.clients.remove(&id) else { continue };
            if client.left {
                self.sessions().for_each(|session| session.depart(id, client.process, false));
            } else {
                self.leaving.push(client.leaving(id));
            }
        }
        busy |= self.bury(closely);
        for (id, ask) in joins {
            busy = true;
            self.answer(id, ask, around);
        }
        busy
    }

    fn sessions(&mut self) -> impl Iterator<Item = &mut HostSession> {
        self.sessions.values_mut().chain(&mut self.ended)
    }

    /// Cleans up after processes whose connection is over and that can store no more. As long as one can, its locks are
    /// its own, whatever it did to its connection. `closely`: also finds those that only have become another program.
    fn bury(&mut self, closely: bool) -> bool {
        let (mut still, mut busy) = (Vec::new(), false);
        for leaving in std::mem::take(&mut self.leaving) {
            let (client, process) = (leaving.client, leaving.process);
            let session = self.sessions().find(|session| session.has_client(client));
            if session.is_some_and(|session| !if closely { leaving.gone(session.log_file()) } else { leaving.ended() })
            {
                still.push(leaving);
                continue;
            }
            busy = true;
            self.sessions().for_each(|session| session.depart(client, process, true));
        }
        self.leaving = still;
        busy
    }

    fn answer(&mut self, id: u64, ask: Ask, around: &mut Around<'_>) {
        let session = self.clients.get(&id).and_then(|client| client.session.clone());
        let told = match (ask, session) {
            (Ask::Join { session, daemon, existing }, None) => {
                match self.join(id, &session, daemon, existing, around) {
                    Ok(()) => return,
                    Err(refusal) => Told::Refused(refusal),
                }
            }
            (Ask::Join { .. }, Some(_)) => Told::Refused(Refusal::new(Reason::Malformed, "joined already")),
            (Ask::Leave, _) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.left = true;
                }
                Told::Done
            }
            (Ask::Status, _) => Told::Status(self.status()),
            (Ask::Down, _) => {
                self.ending = true;
                Told::Done
            }
            (ask, session) => {
                let name = match (&ask, session) {
                    (Ask::List(name), _) => Some(name.clone()),
                    (_, session) => session,
                };
                match name.as_ref().and_then(|name| self.sessions.get_mut(name)) {
                    Some(session) => match session.ask(id, ask, around.servers) {
                        Some(told) => told,
                        None => return,
                    },
                    None => {
                        let text = match name {
                            Some(name) => format!("session {name:?} has ended on this host, or was never joined"),
                            None => "no session joined yet".to_owned(),
                        };
                        Told::Refused(Refusal::new(Reason::NotFound, text))
                    }
                }
            }
        };
        if let Some(client) = self.clients.get_mut(&id) {
            client.tell(&told, Vec::new());
        }
    }

    fn join(
        &mut self,
        id: u64,
        name: &str,
        daemon: Option<String>,
        existing: bool,
        around: &mut Around<'_>,
    ) -> std::result::Result<(), Refusal> {
        dsm_core::segment::check_name(name).map_err(|bad| Refusal::new(Reason::BadName, bad.to_string()))?;
        let ours = self.daemon.to_string();
        if let Some(theirs) = daemon.filter(|theirs| address(theirs).ok() != address(&ours).ok()) {
            let text = format!(
                "this host's arbiter (in {}) belongs to the daemon at {ours}, not to {theirs}: use that one, or another \
                 DSM_RUNTIME_DIR",
                self.dir.display()
            );
            return Err(Refusal::new(Reason::Unavailable, text));
        }
        if self.sessions.contains_key(name) {
            self.seat(name, id);
            return Ok(());
        }
        if let Some(waiting) = self.joining.get_mut(name) {
            waiting.push(id);
            return Ok(());
        }
        let found = around.directory.as_mut().map(|directory| directory.find(name, existing, around.servers));
        match found {
            Some(Found::Refused(refusal)) => return Err(refusal),
            Some(Found::Server(address)) if address.is_empty() => {
                let host = around.servers.get_mut(name).and_then(crate::server::Server::join_local);
                let host = host.ok_or_else(|| Refusal::new(Reason::TooLarge, "the session is full"))?;
                let made = HostSession::new(name, host, Uplink::Local);
                self.joined(name.to_owned(), made, &[id]);
                return Ok(());
            }
            found => {
                self.joining.insert(name.to_owned(), vec![id]);
                let (sender, key, name) = (self.connected.0.clone(), self.key.clone(), name.to_owned());
                // Connecting may take seconds, during which the other sessions go on.
                std::thread::spawn(move || {
                    let result = match found {
                        Some(Found::Server(address)) => client::join_server(&address, &name, key.as_ref()),
                        _ => client::join(&ours, &name, existing, key.as_ref()),
                    };
                    let _ = sender.send((name, result));
                });
            }
        }
        Ok(())
    }

    fn status(&self) -> Status {
        Status {
            pid: std::process::id(),
            daemon: self.daemon.to_string(),
            sessions: self.sessions.values().map(HostSession::status).collect(),
        }
    }

    /// Closes sessions that nobody needs.
    fn close(&mut self, around: &mut Around<'_>) {
        let over: Vec<String> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.over() || (!self.keep && s.unused()))
            .map(|(n, _)| n.clone())
            .collect();
        for name in over {
            let Some(mut session) = self.sessions.remove(&name) else { continue };
            session.disconnect(around.servers);
            if session.over() && session.has_processes() {
                self.ended.push(session);
            }
        }
        self.ended.retain(HostSession::has_processes);
    }

    /// Signs of life, about once a second.
    pub fn tick(&mut self, now: Instant, patience: Duration) {
        self.sessions.values_mut().for_each(|session| session.tick(now, patience));
        self.clients.values_mut().for_each(Client::check_alive);
        self.bury(true);
    }

    /// Tells processes that it is over.
    pub fn stop(&mut self, around: &mut Around<'_>) {
        for session in self.sessions.values_mut() {
            session.end(dsm_core::control::Ended::ArbiterStopped, "the arbiter was told to stop");
            session.disconnect(around.servers);
        }
        runtime::clean(&self.dir);
    }

    /// About to sleep: producers shall ring.
    pub fn doze(&self, servers: &Servers) {
        self.sessions.values().for_each(|session| session.doze(servers));
    }

    /// Awake again, or not asleep after all.
    pub fn wake(&self) {
        self.sessions.values().for_each(HostSession::wake);
    }

    /// Is there work that came before the producers could know that they have to ring?
    pub fn has_news(&self, servers: &Servers) -> bool {
        self.sessions.values().any(|session| session.has_news(servers))
    }

    /// Does something wait for a lock that a process holds, or a helper thread?
    pub fn impatient(&self) -> bool {
        !self.joining.is_empty() || self.sessions.values().any(HostSession::impatient)
    }

    /// Is there anything to do? Else asks to be woken.
    pub fn poll(&self, cx: &mut Context<'_>, servers: &Servers) -> bool {
        let mut ready = self.listener.poll_readable(cx).is_ready();
        for client in self.clients.values() {
            ready |= client.poll(cx);
        }
        for leaving in &self.leaving {
            ready |= leaving.poll(cx);
        }
        for session in self.sessions.values() {
            ready |= session.poll(cx, servers);
        }
        ready
    }
}

/// Descriptors for a process.
pub(crate) type Descriptors = Vec<OwnedFd>;
