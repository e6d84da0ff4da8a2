//! What must compile, and without a warning; and what the attribute says of a type where that can be seen without a
//! session.

#[path = "pass/derives.rs"]
mod derives;
#[path = "pass/kinds.rs"]
mod kinds;
#[path = "pass/layouts.rs"]
mod layouts;
#[path = "pass/locks.rs"]
mod locks;
#[path = "pass/macros.rs"]
mod macros;
#[path = "pass/names.rs"]
mod names;
#[path = "pass/renamed.rs"]
mod renamed;
#[path = "pass/signatures.rs"]
mod signatures;
#[path = "pass/strict.rs"]
pub mod strict;
#[path = "pass/threads.rs"]
mod threads;
#[path = "pass/values.rs"]
mod values;
#[path = "pass/visibility.rs"]
mod visibility;
