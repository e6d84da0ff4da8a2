//! `contrast`, against the same stretch in sequence, byte by byte.

mod common;

use common::{Run, each_way};
use dsm_examples::image::{self, Image};
use std::path::Path;

const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/rings.pgm");

/// Runs `contrast` on `input` in all ways. The greys of the result are worked out here in another way, too.
fn check(input: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let before = image::read(input).unwrap();
    let expected = image::stretch_sequentially(&before.pixels);
    let (darkest, brightest) = (*before.pixels.iter().min().unwrap(), *before.pixels.iter().max().unwrap());
    let stretched = |grey: u8| (f64::from(grey - darkest) * 255.0 / f64::from(brightest - darkest)).round() as u8;
    assert!(before.pixels.iter().map(|grey| stretched(*grey)).eq(expected.iter().copied()));

    let output = dir.path().join("out.png");
    let arguments = [input.to_str().unwrap(), output.to_str().unwrap()];
    each_way(env!("CARGO_BIN_EXE_contrast"), &arguments, |_, ranks| {
        let (width, height) = (before.width, before.height);
        let said = format!("{width} x {height} pixels: stretched the greys from {darkest} to {brightest}");
        assert_eq!(ranks[0].lines(), [said]);
        assert!(ranks[1..].iter().all(|rank| rank.lines().is_empty()));
        let after = image::read(&output).unwrap();
        assert_eq!((after.width, after.height), (width, height));
        let wrong = after.pixels.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert_eq!(wrong, None, "the first pixel that differs");
        // The next way has to write it again.
        std::fs::remove_file(&output).unwrap();
    });
}

#[test]
fn the_image_of_the_repository() {
    check(SMALL.as_ref());
}

/// Much larger than the frames in which it travels, and its chunks begin within words and lines.
#[test]
fn a_large_png() {
    let dir = tempfile::tempdir().unwrap();
    let (width, height) = (1531, 1117);
    let input = dir.path().join("in.png");
    image::write(&input, &Image { width, height, pixels: image::synthetic(width, height) }).unwrap();
    check(&input);
}

/// Most ranks have nothing to do.
#[test]
fn fewer_pixels_than_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.pgm");
    std::fs::write(&input, "P2 3 1 255\n10 12 20\n").unwrap();
    check(&input);
}

/// Rank 0 fails, and says why; nobody waits for it.
#[test]
fn an_image_that_cannot_be_read_fails_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("missing.png"), dir.path().join("out.png"));
    let arguments = [input.to_str().unwrap(), output.to_str().unwrap()];
    each_way(env!("CARGO_BIN_EXE_contrast"), &arguments, |_, ranks| {
        assert!(ranks.iter().all(|rank| rank.status.code() == Some(1)));
        assert!(ranks[0].stderr.contains("missing.png"), "{}", ranks[0].stderr);
        assert!(ranks[1..].iter().all(|rank| rank.stderr.contains("is broken")));
        assert!(!output.exists());
    });
}

#[test]
fn usage_is_told() {
    let run = Run { binary: env!("CARGO_BIN_EXE_contrast"), arguments: &["one"], ranks: 0, capture: None };
    let ranks = run.run();
    assert_eq!(ranks[0].status.code(), Some(1));
    assert!(ranks[0].stderr.contains("usage: contrast IN OUT"), "{}", ranks[0].stderr);
}
