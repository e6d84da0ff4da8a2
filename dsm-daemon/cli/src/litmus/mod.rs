//! `dsm litmus`: the memory model, held to its word by running small programs across virtual hosts.

mod model;
mod program;
mod tests;
mod variant;
