//! What system calls store: refused in the view, and through `dsm::io` on the other host.
#![allow(missing_docs, reason = "test types")]

mod common;

use common::{Cluster, eventually};
use dsm::io::{fill_with, read_at_into, read_exact_at_into, read_exact_into, read_into, write_all_from, write_from};
use dsm::prelude::*;
use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

#[dsm::shared]
pub struct Header {
    pub magic: u32,
    pub count: u32,
    pub sums: [u64; 30],
}

#[test]
fn the_kernel_may_not_store_to_the_view_and_may_through_io() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "efault"), cluster.join(1, "efault"));
    let (here, there) = (a.array::<u8>("bytes", 8192).unwrap(), b.array::<u8>("bytes", 8192).unwrap());
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"written by the kernel").unwrap();
    let efault = |result: isize| {
        assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EFAULT)));
    };
    // SAFETY: asks the kernel to store to a read-only mapping, which it refuses.
    efault(unsafe { libc::read(reader.as_raw_fd(), here.as_ptr().cast(), 21) });
    // SAFETY: as above.
    efault(unsafe { libc::getrandom(here.as_ptr().cast(), 16, 0) });
    let (one, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    one.send_to(b"lost datagram", other.local_addr().unwrap()).unwrap();
    // SAFETY: as above.
    efault(unsafe { libc::recv(other.as_raw_fd(), here.as_ptr().cast(), 100, 0) });
    assert!(here.iter().all(|byte| byte == 0));

    // What the pipe held is still there: nothing was consumed.
    assert_eq!(read_into(&mut reader, here.range(100..200)).unwrap(), 21);
    one.send_to(b"datagram", other.local_addr().unwrap()).unwrap();
    assert_eq!(fill_with(here.range(4090..), |buffer| other.recv(buffer)).unwrap(), 8);
    eventually("what was read arrives", || there.range(4090..4098).to_vec() == b"datagram");
    assert_eq!(there.range(100..121).to_vec(), b"written by the kernel");
    // The other way no buffer is needed: the kernel may load.
    // SAFETY: the bytes are mapped; the kernel copies them.
    assert_eq!(unsafe { libc::write(writer.as_raw_fd(), there.as_ptr().wrapping_add(100).cast(), 21) }, 21);
    let mut back = [0; 21];
    reader.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"written by the kernel");
    drop((a, b));
}

/// Gives what it is told to, piece by piece.
struct Script(Vec<std::io::Result<&'static [u8]>>);

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // What is not read must not be stored, so it is made to look different.
        buffer.fill(0xee);
        let next = if self.0.is_empty() { Ok(&b""[..]) } else { self.0.remove(0) }?;
        let count = next.len().min(buffer.len());
        buffer[..count].copy_from_slice(&next[..count]);
        Ok(count)
    }
}

#[test]
fn only_what_was_read_is_stored() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "partial"), cluster.join(1, "partial"));
    let (here, there) = (a.array::<u8>("bytes", 4096).unwrap(), b.array::<u8>("bytes", 4096).unwrap());
    let done = a.open::<u64>("done").unwrap();
    let seen = b.open::<u64>("done").unwrap();
    let same = |expected: &[u8], from: usize| {
        done.set(done.get() + 1);
        eventually("it arrives", || seen.get() == done.get());
        for bytes in [here, there] {
            assert_eq!(bytes.range(from..from + expected.len()).to_vec(), expected);
            assert!(
                bytes
                    .to_vec()
                    .iter()
                    .enumerate()
                    .all(|(at, byte)| { *byte == 7 || (from..from + expected.len()).contains(&at) })
            );
        }
        here.fill(7);
    };
    here.fill(7);
    // A read that returns less.
    assert_eq!(read_into(&mut Script(vec![Ok(b"abc")]), here.range(10..1000)).unwrap(), 3);
    same(b"abc", 10);
    // The end, and an error: nothing at all.
    assert_eq!(read_into(&mut Script(vec![]), here).unwrap(), 0);
    let failure = || Err(std::io::Error::from(ErrorKind::ConnectionReset));
    assert_eq!(read_into(&mut Script(vec![failure()]), here).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(read_into(&mut Script(vec![Ok(b"x")]), here.range(5..5)).unwrap(), 0, "there is no room");
    same(b"", 0);
    // All or an error, with what came before it stored; interruptions do not count.
    let interrupted = || Err(std::io::Error::from(ErrorKind::Interrupted));
    let pieces = vec![Ok(&b"one, "[..]), interrupted(), Ok(b"two, "), interrupted(), Ok(b"three")];
    read_exact_into(&mut Script(pieces), here.range(1000..1015)).unwrap();
    same(b"one, two, three", 1000);
    let error = read_exact_into(&mut Script(vec![Ok(b"one, ")]), here.range(63..163)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    same(b"one, ", 63);
    let error = read_exact_into(&mut Script(vec![Ok(b"one"), failure(), Ok(b"two")]), here.range(64..)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    same(b"one", 64);
    drop((a, b));
}

#[test]
fn a_reader_that_lies_is_found_out() {
    struct Liar;
    impl Read for Liar {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            Ok(buffer.len() + 1)
        }
    }
    let cluster = Cluster::new();
    let a = cluster.join(0, "liar");
    let here = a.array::<u8>("bytes", 100).unwrap();
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read_into(&mut Liar, here)));
    assert!(read.unwrap_err().downcast::<String>().unwrap().contains("101 bytes were read into a buffer of 100"));
    assert!(here.iter().all(|byte| byte == 0));
    drop(a);
}

