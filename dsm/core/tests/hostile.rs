//! Any process of a host may write anything to the shared memory of its sessions, and anybody who can connect may send
//! any bytes. None of it may make an arbiter or a server panic, hang, or write outside of the attached segments.
//!
//! Arithmetic overflow panics in the profile that tests use. A run that hangs is ended by the watchdog.
#![cfg(not(loom))]

#[path = "simulation/rng.rs"]
mod rng;

use dsm_core::limits::PAGE;
use dsm_core::lock::{ARBITER, BIASED, Seizure};
use dsm_core::log::{Area, HostLog};
use dsm_core::memory::{Cells, Memory};
use dsm_core::op::{AtomicOp, Rmw};
use dsm_core::record::{AtomicBody, Kind, LONGEST, MASKED, Record, SyncBody, header, push_store, records};
use dsm_core::replica::Replica;
use dsm_core::segment::{OpenMode, OpenSegment, TypeDesc};
use dsm_core::sequencer::{Misbehaved, Sequencer};
use dsm_core::slot::Slot;
use dsm_core::sync::AtomicU64;
use dsm_core::sync::Ordering::Relaxed;
use dsm_core::wire::control::{OpenSync, Request, SyncKind};
use dsm_core::wire::{Frame, FrameHeader, FrameKind, Reader, Reply};
use rng::Rng;
use std::sync::mpsc;
use std::time::Duration;

/// Words of the control block, before the slots.
const CONTROL: usize = size_of::<dsm_core::control::Control>() / 8;
const RING: usize = 1024;
const INDEX: usize = 16;
const PAGES: usize = 4;
const SEATS: usize = 8;
type SmallArea = Area<RING, INDEX, PAGES, SEATS>;
type SmallLog<'a> = HostLog<'a, RING, INDEX, PAGES, SEATS>;

/// The one segment that is attached; what surrounds it must stay as it is.
const BASE: u64 = 4 * PAGE;
const LEN: u64 = 2 * PAGE;

/// Runs `test` in a thread of its own, and gives up on it after a minute.
fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match wait.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        // It ended or it panicked: joining tells which.
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// All words of an area that a process can write.
fn raw(area: &SmallArea) -> &[AtomicU64] {
    let words = CONTROL + SEATS * 8 + 2 * INDEX + PAGES + RING;
    let from: *const SmallArea = area;
    // SAFETY: an area is `repr(C)`: the control block, 64 bytes a slot, then arrays of words. All of it is
    // atomic words or padding within the allocation, aligned to 8, and one thread at a time uses it.
    unsafe { std::slice::from_raw_parts(from.cast(), words) }
}

/// Memory that fails the test when anything outside of the segment is written.
struct Fenced(Cells);

impl Memory for Fenced {
    fn write(&self, offset: u64, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len() as u64);
        assert!(
            offset >= BASE && end.is_some_and(|end| end <= BASE + LEN),
            "a write of {} to {offset:#x}",
            bytes.len()
        );
        self.0.write(offset, bytes);
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        self.0.read(offset, out);
    }
}

/// An offset that is often where something is, or just beside it, or where numbers end.
fn offset(rng: &mut Rng) -> u64 {
    let near = *rng.pick(&[BASE, BASE + LEN, BASE + PAGE, 0, u64::MAX, 1 << 63, u64::from(u32::MAX)]);
    let at = near.wrapping_add(rng.below(256) as u64).wrapping_sub(128);
    match rng.below(4) {
        0 => at,
        1 => at & !63,
        2 => BASE + rng.below(LEN as usize) as u64,
        _ => (BASE + rng.below(LEN as usize) as u64) & !63,
    }
}

/// A word that is likely to mean something: a header, an offset, a small number, a position, an end of the numbers.
fn word(rng: &mut Rng) -> u64 {
    let kind = rng.below(11) as u64 | (rng.below(3) as u64) << 8;
    let len = *rng.pick(&[1, 8, 16, 48, 63, 64, 65, 0xffff]);
    let prev = *rng.pick(&[0u64, 1, 2, 3, 64, 1024, u64::from(u32::MAX)]);
    match rng.below(8) {
        0..=2 => kind | len << 16 | prev << 32,
        3 => offset(rng),
        4 => rng.below(3000) as u64,
        5 => u64::MAX - rng.below(3) as u64,
        6 => 1 << rng.below(64),
        _ => rng.next(),
    }
}

