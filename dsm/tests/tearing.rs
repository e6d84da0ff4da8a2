//! Rule 4 of the memory model: an aligned word of 1, 2, 4, 8 or 16 bytes is never seen torn, whichever way it is stored
//! (among others, at odd places of a slice, by string instructions, by a hole that changes a part of it) and read, on
//! this host and on another.

mod common;

use common::{Cluster, eventually};
use dsm::Integer;
use dsm::prelude::*;
use std::fmt::LowerHex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Elements of an array. Odd, so that the last ones are the tail of a copy.
const LEN: usize = 23;
const ROUNDS: usize = 600;

trait Word:
    Integer + PartialEq + LowerHex + From<u16> + std::ops::Shl<u32, Output = Self> + std::ops::Sub<Output = Self>
{
}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}
impl Word for u128 {}

/// Two values of one type, all of whose bytes differ, or all but the last: half of the one and half of the other is
/// neither.
fn pair<T: Word>() -> [T; 2] {
    let one = T::from(1) << (size_of::<T>() as u32 * 4);
    [one - T::from(1), one]
}

/// Reads in every way until `stop`: nothing may be seen but the two values.
fn watch<T: Word>(words: Slice<'_, T>, stop: &AtomicBool, rounds: &AtomicUsize) {
    let [one, other] = pair::<T>();
    let check = |how: &str, at: usize, found: T| assert!(found == one || found == other, "{how} {at}: {found:x}");
    while !stop.load(Relaxed) {
        (0..LEN).for_each(|at| check("get", at, words.get(at)));
        words.to_vec().into_iter().enumerate().for_each(|(at, found)| check("to_vec", at, found));
        // Begins and ends at odd places.
        let part = words.range(1..LEN - 1).to_vec();
        part.into_iter().enumerate().for_each(|(at, found)| check("range", at + 1, found));
        rounds.fetch_add(1, Relaxed);
    }
}

fn never_torn<T: Word>(name: &str, strings: impl Fn(*mut T, T, usize)) {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, name), cluster.join(1, name));
    let (here, there) = (a.array::<T>("w", LEN).unwrap(), b.array::<T>("w", LEN).unwrap());
    let values = pair::<T>();
    here.fill(values[0]);
    eventually("all have the first value", || there.to_vec() == vec![values[0]; LEN]);
    let (stop, rounds) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    let stop = &stop;
    std::thread::scope(|scope| {
        let readers = [(here, &rounds[0]), (there, &rounds[1])];
        let readers = readers.map(|(words, rounds)| scope.spawn(move || watch(words, stop, rounds)));
        let mut round = 0;
        let seen = || rounds.iter().map(|seen| seen.load(Relaxed)).min().unwrap_or(0);
        // As often as it takes for both readers to have looked, whatever the machine's load is.
        while (round < ROUNDS || seen() < 50) && !readers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
            let value = values[(round / 5 + 1) % 2];
            match round % 5 {
                0 => here.range(1..4).copy_from_slice(&[value; 3]),
                1 => here.range(4..LEN - 1).fill(value),
                2 => strings(here.as_ptr().wrapping_add(1), value, LEN - 2),
                3 => {
                    let mut hole = here.range(3..LEN).hole().unwrap();
                    hole.iter_mut().for_each(|word| *word = value);
                    hole.fill().unwrap();
                }
                _ => (0..LEN).for_each(|at| here.set(at, value)),
            }
            round += 1;
            if round % 16 == 0 {
                a.fence().unwrap();
            }
        }
        stop.store(true, Relaxed);
    });
    drop((a, b));
}

#[test]
fn two_bytes() {
    never_torn::<u16>("torn2", |to, value, count| {
        // SAFETY: within the array; traps.
        unsafe {
            std::arch::asm!("rep stosw", inout("rdi") to => _, inout("rcx") count => _, in("ax") value, options(nostack));
        }
    });
}

#[test]
fn four_bytes() {
    never_torn::<u32>("torn4", |to, value, count| {
        // SAFETY: within the array; traps.
        unsafe {
            std::arch::asm!("rep stosd", inout("rdi") to => _, inout("rcx") count => _, in("eax") value, options(nostack));
        }
    });
}

#[test]
fn eight_bytes() {
    never_torn::<u64>("torn8", |to, value, count| {
        // SAFETY: within the array; traps.
        unsafe {
            std::arch::asm!("rep stosq", inout("rdi") to => _, inout("rcx") count => _, in("rax") value, options(nostack));
        }
    });
}

#[test]
fn sixteen_bytes() {
    never_torn::<u128>("torn16", |to, value, count| {
        for at in 0..count {
            // SAFETY: within the array, and aligned; traps.
            unsafe {
                std::arch::asm!(
                    "movups {value}, [{from}]", "movaps [{to}], {value}",
                    value = out(xmm_reg) _, from = in(reg) &raw const value, to = in(reg) to.wrapping_add(at),
                    options(nostack)
                );
            }
        }
    });
}
