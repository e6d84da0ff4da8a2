//! The `#[dsm::shared]` attribute: makes a struct one that can live in shared memory.
//!
//! The attribute is used through the crate `dsm`, which re-exports it.

use proc_macro::TokenStream;

mod enumeration;
mod expand;
mod field;
mod item;
mod main_attribute;
mod options;
mod refusal;

/// Makes a struct one that can live in shared memory, and gives its handle accessors for the fields.
///
/// ```text
/// #[dsm::shared]
/// pub struct Board {
///     /// Whose turn it is.
///     pub turn: u32,
///     pub speed: f32,
///     pub scores: [u64; 64],
///     pub pos: Pos,          // another struct marked #[dsm::shared]
/// }
/// ```
///
/// A handle `board: Shared<Board>` then has these methods, each as visible as its field and with its
/// documentation:
///
/// | field | getter | setter | handle | atomic operations |
/// |---|---|---|---|---|
/// | integer `turn: u32` | `turn() -> u32` | `set_turn(u32)` | `turn_ref() -> Shared<u32>` | `turn_atomic() -> Atomic<u32>` |
/// | float `speed: f32` | `speed() -> f32` | `set_speed(f32)` | `speed_ref() -> Shared<f32>` | |
/// | array `scores: [u64; 64]` | `scores() -> Slice<u64>` | `set_scores(&[u64; 64])` | `scores_ref() -> Shared<[u64; 64]>` | `scores().atomic(i)` |
/// | struct `pos: Pos` | `pos() -> Shared<Pos>` | `set_pos(&Pos)` | `pos_ref() -> Shared<Pos>` | |
///
/// A field whose name begins with an underscore has none: it is there to fill a gap.
///
/// # What it does to the struct
///
/// The struct becomes `#[repr(C)]`, `Clone` and `Copy`; it stays a plain struct that can be made, copied and taken
/// apart as any other. Beside it stands a type `BoardFields`, which has the accessors. Other attributes and derives
/// are kept. Write `#[dsm::shared]` above them: a `#[derive(Clone, Copy)]` that stands above it has run before the
/// attribute can see that it needs none.
///
/// # What may be a field
///
/// The integers `u8` to `u128` and `i8` to `i128`, `f32`, `f64`, arrays of them, structs marked `#[dsm::shared]`, and
/// type aliases of all these. The attribute says what is wrong with anything else, and with padding: there may be
/// none, because nobody stores it, and hosts would come to differ there.
///
/// # Options
///
/// - `protocol = "replicated"`: how the hosts are kept alike. At present this is the only protocol, and the default.
/// - `crate = path`: where the crate `dsm` is, if it is not called that.
///
/// # `#![forbid(unsafe_code)]`
///
/// The attribute writes one `unsafe impl` and no other unsafe code. It is the attribute that vouches for what the
/// `unsafe impl` promises, by the checks above, and a crate that forbids or denies unsafe code may use it.
#[proc_macro_attribute]
pub fn shared(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::shared(options.into(), item.into()).into()
}

/// Makes a `main` that has joined a session.
///
/// ```text
/// use dsm::prelude::*;
///
/// #[dsm::main(session = "game", expect = 4)]
/// fn main(session: &Session) -> dsm::Result<()> {
///     let board = session.open::<Board>("board")?;
///     // ...
///     Ok(())
/// }
/// ```
///
/// The process joins the session before `main` begins, and leaves it when it ends. What goes wrong is one line on
/// stderr, that begins with the program's name, and exit code 1. `main` may return `()`, an
/// [`ExitCode`](std::process::ExitCode), or a `Result<(), E>` whose error can be displayed (a `Box<dyn Error>`, too).
///
/// # Options
///
/// - `session = "name"`: the session. Default: the name of the program's file, without its ending.
/// - `expect = number`: `main` begins when so many processes have come, and each has its rank: see `Builder::expect`.
/// - `crate = path`: where the crate `dsm` is, if it is not called that.
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    main_attribute::expand(options.into(), item.into()).into()
}
