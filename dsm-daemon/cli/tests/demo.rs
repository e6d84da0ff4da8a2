//! `dsm demo`, small.

mod common;

use common::{Place, start};

#[test]
fn it_shows_what_happens_and_verifies_the_result() {
    let place = Place::new();
    let mut command = place.command(&["demo", "--side", "256", "--rounds", "2"]);
    // It counts the stores of both doors: not where everything goes through one of them.
    let said = start(command.env("TERM", "dumb").env_remove("DSM_CAPTURE")).wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.out.lines().last(), Some("verified: 65,536 pixels equal to the sequential result"), "{said:?}");
    assert!(said.out.contains("store to visible on the other host: "), "{said:?}");
    for words in ["4 processes on 2 virtual hosts", "round 2 of 2", "host 1: ", "host 2: ", "208,000 trapped stores"] {
        assert!(said.err.contains(words) || said.out.contains(words), "{words:?} is not in {said:?}");
    }
    assert!(!said.err.contains('\x1b') && !said.out.contains('\x1b'), "{said:?}");
    place.assert_empty();
}

#[test]
fn it_works_alone_and_without_a_word_about_the_terminal() {
    let place = Place::new();
    let mut command = place.command(&["demo", "--processes", "1", "--hosts", "1", "--side", "100", "--rounds", "1"]);
    let said = start(command.env_remove("TERM")).wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.ends_with("verified: 10,000 pixels equal to the sequential result\n"), "{said:?}");
    place.assert_empty();
}

#[test]
fn what_is_inherited_does_not_count() {
    let place = Place::new();
    let mut command = place.command(&["demo", "--side", "100", "--rounds", "1"]);
    let said = start(command.env("DSM_SIZE", "nonsense").env("DSM_RANK", "9").env("DSM_DAEMON", "127.0.0.1:1")).wait();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.ends_with("verified: 10,000 pixels equal to the sequential result\n"), "{said:?}");
    place.assert_empty();
}

#[test]
fn a_worker_that_cannot_go_on_says_why() {
    let place = Place::new();
    let said = place.dsm(&["demo-worker", "--rounds", "1", "/nonexistent/image", "/nonexistent/result"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.lines().count() == 1 && said.err.contains("/nonexistent/image"), "{said:?}");
    // It was alone and had to start an arbiter, which ends when nobody needs it any more.
    place.assert_empty();
}
