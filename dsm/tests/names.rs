//! Names: arrays that grow, names that are taken away, what is there; as two hosts see it.

mod common;

use common::{Cluster, PATIENCE, eventually};
use dsm::Error;

#[test]
fn an_array_grows_in_place_while_it_is_used() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "grow"), cluster.join(1, "grow"));
    let short = a.create_new_array::<u64>("list", 100).unwrap();
    let there = b.attach_array::<u64>("list").unwrap();
    assert_eq!(there.len(), 100);
    assert!(matches!(a.create_new_array::<u64>("list", 100), Err(Error::Exists(_))));
    // Not even within the same page.
    assert!(matches!(b.array::<u64>("list", 101), Err(Error::TypeDiffers(text)) if text.contains("grow")));
    short.set(99, 7);
    let long = a.grow_array::<u64>("list", 5000).unwrap();
    assert_eq!((long.len(), long.as_ptr(), long.get(99)), (5000, short.as_ptr(), 7));
    assert!(long.range(100..).iter().all(|value| value == 0));
    // Stored before the other host has the new part: it comes with it.
    long.set(4999, 42);
    a.fence().unwrap();
    there.set(98, 5);
    eventually("what is attached keeps working", || short.get(98) == 5 && there.get(99) == 7);
    let long_there = b.attach_array::<u64>("list").unwrap();
    assert_eq!((long_there.len(), long_there.get(4999), long_there.get(99)), (5000, 42, 7));
    long_there.set(4000, 1);
    // SAFETY: within the array; the store traps.
    unsafe { long_there.as_ptr().wrapping_add(4001).write_volatile(2) };
    eventually("stores to the new part arrive", || (long.get(4000), long.get(4001)) == (1, 2));
    // Shorter than it is: nothing shrinks.
    assert_eq!(b.grow_array::<u64>("list", 10).unwrap().len(), 5000);
    assert_eq!(b.array::<u64>("list", 10).unwrap().len(), 10);
    assert!(matches!(a.grow_array::<u64>("list", 1 << 30), Err(Error::TooLarge(_))));
    assert!(matches!(a.grow_array::<u32>("list", 1 << 20), Err(Error::TypeDiffers(_))));
    assert!(matches!(a.grow_array::<u64>("none", 1), Err(Error::NotFound(_))));
    // The neighbour is another's.
    assert_eq!(a.array::<u64>("next", 10).unwrap().get(0), 0);
}

#[test]
fn hosts_grow_an_array_by_turns_while_others_store() {
    let cluster = Cluster::new();
    let sessions = [0, 1].map(|host| cluster.join(host, "turns"));
    let _ = sessions.each_ref().map(|session| session.array::<u64>("list", 512).unwrap());
    std::thread::scope(|scope| {
        for (parity, session) in sessions.iter().enumerate() {
            scope.spawn(move || {
                let barrier = session.barrier("round", 2).unwrap();
                for round in 1..=20usize {
                    let len = 512 * (round + 1);
                    let list =
                        if round % 2 == parity { session.grow_array("list", len) } else { session.array("list", 512) };
                    let list: dsm::Slice<'_, u64> = list.unwrap();
                    for at in (parity..list.len()).step_by(2) {
                        list.set(at, round as u64);
                    }
                    barrier.wait_timeout(PATIENCE).unwrap();
                    let all = session.attach_array::<u64>("list").unwrap();
                    assert_eq!(all.len(), len);
                    let short = |at: usize| at >= 512 && round % 2 != at % 2;
                    let older = |at: usize| all.get(at) < round as u64;
                    for at in 0..len {
                        assert!(short(at) == older(at), "element {at} is {} in round {round}", all.get(at));
                    }
                    barrier.wait_timeout(PATIENCE).unwrap();
                }
            });
        }
    });
    let [here, there] = sessions.each_ref().map(|session| session.attach_array::<u64>("list").unwrap());
    assert_eq!(here.to_vec(), there.to_vec());
}

#[test]
fn a_removed_name_is_free_and_who_has_it_keeps_it() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "remove"), cluster.join(1, "remove"));
    let (here, there) = (a.open::<u64>("word").unwrap(), b.open::<u64>("word").unwrap());
    here.set(1);
    b.remove("word").unwrap();
    assert!(matches!(b.remove("word"), Err(Error::NotFound(_))));
    assert!(matches!(a.attach::<u64>("word"), Err(Error::NotFound(_))));
    // Still shared by those who have it.
    here.set(2);
    eventually("a store to what has no name arrives", || there.get() == 2);
    assert_eq!(there.atomic().fetch_add(1, dsm::prelude::SeqCst), 2);
    // The name can be that of another thing, of another type.
    let new = a.create_new::<f32>("word").unwrap();
    new.set(0.5);
    assert_eq!(b.attach::<f32>("word").map(|_| ()).ok(), Some(()));
    eventually("the new value arrives", || b.attach::<f32>("word").unwrap().get() == 0.5);
    assert_eq!(here.get(), 3);
    drop(a);
    there.set(9);
    assert_eq!(there.get(), 9);
    // Who comes later sees the new one only.
    assert_eq!(cluster.join(0, "remove").attach::<f32>("word").unwrap().get(), 0.5);
}

#[test]
fn a_read_only_handle_follows_what_others_store() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "read"), cluster.join(1, "read"));
    let reader = b.open_read_only::<[u32; 4]>("table").unwrap();
    assert_eq!(reader.load(), [0; 4]);
    a.attach::<[u32; 4]>("table").unwrap().set(2, 9);
    eventually("the store is seen", || reader.load() == [0, 0, 9, 0]);
    assert!(matches!(b.open_read_only::<u8>("table"), Err(Error::TypeDiffers(_))));
}

#[test]
fn a_listing_names_everything_and_counts_who_has_it() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join(0, "list"), cluster.join(1, "list"));
    let second = cluster.join(0, "list");
    a.open::<u64>("word").unwrap();
    second.open::<u64>("word").unwrap();
    b.array::<f64>("table", 10).unwrap();
    let gate = b.semaphore("gate", 3).unwrap();
    let _one = gate.lock().unwrap();
    a.barrier("end", 2).unwrap();
    a.open::<u32>("gone").unwrap();
    a.remove("gone").unwrap();
    let segments = |session: &dsm::Session| {
        let listing = session.list().unwrap();
        let segment = |s: &dsm::SegmentListing| (s.name.clone(), s.ty.clone(), s.bytes, s.hosts, s.processes);
        listing.segments.iter().map(segment).collect::<Vec<_>>()
    };
    let (word, table) = (("word".to_owned(), "u64".to_owned(), 8), ("table".to_owned(), "[f64]".to_owned(), 80));
    assert_eq!(segments(&a), [(word.0.clone(), word.1.clone(), 8, 1, 2), (table.0.clone(), table.1.clone(), 80, 1, 0)]);
    assert_eq!(segments(&b), [(word.0.clone(), word.1.clone(), 8, 1, 0), (table.0.clone(), table.1.clone(), 80, 1, 1)]);
    let listing = b.list().unwrap();
    assert_eq!((listing.session.as_str(), listing.hosts.len()), ("list", 2));
    let semaphore = &listing.semaphores[0];
    assert_eq!((semaphore.name.as_str(), semaphore.units, semaphore.waiting), ("gate", 2, 0));
    let barrier = &listing.barriers[0];
    assert_eq!((barrier.name.as_str(), barrier.parties, barrier.arrived), ("end", 2, 0));
    drop(second);
    eventually("the one that has left is not counted", || segments(&a)[0].4 == 1);
}
