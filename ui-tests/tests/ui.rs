//! What must not compile, and what the compiler then says: one folder for each thing that a user can get wrong.

#[test]
fn what_is_wrong_is_said_in_the_users_words() {
    // Only failing cases here: then nothing has to be linked. What must compile is in `pass.rs`.
    trybuild::TestCases::new().compile_fail("tests/fail/*/*.rs");
}
