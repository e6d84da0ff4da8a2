//! Who is at the other end of a TCP connection: proof of a common key (HMAC-SHA256, challenge and response in both
//! directions), or, on loopback, the same user on the same machine.

use crate::{Error, Result};
use dsm_core::wire::{Hello, Role};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How long a greeting may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A secret that the members of a cluster share.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What the accepting side says after the greetings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Verdict {
    Welcome = 1,
    KeyNeeded = 2,
    KeyWrong = 3,
    NotYou = 4,
    NoKeyHere = 5,
}

impl Key {
    /// Reads a key file: 16 to 4096 bytes, not readable by others.
    ///
    /// # Errors
    /// [`Error::Permission`] when others can read it, [`Error::Usage`] when it cannot be a key.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let found = std::fs::metadata(path).map_err(Error::system(format!("cannot read the key file {shown}")))?;
        if found.mode() & 0o077 != 0 {
            return Err(Error::Permission(format!(
                "others can read the key file {shown} (mode {:o}): chmod 600 it",
                found.mode() & 0o7777
            )));
        }
        let bytes = std::fs::read(path).map_err(Error::system(format!("cannot read the key file {shown}")))?;
        if !(16..=4096).contains(&bytes.len()) {
            return Err(Error::Usage(format!("the key file {shown} has {} bytes: 16 to 4096 make a key", bytes.len())));
        }
        Ok(Self(bytes))
    }

    fn proof(&self, side: &[u8], theirs: &Hello, ours: &Hello) -> Hmac<Sha256> {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            unreachable!("HMAC takes keys of any length")
        };
        mac.update(side);
        mac.update(bytemuck::bytes_of(theirs));
        mac.update(bytemuck::bytes_of(ours));
        mac
    }
}

/// Greets as the one who connected. On return the connection can carry frames.
///
/// # Errors
/// What the other end is or wants, and what to do.
pub fn greet(stream: &mut TcpStream, role: Role, expected: Role, key: Option<&Key>) -> Result<()> {
    let there = stream.peer_addr().map_or_else(|_| "the other end".to_owned(), |address| address.to_string());
    let broken = |what: &str| Error::system(format!("{what} {there}"));
    prepare(stream).map_err(broken("cannot set up the connection to"))?;
    let ours = Hello::new(role, nonce()?, key.is_some());
    stream.write_all(bytemuck::bytes_of(&ours)).map_err(broken("cannot greet"))?;
    let theirs = read_hello(stream).map_err(broken("no greeting from"))?;
    theirs.check(expected).map_err(|error| Error::Unavailable(format!("{there}: {error}")))?;
    if let Some(key) = key {
        let proof = key.proof(b"connects", &theirs, &ours).finalize().into_bytes();
        stream.write_all(&proof).map_err(broken("cannot greet"))?;
    }
    let mut verdict = [0];
    stream.read_exact(&mut verdict).map_err(broken("no answer from"))?;
    match verdict[0] {
        v if v == Verdict::Welcome as u8 => {}
        v if v == Verdict::KeyNeeded as u8 => {
            return Err(Error::Permission(format!("{there} wants a key: name its file with DSM_KEY_FILE")));
        }
        v if v == Verdict::KeyWrong as u8 => {
            return Err(Error::Permission(format!(
                "{there} does not accept our key: use the same key file on all hosts"
            )));
        }
        v if v == Verdict::NoKeyHere as u8 => {
            return Err(Error::Permission(format!("{there} has no key and we have one: give it the same key file")));
        }
        _ => {
            return Err(Error::Permission(format!(
                "{there} belongs to another user: without a key only the same user of the same machine may connect"
            )));
        }
    }
    if let Some(key) = key {
        let mut proof = [0; 32];
        stream.read_exact(&mut proof).map_err(broken("no proof from"))?;
        let expected = key.proof(b"accepts", &ours, &theirs);
        expected.verify_slice(&proof).map_err(|_| Error::Permission(format!("{there} does not know our key")))?;
    }
    stream.set_read_timeout(None).map_err(broken("cannot set up the connection to"))
}

