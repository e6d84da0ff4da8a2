//! Writers and the arbiter at the same bytes.

use super::*;

/// Memory, and a crossing before every write to it.
pub(super) struct Bytes(pub(super) Cells, pub(super) Crossing);

impl Memory for Bytes {
    fn write(&self, offset: u64, bytes: &[u8]) {
        self.1.pass();
        self.0.write(offset, bytes);
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        self.0.read(offset, out);
    }
}

pub(super) type Session = Arc<(Box<Tiny>, Bytes)>;

pub(super) fn session() -> Session {
    Arc::new((Tiny::boxed(1), Bytes(Cells::zeroed(8), Crossing(AtomicU64::new(0)))))
}

pub(super) fn bytes(memory: &Bytes) -> Vec<u8> {
    memory.0.to_vec()[..8].to_vec()
}

/// Applies records to bytes, in order.
pub(super) fn perform(image: &mut [u8], payload: &[u8]) {
    for record in records(payload) {
        let record = record.expect("whole records");
        image[record.place as usize..][..record.payload.len()].copy_from_slice(record.payload);
    }
}

/// What the arbiter knows: the bytes after what it has received of the order, and what it has drained beyond that.
pub(super) struct Arbiter {
    pub(super) replica: Replica,
    prefix: Vec<u8>,
    drained: Vec<u8>,
}

impl Arbiter {
    pub(super) fn new() -> Self {
        let mut replica = Replica::new();
        replica.attach(0, 4096);
        Self { replica, prefix: vec![0; 8], drained: Vec::new() }
    }

    pub(super) fn drain(&mut self, log: &TinyLog<'_>, memory: &Bytes) {
        memory.1.pass();
        self.replica.drain(log, &mut self.drained).expect("the log makes sense");
    }

    /// The server has ordered all that was drained.
    pub(super) fn acknowledge(&mut self, log: &TinyLog<'_>, memory: &Bytes) {
        memory.1.pass();
        let header = FrameHeader::new(FrameKind::Ack, 1, 1, 0, 0, self.replica.sent());
        let frame = Frame { kind: FrameKind::Ack, header, payload: &[] };
        assert_eq!(self.replica.apply(log, memory, &frame, || true), Ok(Progress::Done));
        perform(&mut self.prefix, &self.drained);
        self.drained.clear();
    }

    /// A record of another host arrives: ordered before what is not acknowledged yet.
    /// False when a writer holds the lock; the frame has to wait then, and so has what follows it.
    pub(super) fn remote(&mut self, log: &TinyLog<'_>, memory: &Bytes, offset: u64, bytes: &[u8]) -> bool {
        memory.1.pass();
        let mut payload = Vec::new();
        push_store(&mut payload, offset, bytes);
        let header = FrameHeader::new(FrameKind::Records, 2, 1, payload.len(), 0, payload.len() as u64 / 8);
        let frame = Frame { kind: FrameKind::Records, header, payload: &payload };
        match self.replica.apply(log, memory, &frame, || log.lock().try_acquire(ARBITER)) {
            Ok(Progress::Done) => perform(&mut self.prefix, &payload),
            Ok(Progress::Busy) => return false,
            Err(bad) => panic!("{bad}"),
        }
        true
    }

    /// Nobody writes any more: replica = prefix + pending, and memory in the order of the log.
    pub(super) fn check(&mut self, log: &TinyLog<'_>, memory: &Bytes) {
        self.drain(log, memory);
        let mut expected = self.prefix.clone();
        perform(&mut expected, &self.drained);
        assert_eq!(bytes(memory), expected);
        self.acknowledge(log, memory);
        assert_eq!(bytes(memory), self.prefix);
        assert_eq!(self.replica.acked(), self.replica.sent());
    }
}

pub(super) fn writer(shared: &Session, number: u32, offset: u64, data: &'static [u8]) -> thread::JoinHandle<()> {
    let shared = shared.clone();
    thread::spawn(move || {
        let log: TinyLog<'_> = shared.0.log();
        let hand = Hand(number, &shared.1.1);
        // The way of most stores, where nothing has to be waited for; else the other.
        let done = match <&[u8; 2]>::try_from(data).ok() {
            Some(word) if offset.is_multiple_of(2) => log.try_store_word(&shared.1, &hand, Door::Direct, offset, *word),
            _ => false,
        };
        if !done {
            log.store(&shared.1, &hand, Door::Direct, offset, data);
        }
    })
}

/// The log's order is the order of the bytes in memory, and every record is drained once and whole.
#[test]
fn two_writers_agree_with_the_log() {
    model(3, || {
        let shared = session();
        let threads = [writer(&shared, 1, 0, &[1, 2]), writer(&shared, 2, 1, &[3, 4])];
        let log: TinyLog<'_> = shared.0.log();
        let mut arbiter = Arbiter::new();
        arbiter.drain(&log, &shared.1);
        arbiter.acknowledge(&log, &shared.1);
        threads.into_iter().for_each(|thread| thread.join().expect("it ended"));
        arbiter.check(&log, &shared.1);
        assert_eq!(arbiter.replica.sent(), 6, "two records of three words");
    });
}