/// A payload of records, some of them good, some of them nearly, some cut off.
fn payload(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    let nearly = if rng.chance(60) { 0 } else { 30 };
    for _ in 0..rng.below(6) {
        match rng.below(8) {
            0 | 1 => {
                let len = 1 + rng.below(100);
                push_store(&mut out, BASE + rng.below(LEN as usize - len) as u64, &rng.bytes(len));
            }
            2 => {
                let (masked, lines) = (rng.chance(50), 1 + rng.below(5));
                out.extend(header(Kind::Bulk, if masked { MASKED } else { 0 }, lines as u16, 7).to_le_bytes());
                let inside = BASE + 64 * rng.below(64 - lines) as u64;
                out.extend(if rng.chance(nearly) { offset(rng) } else { inside }.to_le_bytes());
                out.extend(rng.bytes(lines * if masked { 72 } else { 64 }));
            }
            3 => {
                let rmw = Rmw::from_u8(1 + rng.below(13) as u8).unwrap_or(Rmw::Add);
                let op = AtomicOp::new(rmw, 1 << rng.below(5), u128::from(rng.next()));
                out.extend(header(Kind::Atomic, 0, 48, 0).to_le_bytes());
                let inside = BASE + rng.below(LEN as usize - 16) as u64;
                out.extend(if rng.chance(nearly) { offset(rng) } else { inside }.to_le_bytes());
                out.extend(bytemuck::bytes_of(&AtomicBody::new(rng.next(), op)));
            }
            4 | 5 => {
                let kind =
                    *rng.pick(&[Kind::Acquire, Kind::Release, Kind::Cancel, Kind::Arrive, Kind::Fence, Kind::Gone]);
                out.extend(header(kind, rng.below(2) as u8, 16, 0).to_le_bytes());
                out.extend((if rng.chance(nearly) { word(rng) } else { 0 }).to_le_bytes());
                let amount = if rng.chance(nearly) { *rng.pick(&[0, 32_768, u32::MAX]) } else { 1 };
                let body = SyncBody { token: rng.below(4) as u64, amount, process: rng.below(4) as u32 };
                out.extend(bytemuck::bytes_of(&body));
            }
            _ if !rng.chance(nearly) => {}
            _ => (0..1 + rng.below(6)).for_each(|_| out.extend(word(rng).to_le_bytes())),
        }
    }
    if rng.chance(nearly / 3) {
        let keep = rng.below(out.len() + 1);
        out.truncate(keep & !7);
    }
    out
}

fn frame(rng: &mut Rng, sent: u64) -> (FrameKind, FrameHeader, Vec<u8>) {
    let kind = *rng.pick(&[FrameKind::Records, FrameKind::Ack, FrameKind::Reply, FrameKind::Snapshot, FrameKind::Ping]);
    let bytes = match kind {
        FrameKind::Reply if rng.chance(90) => {
            let reply = Reply {
                token: word(rng),
                status: rng.next() as u32,
                width: *rng.pick(&[0, 1, 3, 8, 16, 17, u32::MAX]),
                offset: offset(rng),
                fence: word(rng),
                old: [rng.next(); 2],
                new: [rng.next(); 2],
            };
            bytemuck::bytes_of(&reply).to_vec()
        }
        FrameKind::Snapshot => {
            let words = rng.below(2000);
            rng.bytes(8 * words)
        }
        _ => payload(rng),
    };
    let to = if rng.chance(70) { sent } else { word(rng) };
    (kind, FrameHeader::new(kind, 1, 1, bytes.len(), offset(rng), to), bytes)
}