#[test]
fn files_of_any_size_at_any_place() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "file"), cluster.join(1, "file"));
    let len = (3 << 20) + 4711;
    let (here, there) = (a.array::<u8>("file", len + 64).unwrap(), b.array::<u8>("file", len + 64).unwrap());
    let pattern: Vec<u8> = (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&pattern).unwrap();
    // Stored whatever was there before: also what is the same, so that it counts as written now.
    for (round, at) in [0usize, 13].into_iter().enumerate() {
        read_exact_at_into(&file, here.range(at..at + len), 0).unwrap();
        eventually("the file arrives", || there.range(at..at + len).to_vec() == pattern);
        assert_eq!(there.get(at + len), 0, "round {round}");
    }
    assert_eq!(read_at_into(&file, here.range(..100), len as u64 - 5).unwrap(), 5);
    assert_eq!(
        read_exact_at_into(&file, here.range(..100), len as u64 - 5).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );
    eventually("its end arrives", || there.range(..5).to_vec() == pattern[len - 5..]);
    // Out again.
    let mut out = Vec::new();
    write_all_from(&mut out, here.range(13..13 + len)).unwrap();
    assert!(out == pattern);
    let mut short = [0; 10];
    assert_eq!(write_from(&mut &mut short[..], here.range(..100)).unwrap(), 10);
    drop((a, b));
}

#[test]
fn structs_and_wide_elements() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "struct"), cluster.join(1, "struct"));
    let (here, there) = (a.open::<Header>("header").unwrap(), b.open::<Header>("header").unwrap());
    let bytes: Vec<u8> = (0..size_of::<Header>()).map(|at| at as u8).collect();
    read_exact_into(&mut &bytes[..], here).unwrap();
    eventually("it arrives", || there.sums().get(29) == u64::from_le_bytes(bytes[240..].try_into().unwrap()));
    assert_eq!(there.magic(), 0x0302_0100);
    // A read that ends within an element.
    assert_eq!(read_into(&mut &[0xff; 12][..], here.sums()).unwrap(), 12);
    eventually("it arrives", || there.sums().get(1) == 0x1716_1514_ffff_ffff);
    let mut out = Vec::new();
    write_all_from(&mut out, there).unwrap();
    assert_eq!(out.len(), 248);
    drop((a, b));
}

#[test]
fn what_others_store_behind_a_short_read_survives() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "beside"), cluster.join(1, "beside"));
    let (here, there) = (a.array::<u8>("bytes", 256).unwrap(), b.array::<u8>("bytes", 256).unwrap());
    let count = fill_with(here, |buffer| {
        // Meanwhile, on the other host: before, in, and behind what will have been read.
        there.fill(9);
        eventually("it is here", || here.get(255) == 9);
        buffer[..100].fill(5);
        Ok(100)
    });
    assert_eq!(count.unwrap(), 100);
    eventually("it arrives", || there.get(99) == 5);
    for bytes in [here, there] {
        assert!(bytes.iter().enumerate().all(|(at, byte)| byte == if at < 100 { 5 } else { 9 }));
    }
    drop((a, b));
}

#[test]
fn the_end_of_the_session_is_an_error_of_both_kinds() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "over"), cluster.join(1, "over"));
    let there = b.array::<u8>("bytes", 256).unwrap();
    // SAFETY: sends a signal to the arbiter of host 1, which this test has started.
    unsafe { libc::kill(cluster.arbiter_pid(1), libc::SIGKILL) };
    eventually("it is noticed", || b.ended().is_some());
    let error = read_into(&mut &[1; 10][..], there).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(matches!(Error::from(error), Error::ArbiterGone { .. }));
    let error = Error::from(std::io::Error::from(ErrorKind::NotFound));
    assert!(matches!(&error, Error::System { source, .. } if source.kind() == ErrorKind::NotFound), "{error}");
    drop((a, b));
    let _ = std::fs::remove_dir_all(cluster.dir(1));
}