/// Greets as the one who accepted. Returns what the other wants to talk to.
///
/// # Errors
/// Why the connection is not accepted; the other end has been told.
pub fn welcome(stream: &mut TcpStream, key: Option<&Key>) -> Result<Role> {
    let there = stream.peer_addr().map_err(Error::system("a connection without an address"))?;
    let broken = |what: &str| Error::system(format!("{what} {there}"));
    prepare(stream).map_err(broken("cannot set up the connection to"))?;
    let theirs = read_hello(stream).map_err(broken("no greeting from"))?;
    let role = [Role::Arbiter, Role::Directory].into_iter().find(|role| theirs.check(*role).is_ok());
    let answer = if role == Some(Role::Arbiter) { Role::Server } else { Role::Daemon };
    let ours = Hello::new(answer, nonce()?, key.is_some());
    // Also to a stranger: it may be another release of ours, that can say so.
    stream.write_all(bytemuck::bytes_of(&ours)).map_err(broken("cannot greet"))?;
    let Some(role) = role else {
        let why = theirs.check(Role::Arbiter).err().map_or_else(String::new, |error| error.to_string());
        return Err(Error::Permission(format!("refused {there}: {why}")));
    };
    let mut say = |verdict: Verdict| stream.write_all(&[verdict as u8]);
    let refuse = |why: &str| Err(Error::Permission(format!("refused {there}: {why}")));
    match key {
        Some(_) if theirs.keyed == 0 => {
            let _ = say(Verdict::KeyNeeded);
            return refuse("it has no key");
        }
        None if theirs.keyed != 0 => {
            let _ = say(Verdict::NoKeyHere);
            return refuse("it has a key and we have none");
        }
        None => {
            let here = stream.local_addr().map_err(broken("no local address for"))?;
            if !same_user(there, here) {
                let _ = stream.write_all(&[Verdict::NotYou as u8]);
                return refuse("it is not the same user of this machine");
            }
            stream.write_all(&[Verdict::Welcome as u8]).map_err(broken("cannot answer"))?;
        }
        Some(key) => {
            let mut proof = [0; 32];
            stream.read_exact(&mut proof).map_err(broken("no proof from"))?;
            if key.proof(b"connects", &ours, &theirs).verify_slice(&proof).is_err() {
                let _ = stream.write_all(&[Verdict::KeyWrong as u8]);
                return refuse("it has another key");
            }
            let mut answer = vec![Verdict::Welcome as u8];
            answer.extend_from_slice(&key.proof(b"accepts", &theirs, &ours).finalize().into_bytes());
            stream.write_all(&answer).map_err(broken("cannot answer"))?;
        }
    }
    stream.set_read_timeout(None).map_err(broken("cannot set up the connection to"))?;
    Ok(role)
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn read_hello(stream: &mut TcpStream) -> std::io::Result<Hello> {
    let mut bytes = [0; size_of::<Hello>()];
    stream.read_exact(&mut bytes)?;
    Ok(bytemuck::pod_read_unaligned(&bytes))
}

/// 32 fresh random bytes.
///
/// # Errors
/// When the kernel has none.
pub fn nonce() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::System { what: "no random bytes".into(), error: error.into() })?;
    Ok(bytes)
}

/// Does the socket at `there`, connected to ours at `here` over loopback, belong to our user (or to root)?
fn same_user(there: SocketAddr, here: SocketAddr) -> bool {
    if !there.ip().is_loopback() || !here.ip().is_loopback() {
        return false;
    }
    let ours = nix::unistd::getuid().as_raw();
    let table = if there.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    let text = std::fs::read_to_string(table).unwrap_or_default();
    owner(&text, there, here).is_some_and(|uid| uid == ours || uid == 0)
}

/// The user of the socket whose local address is `there` and remote address is `here`, by the kernel's table.
fn owner(table: &str, there: SocketAddr, here: SocketAddr) -> Option<u32> {
    let wanted = (hex(there), hex(here));
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let found = (words.next()?, words.next()?);
        (found.0.eq_ignore_ascii_case(&wanted.0) && found.1.eq_ignore_ascii_case(&wanted.1))
            .then(|| words.nth(4).and_then(|uid| uid.parse().ok()))?
    })
}

/// An address as `/proc/net/tcp` writes it: 32-bit words in the machine's byte order.
fn hex(address: SocketAddr) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let octets = match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    for word in octets.as_chunks::<4>().0 {
        let _ = write!(text, "{:08X}", u32::from_ne_bytes(*word));
    }
    let _ = write!(text, ":{:04X}", address.port());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn meet(ours: Option<Key>, theirs: Option<Key>) -> (Result<()>, Result<Role>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = std::thread::spawn(move || welcome(&mut listener.accept().unwrap().0, theirs.as_ref()));
        let greeted = greet(&mut TcpStream::connect(address).unwrap(), Role::Arbiter, Role::Server, ours.as_ref());
        (greeted, accepting.join().unwrap())
    }

    #[test]
    fn without_keys_the_same_user_is_welcome() {
        let (greeted, welcomed) = meet(None, None);
        greeted.unwrap();
        assert_eq!(welcomed.unwrap(), Role::Arbiter);
    }

    #[test]
    fn keys_must_agree_and_the_text_says_what_to_do() {
        let key = |byte| Some(Key(vec![byte; 32]));
        let (greeted, welcomed) = meet(key(1), key(1));
        greeted.unwrap();
        welcomed.unwrap();
        for (ours, theirs, text) in [
            (key(1), key(2), "same key file"),
            (None, key(1), "DSM_KEY_FILE"),
            (key(1), None, "give it the same key file"),
        ] {
            let (greeted, welcomed) = meet(ours, theirs);
            let error = greeted.unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(error.exit_code(), 77);
            welcomed.unwrap_err();
        }
    }

    #[test]
    fn the_kernels_table_names_the_user() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:B2C4 0100007F:1CFB 01 00000000:00000000 00:00000000 00000000  1000        0 12345\n";
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(owner(table, at(0xb2c4), at(0x1cfb)), Some(1000));
        assert_eq!(owner(table, at(0xb2c5), at(0x1cfb)), None);
    }
}
