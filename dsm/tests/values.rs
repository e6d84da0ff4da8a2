//! Texts, lists and pointers: the same on two hosts, and whatever bytes another process stores.
#![allow(missing_docs, reason = "test types")]

mod common;

use common::{Cluster, PATIENCE, eventually};
use dsm::prelude::*;
use dsm::typed::{BadPointer, CapacityError, InvalidText};
use dsm::{List, Pointer, Text};

#[dsm::shared]
pub struct Player {
    pub name: Text<24>,
    pub score: u32,
    pub items: List<u16, 4>,
    pub marks: List<[u8; 3], 4>,
}

#[dsm::shared]
pub struct Node {
    pub value: u64,
    pub next: Pointer<Node>,
}

/// Overwrites a value with noise, as any process may.
fn scramble<T: SharedType>(value: Shared<'_, T>, state: &mut u64) {
    for at in 0..size_of::<T>() {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // SAFETY: within the value; of these types any bytes are one. The store traps.
        unsafe { value.as_ptr().cast::<u8>().wrapping_add(at).write_volatile((*state >> 40) as u8) };
    }
}

#[test]
fn texts_and_lists_are_the_same_on_both_hosts() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "values"), cluster.join(1, "values"));
    let [here, there] = [&a, &b].map(|session| session.open::<Player>("player").unwrap());
    assert_eq!((here.name().get().unwrap().as_str(), here.name().is_empty()), ("", true));
    here.name().set("Grüße").unwrap();
    here.name().push_str(" aus A").unwrap();
    eventually("the name arrives", || there.name().get().is_ok_and(|name| name == "Grüße aus A"));
    let long = "x".repeat(25);
    assert_eq!(there.name().set(&long), Err(CapacityError { needed: 25, capacity: 24 }));
    assert_eq!(there.name().push_str(&long[..12]), Err(CapacityError { needed: 25, capacity: 24 }));
    there.set_name(&Text::try_from("B").unwrap());
    eventually("the other name arrives", || here.name().get_lossy() == "B" && here.name().len() == 1);
    {
        let lock = a.semaphore("lock", 1).unwrap();
        let _g = lock.lock_timeout(PATIENCE).unwrap();
        here.items().extend_from_slice(&[1, 2, 3]).unwrap();
        here.items().push(4).unwrap();
        assert_eq!(here.items().push(5), Err(CapacityError { needed: 5, capacity: 4 }));
        here.marks().push([1, 2, 3]).unwrap();
        here.marks().as_slice().at(0).set(1, 9);
    }
    {
        let _g = b.semaphore("lock", 1).unwrap().lock_timeout(PATIENCE).unwrap();
        assert_eq!((there.items().to_vec(), there.marks().to_vec()), (vec![1, 2, 3, 4], vec![[1, 9, 3]]));
        assert_eq!((there.items().pop(), there.items().get(2), there.items().get(3)), (Some(4), Some(3), None));
        there.items().truncate(1);
        there.marks().clear();
        assert_eq!(there.marks().pop(), None);
        let mut hole = there.hole().unwrap();
        hole.items.push(77).unwrap();
        hole.name = Text::try_from("from a hole").unwrap();
        hole.fill().unwrap();
    }
    eventually("the hole arrives", || here.name().get_lossy() == "from a hole" && *here.items().to_vec() == [1, 77]);
    assert!(here.items().at(1).is_some_and(|item| item.get() == 77) && here.items().at(2).is_none());
    assert_eq!(here.items().read_only().to_vec(), [1, 77]);
    // As values at the top.
    a.open::<Text<100>>("motd").unwrap().set("hello").unwrap();
    eventually("hello", || b.open::<Text<100>>("motd").unwrap().get().unwrap() == "hello");
    assert!(matches!(b.open::<Text<101>>("motd"), Err(Error::TypeDiffers(_))));
    assert!(matches!(b.open::<List<u8, 100>>("motd"), Err(Error::TypeDiffers(_))));
    a.open::<List<f64, 3>>("floats").unwrap().push(0.5).unwrap();
    eventually("a float", || b.open::<List<f64, 3>>("floats").unwrap().to_vec() == [0.5]);
    drop((a, b));
}

