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
    assert_eq!((here.name().capacity(), here.items().capacity(), here.marks().capacity()), (24, 4, 4));
    assert_eq!((Text::<24>::default().capacity(), List::<u16, 4>::default().capacity()), (24, 4));
    here.name().set("Grüße").unwrap();
    here.name().push_str(" aus A").unwrap();
    eventually("the name arrives", || there.name().get().is_ok_and(|name| name == "Grüße aus A"));
    let long = "x".repeat(25);
    let room = |full: CapacityError| (full.needed, full.capacity);
    assert_eq!(there.name().set(&long).map_err(room), Err((25, 24)));
    assert_eq!(there.name().push_str(&long[..12]).map_err(room), Err((25, 24)));
    there.set_name(&Text::try_from("B").unwrap());
    eventually("the other name arrives", || here.name().get_lossy() == "B" && here.name().len() == 1);
    {
        let lock = a.semaphore("lock", 1).unwrap();
        let _g = lock.lock_timeout(PATIENCE).unwrap();
        here.items().extend_from_slice(&[1, 2, 3]).unwrap();
        here.items().push(4).unwrap();
        assert_eq!(here.items().push(5).map_err(room), Err((5, 4)));
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
    for round in 0..150 {
        scramble(player, &mut state);
        match player.name().get() {
            Ok(text) => assert!(text.len() <= 24),
            Err(InvalidText::Length(len)) => assert!(len > 24, "seed {seed:#x}, round {round}"),
            Err(error) => panic!("lengths at random are too long, but for one in millions: {error}"),
        }
        assert!(player.name().len() <= 24 && player.name().get_lossy().chars().count() <= 24);
        assert!(player.items().len() <= 4 && player.items().to_vec().len() == player.items().len());
        let _ =
            (player.items().pop(), player.items().push(1), player.marks().push([1; 3]), player.name().push_str("1"));
        player.items().truncate(round);
        assert!(player.load().items.len() <= 4);
    }
    // Nothing was stored beside it.
    for other in [players.at(0), players.at(2)] {
        assert_eq!((other.name().get().unwrap().as_str(), other.score(), other.items().len()), ("", 0, 0));
        assert!(other.marks().is_empty());
    }
    drop(a);
}

/// A text or a list that could have been stored by a program with a bug: a length that is possible, at its edge, or not,
/// and contents that are whatever they are.
#[test]
fn lengths_that_are_possible_with_contents_that_are_not() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "lengths");
    let player = a.open::<Player>("player").unwrap();
    let mut state = 0x5eed;
    let (mut texts, mut no_texts, mut lists) = (0, 0, [0; 5]);
    for round in 0..400u32 {
        scramble(player, &mut state);
        let (text_len, list_len) = (round % 27, round % 6);
        let text = player.name().as_ptr().cast::<u8>();
        for at in 0..4 {
            // SAFETY: the length of the text; the store traps.
            unsafe { text.wrapping_add(at).write_volatile(text_len.to_le_bytes()[at]) };
        }
        if round % 3 == 0 {
            for at in 0..24 {
                // SAFETY: the bytes of the text, of a character of two bytes each.
                unsafe { text.wrapping_add(4 + at).write_volatile("ß".as_bytes()[at % 2]) };
            }
        }
        let list = player.items().as_ptr().cast::<u8>();
        for at in 0..16 {
            // SAFETY: the length of the list.
            unsafe { list.wrapping_add(at).write_volatile(u128::from(list_len).to_le_bytes()[at]) };
        }
        match player.name().get() {
            Ok(text) => {
                assert_eq!(text.len(), text_len as usize);
                texts += u32::from(text_len > 0);
            }
            Err(InvalidText::Length(len)) => assert!(len == text_len && len > 24),
            Err(InvalidText::Utf8(_)) => {
                assert!((1..=24).contains(&text_len));
                assert!(player.name().get_lossy().contains('\u{fffd}'));
                no_texts += 1;
            }
            Err(other) => panic!("{other}"),
        }
        let items = player.items().to_vec();
        let found = player.load().items;
        assert_eq!((items.len(), &*items), (list_len.min(4) as usize, &*found));
        lists[items.len()] += 1;
        // It goes on from there.
        let pushed = player.items().push(77);
        assert_eq!(pushed.is_ok(), items.len() < 4);
        assert_eq!(player.items().pop(), Some(if pushed.is_ok() { 77 } else { items[3] }));
    }
    assert!(texts > 50 && no_texts > 100 && lists.iter().all(|count| *count > 50), "{texts} {no_texts} {lists:?}");
    drop(a);
}