#[test]
fn an_arbiter_survives_any_bytes_in_the_shared_memory() {
    watched(|| {
        let mut counts = [0usize; 4];
        for seed in 0..1500 {
            let mut rng = Rng::new(seed);
            let area = SmallArea::boxed(1);
            let memory = Fenced(Cells::zeroed(16 * PAGE as usize));
            let mut replica = Replica::new();
            replica.attach(BASE, LEN);
            let log: SmallLog<'_> = area.log();
            let words = raw(&area);
            let everything = rng.chance(50);
            for _ in 0..150 {
                if everything && rng.chance(5) {
                    words.iter().for_each(|place| place.store(word(&mut rng), Relaxed));
                } else {
                    (0..1 + rng.below(40)).for_each(|_| rng.pick(words).store(word(&mut rng), Relaxed));
                }
                let producer = &area.control.producer;
                if rng.chance(60) {
                    // So that not every drain ends at once: a tail that could be.
                    producer.tail.store(replica.sent().wrapping_add(rng.below(RING + 2) as u64), Relaxed);
                    payload(&mut rng).as_chunks::<8>().0.iter().enumerate().for_each(|(at, word)| {
                        let place =
                            CONTROL + SEATS * 8 + 2 * INDEX + PAGES + ((replica.sent() as usize + at) & (RING - 1));
                        words[place].store(u64::from_le_bytes(*word), Relaxed);
                    });
                }
                if rng.chance(50) {
                    area.control.arbiter.acked.store(replica.acked(), Relaxed);
                }
                if rng.chance(30) {
                    let pair = u64::from(rng.chance(50)) << 63;
                    producer.intent.store(producer.tail.load(Relaxed).wrapping_add(1) | pair, Relaxed);
                }
                let mut out = Vec::new();
                match rng.below(5) {
                    0 => match replica.drain(&log, &mut out) {
                        Ok(_) => {
                            assert!(records(&out).all(|record| record.is_ok()), "what was drained was checked");
                            counts[0] += out.len();
                        }
                        Err(_) => replica = fresh(),
                    },
                    1 => {
                        // Held, asked for by one who has gone, biased; sensible or not.
                        let holder = rng.below(3) as u32;
                        let slot = *rng.pick(&[0, 1, 2, 0x7ffe, 0x7fff]);
                        let any = rng.next() as u32;
                        let word = *rng.pick(&[holder, slot << 16 | holder, BIASED | slot, any]);
                        producer.lock.store(word, Relaxed);
                        if log.lock().seize(|process| process == holder) == Seizure::Taken {
                            log.recover(&memory, |offset, len| replica.contains(offset, len));
                            log.lock().release();
                            counts[1] += 1;
                        }
                    }
                    2 => {
                        producer.lock.store(0, Relaxed);
                        let body = SyncBody { token: 0, amount: 0, process: 1 };
                        counts[2] += usize::from(log.try_submit(Kind::Gone, 0, 1, bytemuck::bytes_of(&body)));
                    }
                    3 => log.slots().iter().for_each(|slot: &Slot| slot.reclaim(rng.below(3) as u32)),
                    _ => {
                        producer.lock.store(0, Relaxed);
                        let (kind, header, bytes) = frame(&mut rng, replica.sent());
                        let frame = Frame { kind, header, payload: &bytes };
                        match replica.apply(&log, &memory, &frame, || log.lock().try_acquire(ARBITER)) {
                            Ok(_) => counts[3] += bytes.len(),
                            Err(_) => replica = fresh(),
                        }
                    }
                }
                let _ = log.ended();
            }
        }
        assert!(counts.iter().all(|count| *count > 1000), "hardly anything was tried: {counts:?}");
    });
}

/// What takes the place of a session that has ended.
fn fresh() -> Replica {
    let mut replica = Replica::new();
    replica.attach(BASE, LEN);
    replica
}

/// A chain that leads back one word at a time from a tail near the end of all numbers.
#[test]
fn a_chain_without_an_end_ends() {
    watched(|| {
        let area = SmallArea::boxed(1);
        let log: SmallLog<'_> = area.log();
        for tail in [u64::MAX, u64::MAX - 1, 1 << 62, RING as u64 * 3, 5] {
            for prev in [1u64, 2, 3] {
                raw(&area)[CONTROL..].iter().for_each(|place| place.store(tail, Relaxed));
                let ring = &raw(&area)[CONTROL + SEATS * 8 + 2 * INDEX + PAGES..];
                ring.iter().for_each(|place| place.store(header(Kind::Bulk, MASKED, 64, 0) | prev << 32, Relaxed));
                area.control.producer.tail.store(tail, Relaxed);
                area.control.arbiter.acked.store(0, Relaxed);
                assert_eq!(log.covered(BASE, 0), 0);
                let _ = log.covered(BASE, u64::MAX);
                let _ = log.try_submit(Kind::Gone, 0, 1, &[0; 16]);
                area.control.arbiter.acked.store(tail, Relaxed);
                let _ = log.try_submit(Kind::Gone, 0, 1, &[0; 16]);
            }
        }
    });
}

fn session() -> (Sequencer, [u16; 2]) {
    let mut sequencer = Sequencer::new("hostile", 1);
    let hosts = [(); 2].map(|()| sequencer.join().expect("there is room"));
    let mut out = Vec::new();
    let open = |name: &str, len| {
        let ty = TypeDesc { name: "Bytes".into(), size: 1, fingerprint: 1, fields: Vec::new() };
        Request::Open(OpenSegment { name: name.into(), len, ty, mode: OpenMode::OpenOrCreate, room: 0 })
    };
    // So that the segment that the records are about is where they think.
    sequencer.request(hosts[1], 1, open("first", BASE - 2 * PAGE), u64::MAX, &mut out);
    for host in hosts {
        sequencer.request(host, 1, open("second", LEN), u64::MAX, &mut out);
        for (name, kind) in [("s", SyncKind::Semaphore(1)), ("b", SyncKind::Barrier(2))] {
            sequencer.request(host, 1, Request::Sync(OpenSync { name: name.into(), kind, process: 1 }), 0, &mut out);
        }
    }
    assert_eq!(sequencer.bytes(1).len() as u64, LEN);
    (sequencer, hosts)
}

