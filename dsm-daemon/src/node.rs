//! A node: daemon, servers and arbiter, as many of them as configured, in one thread.

use crate::arbiter::{Arbiter, Around};
use crate::auth::{Key, welcome};
use crate::config::{Config, Daemon};
use crate::directory::{Directory, Servers};
use crate::link::Link;
use crate::pace::Pace;
use crate::server::Server;
use crate::{Error, Result};
use async_io::{Async, Timer};
use dsm_core::sys::event;
use dsm_core::wire::control::{Reason, Refusal, Request, Response, frame, parse};
use dsm_core::wire::{FrameKind, Role};
use std::future::Future;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Greetings under way at the same time; more connections are dropped.
const GREETINGS: usize = 64;
/// Connections that have greeted and not said which session they want.
const NEWCOMERS: usize = 256;
/// Signs of life are given, and looked for, this often, or more often where patience is short.
const TICK: Duration = Duration::from_millis(250);
/// Rounds of polling between two looks at what comes seldom.
const SELDOM: u64 = 16;
/// A round with work that was shorter has moved little, for which somebody may wait, on this processor: it is given away.
/// After a longer one there is more of the same.
const LIGHT: Duration = Duration::from_micros(10);

/// A connection, and whom it wants to talk to.
type Greeted = (TcpStream, Role);

/// A listening socket whose connections are greeted by helper threads, so that a slow stranger delays nobody.
struct Door {
    listener: Async<TcpListener>,
    key: Option<Key>,
    greeted: (Sender<Greeted>, Receiver<Greeted>),
    bell: Arc<OwnedFd>,
    heard: Async<OwnedFd>,
    greeting: Arc<AtomicUsize>,
}

/// A running node.
pub struct Node {
    door: Option<Door>,
    newcomers: Vec<(Link, Instant)>,
    directory: Option<Directory>,
    servers: Servers,
    arbiter: Option<Arbiter>,
    linger: Option<Duration>,
    patience: Duration,
    /// Between two ticks.
    tick: Duration,
    pace: Pace,
    used: Instant,
    ticked: Instant,
    round: u64,
    /// A single session to serve, which ends the node when it ends.
    serves: Option<String>,
    address: Option<SocketAddr>,
    stop_bell: Async<OwnedFd>,
}

static STOP: AtomicBool = AtomicBool::new(false);
/// Descriptor of the bell that wakes a sleeping node to look at `STOP`.
static STOP_BELL: AtomicI32 = AtomicI32::new(-1);

/// Ends the node of this process, in good order. Safe in a signal handler.
pub fn stop() {
    STOP.store(true, Ordering::SeqCst);
    let bell = STOP_BELL.load(Ordering::SeqCst);
    if bell >= 0 {
        // SAFETY: the bell belongs to the node, which lasts as long as the process that runs it.
        event::ring(unsafe { BorrowedFd::borrow_raw(bell) });
    }
}

impl Door {
    fn open(address: SocketAddr, key: Option<Key>) -> Result<(Self, SocketAddr)> {
        let cannot = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => Error::InUse(address),
            _ => Error::System { what: format!("cannot listen on {address}"), error },
        };
        let listener = TcpListener::bind(address).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let bell = event::doorbell().map_err(Error::system("no doorbell"))?;
        let heard = bell.try_clone().and_then(Async::new).map_err(Error::system("no doorbell"))?;
        let listener = Async::new(listener).map_err(cannot)?;
        let greeting = Arc::new(AtomicUsize::new(0));
        Ok((Self { listener, key, greeted: channel(), bell: Arc::new(bell), heard, greeting }, address))
    }

    fn accept(&self) {
        while let Ok((mut stream, _)) = self.listener.get_ref().accept() {
            if self.greeting.load(Ordering::Relaxed) >= GREETINGS || stream.set_nonblocking(false).is_err() {
                continue;
            }
            self.greeting.fetch_add(1, Ordering::Relaxed);
            let (sender, key, bell) = (self.greeted.0.clone(), self.key.clone(), Arc::clone(&self.bell));
            let greeting = Arc::clone(&self.greeting);
            std::thread::spawn(move || {
                match welcome(&mut stream, key.as_ref()) {
                    Ok(role) => drop(sender.send((stream, role))),
                    Err(why) => crate::role::note(&why.to_string()),
                }
                greeting.fetch_sub(1, Ordering::Relaxed);
                event::ring(bell.as_fd());
            });
        }
    }
}