#[test]
fn a_pointer_is_the_old_one_or_the_new_one() {
    const ROUNDS: u64 = 400;
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "pair"), cluster.join(1, "pair"));
    let [(way, nodes), (way_there, nodes_there)] =
        [&a, &b].map(|session| (session.open::<Node>("way").unwrap(), session.array::<Node>("nodes", 4).unwrap()));
    nodes.handles().zip(1..).for_each(|(node, value)| node.set_value(value));
    a.fence().unwrap();
    eventually("the nodes arrive", || nodes_there.at(3).value() == 4);
    let (mut seen, done) = (0, std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers = [way, way_there].map(|way| {
            let done = &done;
            scope.spawn(move || {
                let mut seen = 0u64;
                while !done.load(SeqCst) {
                    match way.next().follow() {
                        Ok(Some(node)) => assert!((1..=4).contains(&node.value())),
                        Ok(None) => seen += 1,
                        Err(bad) => panic!("{bad}"),
                    }
                }
                seen
            })
        });
        for round in 0..ROUNDS {
            let (way, node) =
                if round % 2 == 0 { (way, nodes.at(round as usize % 4)) } else { (way_there, nodes_there.at(1)) };
            way.next().point_to(Some(node)).unwrap();
            match round % 4 {
                0 => way.next().point_to(None).unwrap(),
                1 => way.store(&Node { value: round, next: Pointer::null() }),
                2 => {
                    let mut hole = way.hole().unwrap();
                    hole.next = Pointer::default();
                    hole.fill().unwrap();
                }
                _ => {
                    way.next().swap(Pointer::null(), SeqCst);
                }
            }
        }
        done.store(true, SeqCst);
        seen = readers.map(|reader| reader.join().unwrap()).iter().sum();
    });
    println!("nothing was seen {seen} times");
    drop((a, b));
}

#[test]
fn a_stack_without_locks() {
    const EACH: usize = 40;
    let cluster = Cluster::new();
    let sessions = [cluster.join(0, "stack"), cluster.join(1, "stack")];
    std::thread::scope(|scope| {
        for (host, session) in sessions.iter().enumerate() {
            scope.spawn(move || {
                let (top, nodes) =
                    (session.open::<Pointer<Node>>("top").unwrap(), session.array::<Node>("nodes", 2 * EACH).unwrap());
                for at in 0..EACH {
                    let node = nodes.at(host * EACH + at);
                    node.set_value((host * EACH + at) as u64);
                    let mut before = top.load();
                    loop {
                        node.set_next(before);
                        match top.compare_exchange(before, Pointer::to(node), SeqCst, SeqCst) {
                            Ok(_) => break,
                            Err(now) => before = now,
                        }
                    }
                }
            });
        }
    });
    for session in &sessions {
        session.fence().unwrap();
        session.barrier("all", 1).unwrap().wait_timeout(PATIENCE).unwrap();
        let top = session.open::<Pointer<Node>>("top").unwrap();
        let walk = || {
            let mut found = Vec::new();
            let mut at = top.follow().unwrap();
            while let Some(node) = at {
                found.push(node.value());
                at = node.next().follow().unwrap();
            }
            found.sort_unstable();
            found
        };
        eventually("all nodes are there", || walk() == (0..2 * EACH as u64).collect::<Vec<_>>());
    }
    drop(sessions);
}

#[dsm::shared]
#[derive(Debug, PartialEq, Eq)]
#[repr(i16)]
enum Color {
    Red = 0,
    Green = -2,
    Blue = 700,
}

#[dsm::shared]
#[derive(Debug, PartialEq)]
struct Span {
    from: i32,
    to: f32,
}

#[dsm::shared]
#[derive(Debug, PartialEq)]
struct Flags {
    on: bool,
    marks: [bool; 3],
}

#[dsm::shared]
struct Mixed {
    // Names of operations, which the handles of structs do not have.
    swap: u32,
    compare_exchange: f32,
    double: f64,
    wide: [u64; 2],
    span: Span,
    color: Color,
    on: bool,
    pad: u8,
    flags: Flags,
    letter: char,
    rest: u32,
}