#[test]
fn a_sequencer_survives_any_records() {
    watched(|| {
        let (mut good, mut bad) = (0, 0);
        for seed in 0..3000 {
            let mut rng = Rng::new(seed);
            let (mut sequencer, hosts) = session();
            let mut positions = [0u64; 2];
            for _ in 0..40 {
                let at = rng.below(2);
                let bytes = payload(&mut rng);
                let mut out = Vec::new();
                let mut from = positions[at];
                let mut to = from + bytes.len() as u64 / 8;
                match rng.below(60) {
                    0 => from = word(&mut rng),
                    1 => to = word(&mut rng),
                    _ => {}
                }
                match sequencer.records(hosts[at], from, to, &bytes, &mut out) {
                    Ok(()) => {
                        assert_eq!((from, to), (positions[at], positions[at] + bytes.len() as u64 / 8));
                        positions[at] = to;
                        good += 1;
                    }
                    Err(why) => {
                        bad += 1;
                        assert!(!matches!(why, Misbehaved::Stranger(_)));
                        sequencer.leave(hosts[at], true, &mut out);
                        assert_eq!(
                            sequencer.records(hosts[at], from, to, &bytes, &mut out),
                            Err(Misbehaved::Stranger(hosts[at]))
                        );
                        break;
                    }
                }
                let (semaphores, barriers) = sequencer.sync();
                semaphores.check().and_then(|()| barriers.check()).expect("the invariants hold");
                // What goes to the other host is all good records, inside of the segments.
                for output in out {
                    let dsm_core::sequencer::Body::Input(_, range) = output.body else { continue };
                    for record in records(&bytes[range]) {
                        let record: Record<'_> = record.expect("forwarded records were checked");
                        let (start, len) = record.extent().expect("only bytes are forwarded");
                        assert!(start >= PAGE && start + len <= BASE + LEN);
                    }
                }
            }
        }
        assert!(good > 2000 && bad > 1000, "{good} good and {bad} bad batches");
    });
}

/// Units can be posted by one and taken by another without end.
#[test]
fn units_held_do_not_overflow() {
    watched(|| {
        let (mut sequencer, hosts) = session();
        let mut bytes = Vec::new();
        for (kind, amount) in [(Kind::Release, 32_767u32), (Kind::Acquire, 32_767)] {
            bytes.extend(header(kind, 0, 16, 0).to_le_bytes());
            bytes.extend(0u64.to_le_bytes());
            bytes.extend(bytemuck::bytes_of(&SyncBody { token: 0, amount, process: 1 }));
        }
        // The poster is another process, so that nothing is given back.
        bytes[28..32].copy_from_slice(&2u32.to_le_bytes());
        let (batch, words) = (bytes.repeat(1000), bytes.len() as u64 / 8 * 1000);
        for round in 0..135 {
            let mut out = Vec::new();
            sequencer.records(hosts[0], round * words, (round + 1) * words, &batch, &mut out).expect("all is allowed");
        }
        assert_eq!(sequencer.sync().0.held(0), u32::MAX);
    });
}

#[test]
fn a_reader_survives_any_bytes() {
    watched(|| {
        for seed in 0..400 {
            let mut rng = Rng::new(seed);
            let mut reader = Reader::new();
            'connection: for _ in 0..50 {
                let (_, header, bytes) = frame(&mut rng, 0);
                let mut sent = bytemuck::bytes_of(&header).to_vec();
                sent.extend(bytes);
                if rng.chance(5) {
                    let at = rng.below(sent.len());
                    sent[at] ^= 1 << rng.below(8);
                }
                for piece in sent.chunks(1 + rng.below(5000)) {
                    let space = reader.space();
                    let count = piece.len().min(space.len());
                    space[..count].copy_from_slice(&piece[..count]);
                    reader.received(count);
                    loop {
                        match reader.next() {
                            Ok(Some(frame)) => assert_eq!(frame.header.len as usize, frame.payload.len()),
                            Ok(None) => break,
                            Err(_) => break 'connection,
                        }
                    }
                }
            }
        }
    });
}

/// Lines of a bulk record at the end of all offsets.
#[test]
fn the_last_lines_of_all_offsets_are_lines() {
    let mut bytes = header(Kind::Bulk, 0, 2, 0).to_le_bytes().to_vec();
    bytes.extend((u64::MAX - 127).to_le_bytes());
    bytes.extend([7; 128]);
    assert!(bytes.len() <= LONGEST * 8);
    let record = Record::parse(&bytes).expect("its shape is good");
    let offsets: Vec<u64> = record.lines().map(|(offset, ..)| offset).collect();
    assert_eq!(offsets, [u64::MAX - 127, u64::MAX - 63]);
}
