//! What nobody of ours sends, on every socket that there is: to an arbiter by a process and by a server, to the daemon.
//! (To a server by an arbiter: `robustness.rs`.) It costs the sender its connection, or gets a refusal where it is only
//! out of order, and harms nobody else.

mod common;

use common::{Cluster, PATIENCE, eventually};
use dsm::prelude::*;
use dsm_core::limits::FRAME;
use dsm_core::record::{Kind, header};
use dsm_core::segment::{OpenMode, OpenSegment, TypeDesc};
use dsm_core::wire::control::{Ask, Find, Reason, Response, Told, frame as message, parse};
use dsm_core::wire::{FrameHeader, FrameKind, Hello, Reader, Role};
use dsm_daemon::auth::{greet, welcome};
use dsm_daemon::client::Client;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

fn frame(kind: FrameKind, from: u64, to: u64, payload: &[u8]) -> Vec<u8> {
    [bytemuck::bytes_of(&FrameHeader::new(kind, 1, 1, payload.len(), from, to)), payload].concat()
}

/// A frame whose header says that it has so many bytes.
fn saying(len: u32) -> Vec<u8> {
    let mut bytes = frame(FrameKind::Control, 1, 0, &[]);
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Bytes that make no sense on any connection.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let long = u32::try_from(FRAME).unwrap();
    vec![
        ("noise", vec![0xa5; 4096]),
        ("zeros", vec![0; 64]),
        ("a frame that is too long", saying(!7)),
        ("a frame that is a little too long", saying(long + 8)),
        ("a frame of a length that no frame has", saying(12)),
        ("a message that is none", frame(FrameKind::Control, 1, 0, &[0xff; 64])),
        ("a message that is longer than its frame", frame(FrameKind::Control, 1, 0, &words(&[1 << 40, 1, 2]))),
        ("a message without anything in it", frame(FrameKind::Control, 1, 0, &[])),
    ]
}

/// Reads until the other side hangs up.
#[track_caller]
fn cut(what: &str, stream: &mut impl Read) {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{what}: it is not cut off: {error}"),
        }
    }
}

/// Two hosts that have nothing to do with it.
struct Others<'c> {
    sessions: [Session; 2],
    cluster: &'c Cluster,
    round: std::cell::Cell<u64>,
}

impl<'c> Others<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        Self { sessions: [0, 1].map(|host| cluster.join(host, "good")), cluster, round: Default::default() }
    }

    /// They go on, and nobody has ended.
    #[track_caller]
    fn go_on(&self) {
        let round = self.round.get() + 1;
        self.round.set(round);
        let [here, there] = self.sessions.each_ref().map(|session| session.open::<u64>("w").unwrap());
        here.set(round);
        eventually("stores go on", || there.get() == round);
        there.atomic().fetch_add(1 << 32, SeqCst);
        eventually("atomics go on", || here.get() == round + (1 << 32));
        // A newcomer is welcome.
        drop(self.cluster.join(1, "good"));
    }
}

