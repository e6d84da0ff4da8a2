//! What must not compile, and what the compiler then says (`tests/ui.rs`), and what must compile without a warning
//! (`tests/pass.rs`). There is nothing in the library itself.
