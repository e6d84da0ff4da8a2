//! In a crate that forbids unsafe code and turns on every lint it can, the attribute causes no warning.
#![forbid(unsafe_code)]
#![deny(
    warnings,
    missing_docs,
    missing_copy_implementations,
    missing_debug_implementations,
    elided_lifetimes_in_paths,
    single_use_lifetimes,
    unreachable_pub,
    unused_lifetimes,
    unused_qualifications,
    variant_size_differences,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::missing_docs_in_private_items,
    clippy::missing_inline_in_public_items,
    clippy::missing_trait_methods,
    clippy::multiple_inherent_impl,
    clippy::same_name_method,
    clippy::exhaustive_structs
)]

/// A place.
#[dsm::shared]
#[derive(Debug)]
#[non_exhaustive]
pub struct Pos {
    /// To the right.
    pub x: f32,
    /// Upwards.
    pub y: f32,
}

/// A board.
#[dsm::shared]
#[derive(Debug)]
#[non_exhaustive]
pub struct Board {
    /// Whose turn it is.
    pub turn: u32,
    /// What is going on.
    pub phase: u32,
    /// Who has how much.
    pub scores: [u64; 64],
    /// Where the token is.
    pub pos: Pos,
    /// Where it was.
    pub trail: [Pos; 8],
    /// Never used.
    secret: i128,
    /// Nor this.
    _reserved: [u8; 16],
}

/// Never used at all.
#[dsm::shared]
#[derive(Debug)]
struct Unused {
    /// A number.
    number: u64,
}
