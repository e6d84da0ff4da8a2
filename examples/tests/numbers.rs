//! `pi`, `primes` and `pingpong`, against what one thread computes here.

mod common;

use common::each_way;

/// The word of a line behind `before`, as a number.
fn number<T: std::str::FromStr>(line: &str, before: &str) -> T {
    let word = line.split_once(before).and_then(|(_, rest)| rest.split([' ', ',']).next());
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no number behind {before:?} in {line:?}"))
}

#[test]
fn pi_is_the_same_on_every_rank_and_in_sequence() {
    let strips = 10_000_000;
    let width = 1.0 / f64::from(strips);
    let height = |strip| 4.0 / (1.0 + ((f64::from(strip) + 0.5) * width).powi(2));
    let sequential: f64 = (0..strips).map(|strip| height(strip) * width).sum();
    assert!((sequential - std::f64::consts::PI).abs() < 1e-11);
    each_way(env!("CARGO_BIN_EXE_pi"), &[], |size, ranks| {
        for (rank, said) in ranks.iter().enumerate() {
            let lines = said.lines();
            assert!(lines.len() == 1 && lines[0].starts_with(&format!("rank {rank} of {size}: ")), "{lines:?}");
            let pi: f64 = number(lines[0], "pi is ");
            assert!((pi - sequential).abs() < 1e-12, "{pi} in place of {sequential}");
            // All add up the same sums in the same order.
            assert_eq!(pi, number(ranks[0].lines()[0], "pi is "));
        }
    });
}

#[test]
fn primes_are_counted_once_each() {
    let limit = 1_234_567;
    let mut composite = vec![false; limit];
    let mut sequential = 0;
    for number in 2..limit {
        if !composite[number] {
            sequential += 1;
            (number * number..limit).step_by(number).for_each(|multiple| composite[multiple] = true);
        }
    }
    each_way(env!("CARGO_BIN_EXE_primes"), &[&limit.to_string()], |size, ranks| {
        let mut taken = 0;
        for (rank, said) in ranks.iter().enumerate() {
            let lines = said.lines();
            assert_eq!(lines.len(), if rank == 0 { 2 } else { 1 }, "{lines:?}");
            assert!(lines[0].starts_with(&format!("rank {rank} of {size} took ")), "{lines:?}");
            taken += number::<usize>(lines[0], "took ");
        }
        assert_eq!(taken, 1235, "blocks of a thousand");
        assert_eq!(ranks[0].lines()[1], format!("{sequential} primes below {limit}"));
    });
}

#[test]
fn small_limits_have_few_primes() {
    for (limit, primes) in [("0", 0), ("2", 0), ("3", 1), ("10", 4), ("10001", 1229)] {
        let run = common::Run { binary: env!("CARGO_BIN_EXE_primes"), arguments: &[limit], ranks: 0, capture: None };
        assert_eq!(run.run()[0].lines()[1], format!("{primes} primes below {limit}"));
    }
}

#[test]
fn the_ball_comes_back_each_time() {
    each_way(env!("CARGO_BIN_EXE_pingpong"), &["200"], |_, ranks| {
        let lines = ranks[0].lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        for (line, what) in lines.iter().zip(["spinning: ", "semaphores: "]) {
            let time = line.strip_prefix(what).and_then(|line| line.strip_suffix("s there and back"));
            let time = time.unwrap_or_else(|| panic!("{lines:?}")).trim();
            let digits: f64 = time.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
            assert!(digits > 0.0, "{lines:?}");
        }
        // Two players, two games.
        assert_eq!(lines[2], format!("the ball was hit {} times", 2 * 2 * 200));
        assert!(ranks[1..].iter().all(|rank| rank.lines().is_empty()));
    });
}

#[test]
fn what_is_no_number_is_refused() {
    for (binary, argument) in [(env!("CARGO_BIN_EXE_primes"), "many"), (env!("CARGO_BIN_EXE_pingpong"), "0")] {
        let output = std::process::Command::new(binary).arg(argument).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
    }
}