#[test]
fn from_a_process_to_its_arbiter() {
    let cluster = Cluster::new();
    let others = Others::new(&cluster);
    let hello = || bytemuck::bytes_of(&Hello::new(Role::Process, [0; 32], false)).to_vec();
    let connect = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(cluster.dir(1).join("arbiter.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // In two pieces; it may be gone before the second.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        stream.write_all(first).unwrap();
        let _ = stream.write_all(second);
        stream
    };
    let join = message(&Ask::Join { session: "good".into(), daemon: None, existing: true }, 1, 0, 0).unwrap();
    let greetings = [("another magic", 0), ("another version", 8), ("another role", 12), ("another build", 16)];
    for (what, at) in greetings {
        let mut bytes = hello();
        bytes[at] ^= 0x40;
        cut(what, &mut connect(&[bytes, join.clone()].concat()));
        others.go_on();
    }
    let mut cases = nonsense();
    cases.extend([
        ("records", frame(FrameKind::Records, 0, 3, &words(&[header(Kind::Store, 0, 8, 0), 4096, 1]))),
        ("what only servers send", frame(FrameKind::Ack, 0, 0, &[])),
    ]);
    for (what, bytes) in &cases {
        // Before joining, and as a process of the session.
        cut(what, &mut connect(&[&hello()[..], bytes].concat()));
        cut(what, &mut connect(&[&hello()[..], &join, bytes].concat()));
        others.go_on();
    }
    for len in [10, 64 + 10, 64 + join.len() - 1] {
        let stream = connect(&[&hello()[..], &join].concat()[..len]);
        stream.shutdown(Shutdown::Write).unwrap();
        cut("an end in the middle", &mut &stream);
        others.go_on();
    }
    // Out of order, but each a question that has an answer.
    let ty = TypeDesc { name: "u64".into(), size: 8, fingerprint: 0, fields: Vec::new() };
    let open = OpenSegment { name: "w".into(), len: 8, ty, mode: OpenMode::Attach, room: 0 };
    let ask = |ask: Ask| message(&ask, 1, 0, 0).unwrap();
    let stream =
        connect(&[hello(), ask(Ask::Open(open)), ask(Ask::Bell), join.clone(), join, ask(Ask::Status)].concat());
    let told = answers(stream, 5);
    let refused = |told: &Told, reason: Reason| matches!(told, Told::Refused(refusal) if refusal.reason == reason);
    assert!(refused(&told[0], Reason::NotFound) && refused(&told[1], Reason::NotFound), "{told:?}");
    assert!(matches!(told[2], Told::Joined { .. }) && refused(&told[3], Reason::Malformed), "{told:?}");
    assert!(matches!(told[4], Told::Status(_)), "{told:?}");
    others.go_on();
}

/// What an arbiter answers, behind its greeting. (Descriptors that come with it are closed.)
fn answers(mut stream: impl Read, count: usize) -> Vec<Told> {
    let (mut reader, mut greeted, mut told) = (Reader::new(), false, Vec::new());
    loop {
        greeted = greeted || reader.take(size_of::<Hello>()).is_some();
        while greeted && let Some(frame) = reader.next().unwrap() {
            told.push(parse::<Told>(frame.payload).unwrap());
        }
        if told.len() >= count {
            return told;
        }
        let read = stream.read(reader.space()).unwrap();
        assert!(read > 0, "it has hung up after {told:?}");
        reader.received(read);
    }
}

#[test]
fn from_somebody_who_asks_the_daemon() {
    let cluster = Cluster::new();
    let others = Others::new(&cluster);
    let mut cases = nonsense();
    cases.extend([
        ("records", frame(FrameKind::Records, 0, 3, &words(&[header(Kind::Store, 0, 8, 0), 4096, 1]))),
        ("what only servers send", frame(FrameKind::Lease, 1, 0, &[])),
        ("a question for an arbiter", message(&Ask::Down, 1, 0, 0).unwrap()),
    ]);
    for (what, bytes) in &cases {
        let mut stream = TcpStream::connect(cluster.daemon()).unwrap();
        greet(&mut stream, Role::Directory, Role::Daemon, None).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(bytes);
        cut(what, &mut stream);
        others.go_on();
    }
    let question = message(&Find::List, 1, 0, 0).unwrap();
    for len in [10, question.len() - 1] {
        let mut stream = TcpStream::connect(cluster.daemon()).unwrap();
        greet(&mut stream, Role::Directory, Role::Daemon, None).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&question[..len]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        cut("an end in the middle", &mut stream);
        others.go_on();
    }
    // A name that cannot be one, one that has a server, and one that is ours to end and is not there.
    let mut client = Client::daemon(cluster.daemon(), None).unwrap();
    let register = |name: &str| Find::Register { name: name.into(), address: "127.0.0.1:1".into() };
    for find in [register("two words"), register("good"), Find::Down(Some("nowhere".into()))] {
        assert!(client.find(&find).is_err(), "{find:?}");
    }
    assert!(client.find(&Find::List).is_ok());
    others.go_on();
}

#[test]
fn from_a_server_to_its_arbiters() {
    let cluster = Cluster::new();
    let others = Others::new(&cluster);
    let records = |payload: &[u8]| frame(FrameKind::Records, 0, payload.len() as u64 / 8, payload);
    let mut cases = nonsense();
    cases.extend([
        ("an acknowledgement of what was not sent", frame(FrameKind::Ack, 0, 1 << 20, &[])),
        ("half a record", records(&words(&[header(Kind::Store, 0, 64, 0), 4096]))),
        ("a kind of record that there is not", records(&words(&[0xee, 0, 0]))),
        ("an operation for the server", records(&words(&[header(Kind::Fence, 0, 16, 0), 0, 0, 0]))),
        ("an answer that is too short", frame(FrameKind::Reply, 0, 0, &[0; 8])),
        ("an answer of a width that there is not", {
            let mut reply = [0; 64];
            reply[12] = 77;
            frame(FrameKind::Reply, 0, 0, &reply)
        }),
        ("an answer about bytes that are nowhere", {
            let mut reply = [0; 64];
            (reply[12], reply[23]) = (8, 0x7f);
            frame(FrameKind::Reply, 0, 0, &reply)
        }),
        ("a welcome twice", message(&Response::Joined(1), 0, 0, 1).unwrap()),
    ]);
    for (number, (what, bytes)) in cases.iter().enumerate() {
        let name = format!("false-{number}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut registered = Client::daemon(cluster.daemon(), None).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        registered.find(&Find::Register { name: name.clone(), address }).unwrap();
        let false_server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert_eq!(welcome(&mut stream, None).unwrap(), Role::Arbiter);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut header = [0; size_of::<FrameHeader>()];
            stream.read_exact(&mut header).unwrap();
            let header: FrameHeader = bytemuck::pod_read_unaligned(&header);
            stream.read_exact(&mut vec![0; header.len as usize]).unwrap();
            stream.write_all(&message(&Response::Joined(1), header.from, 0, 1).unwrap()).unwrap();
            stream
        });
        let deceived = cluster.join(1, &name);
        let mut stream = false_server.join().unwrap();
        assert!(deceived.ended().is_none());
        let _ = stream.write_all(bytes);
        cut(what, &mut stream);
        eventually("it knows of the end", || deceived.ended().is_some());
        let ended = deceived.ended();
        assert!(matches!(ended, Some(Error::SessionEnded { why: dsm::Ended::Refused, .. })), "{what}: {ended:?}");
        // Asking for more is an error as well, and no wait.
        assert!(deceived.open::<u64>("w").is_err());
        drop(deceived);
        others.go_on();
    }
}
