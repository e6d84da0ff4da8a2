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

/// What is going on.
#[dsm::shared(name = "game.phase", version = 2)]
#[derive(Debug)]
#[non_exhaustive]
#[repr(i32)]
pub enum Phase {
    /// Nothing.
    Idle = -1,
    /// Something.
    Busy = 1,
}

/// A pair.
#[dsm::shared]
#[derive(Debug)]
#[non_exhaustive]
pub struct Pair(pub f32, pub f32);

/// Other kinds of fields.
#[dsm::shared]
#[derive(Debug)]
#[non_exhaustive]
pub struct Kinds {
    /// On a line of its own.
    #[dsm(align = 64)]
    pub hot: u64,
    /// Not all bytes are one.
    pub phase: Phase,
    /// Nor here.
    pub symbol: char,
    /// Two of them.
    #[dsm(rename = "both")]
    pub pair: Pair,
    /// Counted.
    pub count: core::sync::atomic::AtomicU64,
    /// Flags.
    pub flags: [bool; 7],
    /// One more.
    #[dsm(read_only)]
    pub flag: bool,
    /// Texts.
    pub symbols: [char; 8],
}

/// With a parameter.
#[dsm::shared]
#[derive(Debug)]
#[non_exhaustive]
pub struct Table<const N: usize> {
    /// Rows.
    pub rows: [[u32; N]; 2],
    /// Points.
    pub points: [Pos; N],
}

/// Texts, lists and what is in them.
#[dsm::shared(version = 3)]
#[derive(Debug)]
#[non_exhaustive]
pub struct Values<const N: usize> {
    /// What it is called.
    pub name: dsm::Text<24>,
    /// How often it was called.
    pub count: u32,
    /// Where it was.
    pub trail: dsm::List<Pos, N>,
    /// What comes next.
    pub next: dsm::Pointer<Board>,
}

/// What is locked.
#[dsm::shared]
#[derive(Debug)]
#[non_exhaustive]
pub struct Locks {
    /// One at a time.
    pub board: dsm::field::Mutex<Board>,
    /// Many readers.
    pub limits: dsm::field::RwLock<[u64; 6]>,
    /// So many at a time.
    pub seats: dsm::field::Semaphore<4>,
    /// All at once.
    pub round: dsm::field::Barrier<2>,
    undocumented: u64,
}

/// Two of anything.
#[dsm::shared]
#[derive(Debug)]
#[non_exhaustive]
pub struct Two<T>
where
    T: dsm::SharedType,
{
    /// The one.
    pub one: T,
    /// And the other.
    pub other: T,
}

/// Fields that nobody is to use any more.
#[dsm::shared]
#[derive(Debug)]
#[non_exhaustive]
pub struct Old {
    /// A number.
    #[deprecated = "use `new`"]
    pub old: u32,
    /// On a line of its own.
    #[deprecated]
    #[dsm(read_only)]
    pub older: u32,
    /// A number.
    pub new: u64,
}

/// Nobody is to use this any more.
#[deprecated]
#[dsm::shared]
#[derive(Debug)]
#[non_exhaustive]
pub struct Oldest {
    /// A number.
    pub number: u64,
}

/// Nor this, which says so below the attribute, and is on a line of its own.
#[dsm::shared]
#[deprecated]
#[derive(Debug)]
#[non_exhaustive]
pub struct OldCounters {
    /// Counted.
    #[dsm(align = 64)]
    pub count: core::sync::atomic::AtomicU64,
}

/// A variant that nobody is to use any more.
#[dsm::shared]
#[derive(Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum Stage {
    /// Never.
    #[deprecated]
    Early = 0,
    /// Ever.
    Late = 1,
}

/// Never used at all.
#[dsm::shared]
#[derive(Debug)]
struct Unused {
    /// A number.
    number: u64,
}
