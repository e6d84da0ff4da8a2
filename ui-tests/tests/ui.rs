//! What must not compile, and what the compiler then says: one folder for each thing that a user can get wrong.

#[test]
fn what_is_wrong_is_said_in_the_users_words() {
    // Only failing cases here: then nothing has to be linked. What must compile is in `pass.rs`.
    trybuild::TestCases::new().compile_fail("tests/fail/*/*.rs");
}

/// A warning in what the compiler says is about something else than what the user got wrong.
#[test]
fn nothing_else_is_said() {
    let mut files = Vec::new();
    let mut dirs = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fail")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|end| end == "stderr") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 90, "the cases are not where this test looks");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.lines().any(|line| line.starts_with("warning")), "{}", path.display());
    }
}
