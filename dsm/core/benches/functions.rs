//! Functions alone: what one record costs at each station of its way. `cargo bench -p dsm-core`.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dsm_core::log::{Area, Door, Writer};
use dsm_core::memory::Mapped;
use dsm_core::record::push_store;
use dsm_core::replica::Replica;
use dsm_core::segment::{OpenMode, OpenSegment, TypeDesc};
use dsm_core::sequencer::Sequencer;
use dsm_core::wire::control::Request;
use dsm_core::wire::{Frame, FrameHeader, FrameKind};
use std::hint::black_box;

struct Alone;

impl Writer for Alone {
    fn number(&self) -> u32 {
        1
    }
    fn ring_doorbell(&self) {}
    fn stalled(&self) {
        unreachable!("nobody else uses the log")
    }
}

const RECORDS: usize = 4096;

/// Single-word stores, as they lie in a frame.
fn stores() -> Vec<u8> {
    let mut payload = Vec::new();
    (0..RECORDS as u64).for_each(|at| push_store(&mut payload, 4096 + at % 512 * 8, &at.to_le_bytes()));
    payload
}

fn benches(c: &mut Criterion) {
    let area = Area::<{ 1 << 16 }, 4096, 256, 16>::boxed(1);
    let log = area.log();
    let mut backing = vec![0u64; 4096];
    // SAFETY: all offsets below lie within the backing's 32 KiB.
    let memory = unsafe { Mapped::new(backing.as_mut_ptr().cast()) };

    let mut acked = 0;
    c.bench_function("log: store a word", |b| {
        b.iter(|| {
            log.store(&memory, &Alone, Door::Direct, black_box(4096), &black_box(7u64).to_le_bytes());
            acked += 3;
            log.acknowledge(acked);
        });
    });

    c.bench_function("log: store a word, with nothing to wait for", |b| {
        b.iter(|| {
            let word = black_box(7u64).to_le_bytes();
            if !log.try_store_word(&memory, &Alone, Door::Direct, black_box(4096), word) {
                // Looks how far the acknowledgements are.
                log.store(&memory, &Alone, Door::Direct, 4096, &word);
            }
            acked += 3;
            log.acknowledge(acked);
        });
    });

    let payload = stores();
    let mut group = c.benchmark_group("a batch of single words");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let mut sequencer = Sequencer::new("bench", 1);
    let (mut out, host) = (Vec::new(), sequencer.join().unwrap());
    sequencer.join().unwrap();
    let ty = TypeDesc { name: "[u64]".into(), size: 8, fingerprint: 1, fields: Vec::new() };
    let open = OpenSegment { name: "s".into(), len: 8192, ty, mode: OpenMode::CreateNew, room: 0 };
    sequencer.request(host, 1, Request::Open(open), u64::MAX, &mut out);
    let mut from = 0;
    group.bench_function("sequencer: order", |b| {
        b.iter(|| {
            out.clear();
            let to = from + payload.len() as u64 / 8;
            sequencer.records(host, from, to, black_box(&payload), &mut out).unwrap();
            from = to;
        });
    });
    let mut replica = Replica::new();
    replica.attach(4096, 8192);
    let header = FrameHeader::new(FrameKind::Records, 2, 1, payload.len(), 0, 0);
    group.bench_function("replica: apply", |b| {
        b.iter(|| {
            let frame = Frame { kind: FrameKind::Records, header, payload: black_box(&payload) };
            replica.apply(&log, &memory, &frame, || log.lock().try_acquire(2)).unwrap();
        });
    });
    group.finish();

    let (old, mut new) = (vec![1u8; 64 << 10], vec![1u8; 64 << 10]);
    new.iter_mut().step_by(100).for_each(|byte| *byte = 2);
    let mut group = c.benchmark_group("twin and diff of 64 KiB");
    group.throughput(Throughput::Bytes(64 << 10));
    group.bench_function("every hundredth byte changed", |b| {
        b.iter(|| {
            dsm_core::diff::changes(0, black_box(&new), &old, |_, masks, _| {
                black_box(masks.len());
            })
        });
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