#[test]
fn whatever_has_the_size_of_a_word_can_be_exchanged() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "exchange"), cluster.join(1, "exchange"));
    let [here, there] = [&a, &b].map(|session| session.open::<Mixed>("mixed").unwrap());
    here.set_swap(1);
    here.set_compare_exchange(2.0);
    assert_eq!((here.swap(), here.compare_exchange()), (1, 2.0));

    assert_eq!(here.double_ref().swap(-0.0, SeqCst), 0.0);
    assert_eq!(there.double_ref().compare_exchange(0.0, 1.0, SeqCst, SeqCst), Err(-0.0));
    assert_eq!(there.double_ref().compare_exchange(-0.0, f64::NAN, SeqCst, SeqCst), Ok(-0.0));
    assert!(here.double_ref().swap(2.5, SeqCst).is_nan());
    assert_eq!(there.compare_exchange_ref().swap(7.5, SeqCst), 2.0);
    assert_eq!(there.swap_ref().swap(9, SeqCst), 1);

    assert_eq!(here.color_ref().swap(Color::Blue, SeqCst), Ok(Color::Red));
    assert_eq!(there.color_ref().compare_exchange(Color::Red, Color::Green, SeqCst, SeqCst), Err(Ok(Color::Blue)));
    assert_eq!(there.color_ref().compare_exchange(Color::Blue, Color::Green, SeqCst, SeqCst), Ok(Ok(Color::Blue)));
    // SAFETY: the place of an enum that is stored as an `i16`; the store traps.
    unsafe { here.color_ref().as_ptr().cast::<i16>().write_volatile(5) };
    let refused = here.color_ref().compare_exchange(Color::Blue, Color::Green, SeqCst, SeqCst).unwrap_err();
    assert_eq!(refused.unwrap_err().bits, 5);
    assert_eq!(there.color_ref().swap(Color::Red, SeqCst).unwrap_err().bits, 5);
    assert_eq!(here.letter_ref().swap('ß', SeqCst), Ok('\0'));
    assert_eq!(there.letter_ref().compare_exchange('ß', 'x', SeqCst, SeqCst), Ok(Ok('ß')));

    assert!(!here.on_ref().swap(true, SeqCst));
    // SAFETY: one byte of a `bool`; the store traps.
    unsafe { here.on_ref().as_ptr().cast::<u8>().write_volatile(0x40) };
    assert_eq!(here.on_ref().compare_exchange(false, true, SeqCst, SeqCst), Err(true));
    assert_eq!(here.on_ref().compare_exchange(true, false, SeqCst, SeqCst), Ok(true));
    assert!(!there.on_ref().swap(true, SeqCst));

    // Structs and arrays, whole.
    let span = |from| Span { from, to: from as f32 / 2.0 };
    assert_eq!(Shared::swap_whole(here.span(), span(3), SeqCst), Span { from: 0, to: 0.0 });
    assert_eq!(Shared::compare_exchange_whole(there.span(), span(4), span(5), SeqCst, SeqCst), Err(span(3)));
    assert_eq!(Shared::compare_exchange_whole(there.span(), span(3), span(5), SeqCst, SeqCst), Ok(span(3)));
    assert_eq!(Shared::swap_whole(here.span(), span(6), SeqCst), span(5));
    assert_eq!(Shared::swap_whole(here.wide_ref(), [1, 2], SeqCst), [0, 0]);
    assert_eq!(Shared::swap_whole(there.wide_ref(), [3, 4], SeqCst), [1, 2]);
    let flags = |on| Flags { on, marks: [on; 3] };
    // SAFETY: a byte of a `bool`; the store traps.
    unsafe { here.flags().as_ptr().cast::<u8>().write_volatile(2) };
    let expected = Flags { on: true, marks: [false; 3] };
    assert_eq!(Shared::compare_exchange_whole(here.flags(), expected, flags(true), SeqCst, SeqCst), Ok(expected));
    assert_eq!(Shared::swap_whole(there.flags(), flags(false), SeqCst), flags(true));

    // None is lost between two hosts.
    std::thread::scope(|scope| {
        for mixed in [here, there] {
            scope.spawn(move || {
                for _ in 0..50 {
                    let mut old = mixed.span().load();
                    while let Err(now) = Shared::compare_exchange_whole(
                        mixed.span(),
                        old,
                        Span { from: old.from + 1, to: old.to - 1.0 },
                        SeqCst,
                        SeqCst,
                    ) {
                        old = now;
                    }
                }
            });
        }
    });
    assert_eq!(Shared::swap_whole(here.span(), span(0), SeqCst), Span { from: 106, to: -97.0 });
    drop((a, b));
}

#[dsm::shared]
struct Odd {
    before: u32,
    pair: [u32; 2],
    after: u32,
}

#[test]
#[should_panic(expected = "an atomic operation of 8 bytes at offset")]
fn a_word_that_lies_across_two_is_not_exchanged() {
    let cluster = Cluster::new();
    let a = cluster.join(0, "odd");
    Shared::swap_whole(a.open::<Odd>("odd").unwrap().pair_ref(), [1, 2], SeqCst);
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
    let mut outside = 0;
    for _ in 0..50 {
        scramble(node.next(), &mut state);
        let found = node.next().follow().map(|_| ());
        assert!(matches!(found, Err(BadPointer::Outside(_) | BadPointer::Misaligned(_))), "{found:?}");
        outside += u32::from(matches!(found, Err(BadPointer::Outside(_))));
    }
    assert!(outside > 0);
    // One that was made for another type.
    let foreign = a.open::<Pointer<u64>>("pointer").unwrap();
    foreign.point_to(Some(words.at(2))).unwrap();
    words.set(2, 5);
    assert_eq!(foreign.follow().unwrap().unwrap().get(), 5);
    let stored = node.next().as_ptr().cast::<u64>();
    // SAFETY: a pointer in the session is a word.
    let word = unsafe { foreign.as_ptr().cast::<u64>().read_volatile() };
    // SAFETY: as above; the store traps.
    unsafe { stored.write_volatile(word) };
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
        (here + 16, BadPointer::Outside(here + 16)),
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