impl Node {
    /// Starts everything that `config` asks for. Nothing has been answered yet, but connections are accepted.
    ///
    /// # Errors
    /// What cannot be had, and what to do about it.
    pub fn start(config: &Config) -> Result<Self> {
        let stop_bell = event::doorbell().and_then(Async::new).map_err(Error::system("no doorbell"))?;
        let mut node = Self {
            door: None,
            newcomers: Vec::new(),
            directory: None,
            servers: Servers::new(),
            arbiter: None,
            linger: config.linger,
            patience: config.peer_timeout,
            tick: TICK.min(config.peer_timeout / 8),
            pace: Pace::new(config.poll),
            used: Instant::now(),
            ticked: Instant::now(),
            round: 0,
            serves: None,
            address: None,
            stop_bell,
        };
        let mut daemon = config.daemon.clone();
        let listen = match (&config.serve, &config.daemon) {
            (Some((_, address)), _) => Some(*address),
            (None, Daemon::Here(address)) => Some(*address),
            (None, Daemon::At(_)) => None,
        };
        if let Some(address) = listen {
            config.check_listen(address)?;
            let (door, address) = Door::open(address, config.key.clone())?;
            node.door = Some(door);
            node.address = Some(address);
        }
        if let (Daemon::Here(here), Some(address)) = (&mut daemon, node.address) {
            *here = address;
            node.directory = Some(Directory::default());
        }
        if let Some((name, _)) = &config.serve {
            node.servers.insert(name.clone(), Server::new(name));
            node.serves = Some(name.clone());
        }
        if let Some(dir) = &config.arbiter {
            node.arbiter = Some(Arbiter::start(dir, daemon, config.key.clone(), config.keep, config.replaceable)?);
        }
        Ok(node)
    }

    /// Where the node listens, if it does.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Runs until nobody needs the node any more, or somebody ends it.
    pub fn run(mut self) {
        STOP_BELL.store(self.stop_bell.get_ref().as_raw_fd(), Ordering::SeqCst);
        loop {
            let now = Instant::now();
            self.round += 1;
            let busy = self.pump(now, self.round.is_multiple_of(SELDOM));
            if busy {
                self.pace.worked(now);
                if now.elapsed() < LIGHT {
                    dsm_core::sys::futex::give_way();
                }
            }
            if (self.round.is_multiple_of(SELDOM) || !busy) && self.tick(now) {
                break;
            }
            if !busy && !self.pace.poll_on(now) {
                self.sleep();
            }
        }
        let Self { arbiter, directory, servers, .. } = &mut self;
        servers.values_mut().for_each(Server::end);
        if let Some(arbiter) = arbiter {
            arbiter.stop(&mut Around { directory: directory.as_mut(), servers });
        }
        STOP_BELL.store(-1, Ordering::SeqCst);
    }

    fn pump(&mut self, now: Instant, seldom: bool) -> bool {
        let mut busy = false;
        if seldom {
            busy |= self.greet(now);
            if let Some(directory) = &mut self.directory {
                busy |= directory.pump(now, &mut self.servers);
            }
        }
        for server in self.servers.values_mut() {
            busy |= server.pump(now);
        }
        if let Some(arbiter) = &mut self.arbiter {
            let mut around = Around { directory: self.directory.as_mut(), servers: &mut self.servers };
            busy |= arbiter.pump(now, &mut around, seldom);
        }
        for server in self.servers.values_mut() {
            // What the arbiter beside it has just ordered.
            busy |= server.flush();
        }
        busy
    }