/// Whoever sees the tail sees the record before it.
#[test]
fn what_is_drained_is_whole() {
    model(4, || {
        let shared = session();
        let thread = {
            let shared = shared.clone();
            thread::spawn(move || {
                let body = SyncBody { token: 3, amount: 5, process: 7 };
                shared.0.log().submit(&Hand(1, &shared.1.1), || true, Kind::Fence, 0, 9, bytemuck::bytes_of(&body));
            })
        };
        let (log, mut arbiter): (TinyLog<'_>, _) = (shared.0.log(), Arbiter::new());
        arbiter.drain(&log, &shared.1);
        let early = arbiter.drained.len();
        thread.join().expect("it ended");
        arbiter.drain(&log, &shared.1);
        assert!((early == 0 || early == 32) && arbiter.drained.len() == 32);
        let record = Record::parse(&arbiter.drained).expect("a whole record");
        assert_eq!((record.kind, record.place), (Kind::Fence, 9));
        assert_eq!(record.sync(), Some(SyncBody { token: 3, amount: 5, process: 7 }));
    });
}

/// A remote record at the first bytes, while `threads` store there, between draining and the acknowledgement.
fn spares_what_is_pending(shared: &Session, threads: impl IntoIterator<Item = thread::JoinHandle<()>>) -> Arbiter {
    let log: TinyLog<'_> = shared.0.log();
    let mut arbiter = Arbiter::new();
    arbiter.drain(&log, &shared.1);
    let applied = arbiter.remote(&log, &shared.1, 0, &[9; 4]);
    if applied {
        arbiter.acknowledge(&log, &shared.1);
    }
    threads.into_iter().for_each(|thread| thread.join().expect("it ended"));
    assert!(applied || arbiter.remote(&log, &shared.1, 0, &[9; 4]));
    arbiter.check(&log, &shared.1);
    arbiter
}

/// A remote record at bytes that two writers store to, between draining and the acknowledgement.
#[test]
fn a_remote_record_spares_what_is_pending() {
    model(1, || {
        let shared = session();
        let threads = [writer(&shared, 1, 0, &[1, 2]), writer(&shared, 2, 1, &[3, 4])];
        spares_what_is_pending(&shared, threads);
    });
}

/// As before, with one writer and two remote records, on both sides of the acknowledgement.
#[test]
fn a_remote_record_comes_after_what_is_acknowledged() {
    model(5, || {
        let shared = session();
        let thread = writer(&shared, 1, 1, &[1, 2]);
        let log: TinyLog<'_> = shared.0.log();
        let mut arbiter = Arbiter::new();
        let first = arbiter.remote(&log, &shared.1, 0, &[8; 3]);
        arbiter.drain(&log, &shared.1);
        let mut second = false;
        if first {
            arbiter.acknowledge(&log, &shared.1);
            second = arbiter.remote(&log, &shared.1, 2, &[9; 2]);
        }
        thread.join().expect("it ended");
        assert!(first || arbiter.remote(&log, &shared.1, 0, &[8; 3]));
        assert!(second || arbiter.remote(&log, &shared.1, 2, &[9; 2]));
        arbiter.check(&log, &shared.1);
    });
}

/// Memory in which whoever stores dies: after the intent and the entry in the index, before the first byte.
struct Deadly;

impl Memory for Deadly {
    fn write(&self, _: u64, _: &[u8]) {
        std::panic::resume_unwind(Box::new("dead"));
    }

    fn read(&self, _: u64, _: &mut [u8]) {}
}

/// A process dies in the middle of a store, another one waits to store to the same bytes: the first is completed, and
/// comes before the second, in memory as in the log.
#[test]
fn a_store_of_the_dead_is_completed_before_another_begins() {
    model(2, || {
        let shared = session();
        let log: TinyLog<'_> = shared.0.log();
        let dead = std::panic::AssertUnwindSafe(|| {
            log.store(&Deadly, &Hand(1, &shared.1.1), Door::Direct, 0, &[1, 2]);
        });
        assert!(std::panic::catch_unwind(dead).is_err());
        let second = writer(&shared, 2, 1, &[3, 4]);
        let mut arbiter = Arbiter::new();
        arbiter.drain(&log, &shared.1);
        assert!(arbiter.drained.is_empty(), "drained before it was whole");
        assert_eq!(log.lock().seize(|process| process == 1), Seizure::Taken);
        log.recover(&shared.1, |_, _| true);
        log.lock().release_to_all();
        arbiter.drain(&log, &shared.1);
        assert!(arbiter.drained.len() >= 24, "the store of the dead is not there");
        second.join().expect("it ended");
        arbiter.drain(&log, &shared.1);
        let places: Vec<u64> = records(&arbiter.drained).map(|record| record.expect("whole").place).collect();
        assert_eq!((places, &bytes(&shared.1)[..4]), (vec![0, 1], &[1, 3, 4, 0][..]));
        arbiter.check(&log, &shared.1);
    });
}

/// Two stores of a favoured thread, the second without taking the lock, and a remote record at the same bytes.
#[test]
fn a_remote_record_spares_what_a_favoured_thread_has_pending() {
    model(2, || {
        let shared = session();
        let thread = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (log, hand): (TinyLog<'_>, _) = (shared.0.log(), Favoured(Hand(1, &shared.1.1), favour(11)));
                if !log.try_store_word(&shared.1, &hand, Door::Direct, 0, [1, 2]) {
                    log.store(&shared.1, &hand, Door::Direct, 0, &[1, 2]);
                }
                log.store(&shared.1, &hand, Door::Direct, 1, &[3, 4]);
            })
        };
        let arbiter = spares_what_is_pending(&shared, [thread]);
        assert_eq!(arbiter.replica.sent(), 6, "two records of three words");
    });
}

