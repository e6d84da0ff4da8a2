//! House rules that can be read off the sources: see `ARCHITECTURE.md`.

use std::path::{Path, PathBuf};

/// The top of the repository; `None` where this crate stands alone (in a package registry's copy).
fn top() -> Option<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    top.join("ARCHITECTURE.md").exists().then_some(top)
}

fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// All Rust sources, by path from the top.
fn all() -> Vec<(String, String)> {
    let Some(top) = top() else { return Vec::new() };
    let mut found = Vec::new();
    sources(&top, &mut found);
    let prefix = format!("{}/", top.display());
    assert!(found.len() > 30, "the sources are not where this test looks");
    found.into_iter().map(|(path, text)| (path.replace(&prefix, ""), text)).collect()
}

/// Without comments, strings' contents aside, and without what follows the tests' marker.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
    let text = text.split("#[cfg(all(test, not(loom)))]\nmod").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn state_machines_know_no_socket_clock_or_thread() {
    let pure = ["sequencer", "semaphore", "barrier", "replica", "record", "diff", "segment", "op"];
    for (path, text) in all() {
        let pure = pure.iter().any(|name| path == format!("dsm/core/src/{name}.rs"))
            || path.starts_with("dsm/core/src/sequencer/")
            || path.starts_with("dsm/core/src/wire/");
        for word in ["std::net", "std::time", "std::thread", "Instant", "crate::sys", "libc::", "rustix", "nix::"] {
            assert!(!pure || !names(&code(&text), word), "{path} names {word}");
        }
    }
}

#[test]
fn system_calls_are_made_in_few_places() {
    let allowed = ["trap", "fork", "hands", "join", "region", "signals"].map(|name| format!("dsm/src/{name}.rs"));
    for (path, text) in all() {
        let ours = path.starts_with("dsm/core/src/") && !path.starts_with("dsm/core/src/sys/")
            || path.starts_with("dsm/src/") && !allowed.contains(&path);
        for word in ["libc::", "rustix::", "nix::"] {
            assert!(!ours || !names(&code(&text), word), "{path} names {word}");
        }
    }
}

/// Does `word` stand in the text, and not as the end of a longer one?
fn names(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn the_trap_path_names_nothing_that_allocates() {
    let path =
        ["dsm/src/trap.rs", "dsm/src/wait.rs", "dsm/core/src/log.rs", "dsm/core/src/lock.rs", "dsm/core/src/slot.rs"];
    // What only the arbiter calls, or whoever installs the trap door, or a process that is about to end.
    let exempt =
        ["install", "install_once", "reinstall", "publish", "drain", "recover", "boxed", "inner", "fence", "answer"];
    for (name, text) in all().into_iter().filter(|(name, _)| path.contains(&name.as_str())) {
        let mut function = String::new();
        for line in code(&text).lines() {
            if let Some((_, rest)) = line.split_once("fn ") {
                function = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            }
            let allocates =
                ["Vec::", "vec!", "Box::new", "format!", "to_vec()", "to_owned()", "String::", "println!", "Mutex"]
                    .iter()
                    .any(|word| line.contains(word));
            assert!(!allocates || exempt.contains(&function.as_str()), "{name}, in `{function}`: {line}");
        }
    }
}

#[test]
fn files_stay_readable_and_finished() {
    for (path, text) in all() {
        let lines = text.lines().count();
        assert!(lines <= 650, "{path} has {lines} lines: split it along the architecture");
        if !path.ends_with("tidy.rs") {
            for word in [
                concat!("TO", "DO"),
                concat!("FIX", "ME"),
                concat!("X", "XX"),
                "todo!(",
                "unimplemented!(",
                "#[ignore]",
            ] {
                assert!(!text.contains(word), "{path} has a stray {word}");
            }
        }
    }
}

#[test]
fn every_unsafe_block_says_why() {
    // Clippy checks that there is a comment; this, that it is more than a label.
    for (path, text) in all() {
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("// SAFETY:")) {
            assert!(line.trim().len() >= 9, "{path}: a SAFETY comment without an argument: {line:?}");
        }
    }
}

#[test]
fn the_program_that_is_shown_first_is_one_that_compiles() {
    let Some(top) = top() else { return };
    // The lines between the first fence that begins so and its end.
    let first = |path: &str, begin: &str| {
        let text = std::fs::read_to_string(top.join(path)).unwrap();
        let plain: Vec<String> = text.lines().map(|line| line.trim_start_matches("//!").trim().to_owned()).collect();
        let block = plain.iter().skip_while(|line| *line != begin).skip(1).take_while(|line| *line != "```");
        // What the documentation hides is there for the compiler alone.
        block.filter(|line| *line != "#" && !line.starts_with("# ")).cloned().collect::<Vec<_>>()
    };
    let compiled = first("dsm/src/lib.rs", "```no_run");
    assert!(compiled.len() > 20, "the example is not where this test looks");
    for readme in ["README.md", "dsm/README.md"] {
        assert_eq!(first(readme, "```rust"), compiled, "{readme} and the documentation of the crate differ");
    }
}