    /// Lets in who has greeted.
    fn greet(&mut self, now: Instant) -> bool {
        let Some(door) = &self.door else { return false };
        door.accept();
        let mut busy = false;
        while let Ok((stream, role)) = door.greeted.1.try_recv() {
            busy = true;
            let Ok(link) = stream.set_nonblocking(true).and_then(|()| Link::new(stream)) else { continue };
            match (role, &mut self.directory) {
                (Role::Directory, Some(directory)) => directory.admit(link),
                (Role::Arbiter, _) if self.newcomers.len() < NEWCOMERS => self.newcomers.push((link, now)),
                _ => {}
            }
        }
        for (mut link, since) in std::mem::take(&mut self.newcomers) {
            busy |= link.receive() > 0;
            let request = match link.reader.next() {
                Ok(Some(frame)) if frame.kind == FrameKind::Control => {
                    Some(parse::<Request>(frame.payload).map(|request| (request, frame.header.from)))
                }
                Ok(None) => None,
                Ok(Some(_)) | Err(_) => continue,
            };
            let Some(request) = request else {
                if !link.broken() && now.duration_since(since) < crate::auth::PATIENCE {
                    self.newcomers.push((link, since));
                }
                continue;
            };
            let Ok((Request::Join(name), id)) = request else { continue };
            if let Some(server) = self.servers.get_mut(&name) {
                server.join_remote(link, id);
            } else {
                let refusal =
                    Refusal::new(Reason::NotFound, format!("there is no session {name:?} here (any more): join again"));
                if let Ok(bytes) = frame(&Response::Refused(refusal), id, 0, 0) {
                    link.queue_whole(&bytes);
                    link.flush();
                }
            }
        }
        busy
    }

    /// What is done a few times a second. Returns true when the node shall end.
    fn tick(&mut self, now: Instant) -> bool {
        if now.duration_since(self.ticked) >= self.tick {
            self.ticked = now;
            let patience = self.patience;
            self.servers.values_mut().for_each(|server| server.tick(now, patience));
            self.directory.iter_mut().for_each(|directory| directory.tick(now, patience));
            self.arbiter.iter_mut().for_each(|arbiter| arbiter.tick(now, patience));
        }
        let serves = &self.serves;
        self.servers.retain(|name, server| {
            let wanted = server.hosts() > 0 || server.fresh(now) || serves.as_ref() == Some(name);
            wanted && !server.ending()
        });
        if self.serves.as_ref().is_some_and(|name| !self.servers.contains_key(name)) {
            return true;
        }
        let in_use = self.arbiter.as_ref().is_some_and(Arbiter::in_use)
            || !self.servers.is_empty()
            || !self.newcomers.is_empty()
            || self.directory.as_ref().is_some_and(Directory::in_use);
        if in_use {
            self.used = now;
        }
        STOP.load(Ordering::Relaxed)
            || self.arbiter.as_ref().is_some_and(|arbiter| arbiter.ending)
            || self.directory.as_ref().is_some_and(|directory| directory.ending)
            || self.linger.is_some_and(|linger| now.duration_since(self.used) > linger)
    }

    /// Sleeps until something comes.
    fn sleep(&mut self) {
        if let Some(arbiter) = &self.arbiter {
            // Ends with a heavy barrier: either the producers see that we sleep, or we see what they wrote.
            arbiter.doze(&self.servers);
            if arbiter.has_news(&self.servers) {
                arbiter.wake();
                return;
            }
        }
        let nap = match &self.arbiter {
            Some(arbiter) if arbiter.impatient() => Duration::from_millis(1),
            _ => self.tick.min(self.linger.unwrap_or(self.tick)),
        };
        let mut timer = pin!(Timer::after(nap));
        async_io::block_on(std::future::poll_fn(|cx| {
            let ready = self.poll(cx);
            if ready || timer.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
        }));
        if let Some(arbiter) = &self.arbiter {
            arbiter.wake();
        }
        if let Some(door) = &self.door {
            event::silence(door.heard.get_ref().as_fd());
        }
        // Whatever woke us may be among what is looked at seldom.
        self.round = self.round.next_multiple_of(SELDOM) - 1;
    }

    /// Is there anything to do? Asks every source, so that each can wake us.
    fn poll(&self, cx: &mut Context<'_>) -> bool {
        let mut ready = self.stop_bell.poll_readable(cx).is_ready();
        if let Some(door) = &self.door {
            ready |= door.listener.poll_readable(cx).is_ready();
            ready |= door.heard.poll_readable(cx).is_ready();
        }
        for (link, _) in &self.newcomers {
            ready |= link.poll(cx, true);
        }
        if let Some(directory) = &self.directory {
            ready |= directory.poll(cx);
        }
        for server in self.servers.values() {
            ready |= server.poll(cx);
        }
        if let Some(arbiter) = &self.arbiter {
            ready |= arbiter.poll(cx, &self.servers);
        }
        ready
    }
}