/// A favoured thread dies in the middle of a store, for which it has not taken the lock, and another tries to take it:
/// whenever it gets the lock, what the dead had begun is complete.
#[test]
fn a_store_of_a_favoured_thread_that_died_is_completed_before_another_begins() {
    model(3, || {
        let shared = session();
        let log: TinyLog<'_> = shared.0.log();
        let hand = Favoured(Hand(1, &shared.1.1), favour(11));
        log.store(&shared.1, &hand, Door::Direct, 4, &[7, 7]);
        let dead = std::panic::AssertUnwindSafe(|| log.store(&Deadly, &hand, Door::Direct, 0, &[1, 2]));
        assert!(std::panic::catch_unwind(dead).is_err());
        let second = {
            let shared = shared.clone();
            thread::spawn(move || {
                let log: TinyLog<'_> = shared.0.log();
                for _ in 0..2 {
                    if log.lock().try_acquire(2) {
                        assert_eq!(shared.0.control.producer.tail.load(Relaxed), 6);
                        assert_eq!(&bytes(&shared.1)[..2], [1, 2]);
                        log.lock().release();
                    }
                }
            })
        };
        assert_eq!(seize_at_last(log.lock(), 1), Seizure::Taken);
        log.recover(&shared.1, |_, _| true);
        log.lock().forget(1);
        log.lock().release_to_all();
        second.join().expect("it ended");
        writer(&shared, 2, 1, &[3, 4]).join().expect("it ended");
        let mut arbiter = Arbiter::new();
        arbiter.drain(&log, &shared.1);
        let places: Vec<u64> = records(&arbiter.drained).map(|record| record.expect("whole").place).collect();
        assert_eq!((places, &bytes(&shared.1)[..6]), (vec![4, 0, 1], &[1, 3, 4, 0, 7, 7][..]));
        arbiter.check(&log, &shared.1);
    });
}

/// A store across words of a line, and lines of a page published at once, at the same bytes as a remote record: all three
/// chains of the index have an entry.
#[test]
fn a_remote_record_spares_lines_and_pages_that_are_pending() {
    type Wide = Area<32, 1, 1, 1>;
    model(1, || {
        let shared = Arc::new((Wide::boxed(1), Cells::zeroed(64), Crossing(AtomicU64::new(0))));
        let spawn = |run: fn(&HostLog<'_, 32, 1, 1, 1>, &Cells, &Hand<'_>), number: u32| {
            let shared = shared.clone();
            thread::spawn(move || run(&shared.0.log(), &shared.1, &Hand(number, &shared.2)))
        };
        let threads = [
            spawn(|log, memory, hand| log.store(memory, hand, Door::Direct, 4, &[1; 8]), 1),
            spawn(|log, memory, hand| log.publish(memory, hand, 0, &[0xff00], &[[2; 64]]), 2),
        ];
        let log: HostLog<'_, 32, 1, 1, 1> = shared.0.log();
        let mut replica = Replica::new();
        replica.attach(0, 4096);
        let mut payload = Vec::new();
        push_store(&mut payload, 0, &[9; 24]);
        let header = FrameHeader::new(FrameKind::Records, 2, 1, payload.len(), 0, payload.len() as u64 / 8);
        let frame = Frame { kind: FrameKind::Records, header, payload: &payload };
        let apply = |replica: &mut Replica| {
            shared.2.pass();
            replica.apply(&log, &shared.1, &frame, || log.lock().try_acquire(ARBITER)).expect("it makes sense")
        };
        let first = apply(&mut replica);
        threads.into_iter().for_each(|thread| thread.join().expect("it ended"));
        if first == Progress::Busy {
            assert_eq!(apply(&mut replica), Progress::Done);
        }
        // The remote one comes first in the order, wherever it came in time; then both of ours, as the log has them.
        let mut expected = [0; 64];
        expected[..24].fill(9);
        let mut drained = Vec::new();
        replica.drain(&log, &mut drained).expect("the log makes sense");
        for record in records(&drained) {
            let record = record.expect("a whole record");
            match record.kind {
                Kind::Bulk => expected[8..16].fill(2),
                _ => expected[4..12].fill(1),
            }
        }
        assert_eq!(shared.1.to_vec(), expected);
        assert_eq!(log.covered(0, u64::MAX), 0xfff0);
    });
}