#[test]
fn whatever_is_stored_texts_and_lists_stay_within_bounds() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "noise");
    let players = a.array::<Player>("players", 3).unwrap();
    let player = players.at(1);
    let seed = 0x5eed;
    let mut state = seed;
    let mut refused = 0;
    for round in 0..150 {
        scramble(player, &mut state);
        match player.name().get() {
            Ok(text) => assert!(text.len() <= 24),
            Err(InvalidText::Length(len)) => assert!(len > 24, "seed {seed:#x}, round {round}"),
            Err(_) => refused += 1,
        }
        assert!(player.name().len() <= 24 && player.name().get_lossy().chars().count() <= 24);
        assert!(player.items().len() <= 4 && player.items().to_vec().len() == player.items().len());
        let _ =
            (player.items().pop(), player.items().push(1), player.marks().push([1; 3]), player.name().push_str("1"));
        player.items().truncate(round);
        assert!(player.load().items.len() <= 4);
    }
    assert!(refused < 150);
    // Nothing was stored beside it.
    for other in [players.at(0), players.at(2)] {
        assert_eq!((other.name().get().unwrap().as_str(), other.score(), other.items().len()), ("", 0, 0));
        assert!(other.marks().is_empty());
    }
    drop(a);
}

#[test]
fn pointers_lead_to_the_same_value_on_every_host() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "list"), cluster.join(1, "list"));
    let (first, nodes) = (a.open::<Node>("first").unwrap(), a.array::<Node>("nodes", 64).unwrap());
    first.set_value(1000);
    let mut last = first;
    for at in (0..64).rev() {
        let node = nodes.at(at * 37 % 64);
        node.set_value(at as u64);
        last.next().point_to(Some(node)).unwrap();
        last = node;
    }
    last.set_next(Pointer::null());
    a.fence().unwrap();
    let there = b.open::<Node>("first").unwrap();
    // The segment behind the first pointer has not been opened by this process.
    eventually("the pointer arrives", || !there.next().load().is_null());
    assert!(matches!(there.next().follow(), Err(BadPointer::Outside(_))));
    b.array::<Node>("nodes", 64).unwrap();
    let mut found = Vec::new();
    let mut at = Some(there);
    while let Some(node) = at {
        found.push(node.value());
        at = node.next().follow().unwrap();
    }
    let values: Vec<u64> = std::iter::once(1000).chain((0..64).rev()).collect();
    assert_eq!(found, values);
    let pointer = Pointer::to(nodes.at(3));
    let resolved = pointer.resolve(&b).unwrap().unwrap();
    assert_eq!((resolved.value(), pointer), (nodes.at(3).value(), Pointer::to(resolved)));
    let other = cluster.join(0, "other");
    let elsewhere = other.open::<Node>("first").unwrap();
    assert_eq!(first.next().point_to(Some(elsewhere)), Err(BadPointer::OtherSession));
    drop((a, b, other));
}

#[test]
fn whatever_is_stored_pointers_lead_nowhere_else() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "garbage");
    let (node, words) = (a.open::<Node>("node").unwrap(), a.array::<u64>("words", 8).unwrap());
    let mut state = 7;
    for _ in 0..50 {
        scramble(node.next(), &mut state);
        assert!(matches!(node.next().follow(), Err(BadPointer::OtherType(_))));
    }
    // One that was made for another type.
    let foreign = a.open::<Pointer<u64>>("pointer").unwrap();
    foreign.point_to(Some(words.at(2))).unwrap();
    words.set(2, 5);
    assert_eq!(foreign.follow().unwrap().unwrap().get(), 5);
    let stored = node.next().as_ptr().cast::<u64>();
    let copy = |at: usize| {
        // SAFETY: a word of a pointer in the session.
        let word = unsafe { foreign.as_ptr().cast::<u64>().wrapping_add(at).read_volatile() };
        // SAFETY: as above; the store traps.
        unsafe { stored.wrapping_add(at).write_volatile(word) };
    };
    (0..2).for_each(copy);
    assert!(matches!(node.next().follow(), Err(BadPointer::OtherType(_))));
    // The right type, wrong places: beside its segment, at its end, not aligned, at the end of everything.
    node.next().point_to(Some(node)).unwrap();
    assert!(Shared::ptr_eq(node.next().follow().unwrap().unwrap(), node));
    let own = node.next().as_ptr().cast::<u64>();
    // SAFETY: the pointer's first word; the stores trap.
    let put = |offset: u64| unsafe { own.write_volatile(offset) };
    // SAFETY: as above.
    let here = unsafe { own.read_volatile() };
    for (offset, expected) in [
        (here + 4096 - 16, BadPointer::Outside(here + 4096 - 16)),
        (here - 8, BadPointer::Outside(here - 8)),
        (here + 4, BadPointer::Misaligned(here + 4)),
        (u64::MAX - 7, BadPointer::Outside(u64::MAX - 7)),
        (1 << 40, BadPointer::Outside(1 << 40)),
    ] {
        put(offset);
        assert_eq!(node.next().follow().map(|_| ()), Err(expected));
    }
    put(0);
    assert!(node.next().follow().unwrap().is_none());
    drop(a);
}
