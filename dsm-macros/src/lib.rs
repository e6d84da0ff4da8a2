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

/// Makes a struct or an enum one that can live in shared memory, and gives the handle of a struct accessors for the fields.
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
/// | `is_over: bool` | `is_over() -> bool` | `set_is_over(bool)` | `is_over_ref() -> Shared<bool>` | |
/// | `symbol: char` | `symbol() -> Result<char, InvalidValue>` | `set_symbol(char)` | `symbol_ref() -> Shared<char>` | |
/// | enum `phase: Phase` | `phase() -> Result<Phase, InvalidValue>` | `set_phase(Phase)` | `phase_ref() -> Shared<Phase>` | |
/// | std's atomic `hits: AtomicU64` | `hits() -> Atomic<u64>` | | `hits_ref() -> Shared<AtomicU64>` | `hits().fetch_add(...)` |
///
/// A type whose values are larger, or not only bytes, has a handle with methods of its own, and the getter gives that:
/// `Text<N>`, `List<T, N>`, `Pointer<T>`, `Versioned<T>`, and the synchronisation objects of `dsm::field`.
///
/// Numbers, `bool`s and structs that can be copied also have `update_turn(|turn| turn + 1)`: a load and a store, not
/// atomic. The fields of a tuple struct are called `field_0`, `field_1` and so on: `field_0()`, `set_field_0(value)`. A
/// field whose name begins with an underscore has no accessors: it is there to fill a gap.
///
/// A read-only handle, `ReadOnly<Board>`, has the getters alone; what they give is read-only, too.
///
/// # What it does to the item
///
/// The struct becomes `#[repr(C)]`, and `Clone` and `Copy` if its fields can be copied (atomics and locks cannot); it
/// stays a plain struct that can be made and taken apart as any other. Beside it stand types `Board_Fields` and
/// `Board_ReadFields`, which have the accessors. Other attributes and derives are kept. Write `#[dsm::shared]` above
/// them: a `#[derive(Clone, Copy)]` that stands above it has run before the attribute can see that it needs none.
///
/// An enum has to say what it is stored as, and which number stands for which variant:
///
/// ```text
/// #[dsm::shared]
/// #[repr(u8)]
/// enum Phase {
///     Setup = 0,
///     Play = 1,
/// }
/// ```
///
/// # What may be a field
///
/// The integers `u8` to `u128` and `i8` to `i128`, `f32`, `f64`, `bool` (any byte but zero is `true`), `char`, the atomics
/// of std but for `AtomicUsize`, `AtomicIsize` and `AtomicPtr`, `dsm::Text` and `dsm::List` in place of `String` and `Vec`,
/// `dsm::Pointer` in place of references and `Box`, `dsm::Versioned`, the locks, semaphores and barriers of `dsm::field`,
/// structs and enums marked `#[dsm::shared]`, arrays and arrays of arrays of all these, and type aliases of them.
///
/// A struct may have parameters: constants, and types that can be shared, as in `struct Pair<T: dsm::SharedType>`. Each
/// `Table<3>` or `Pair<u32>` is a type of its own, also to other programs.
///
/// The attribute says what is wrong with anything else, and with padding: there may be none, because nobody stores it, and
/// hosts would come to differ there. (Of a struct with parameters, padding is found when a program that uses it is built;
/// `cargo check` does not see it.) A type of your own that is called as one of std which cannot be shared, and has as many
/// parameters, has to be written with its path: `self::Cell<u32>`.
///
/// # Options
///
/// - `protocol = "replicated"`: how the hosts are kept alike. At present this is the only protocol, and the default.
/// - `name = "..."`: what the type is called in its layout, which programs compare; by default, as in the source.
/// - `version = 1`: programs with other versions of the declaration do not share it, even if the fields are alike.
/// - `crate = path`: where the crate `dsm` is, if it is not called that.
///
/// Of a field, in `#[dsm(...)]`:
///
/// - `skip_accessors`: it has none; it is reached by `load()`, `store()` and holes.
/// - `read_only`: it has a getter and a read-only handle. The layout is the same, so another program may have setters.
/// - `rename = "..."`: what it is called everywhere but in the struct itself: by the accessors, and in the layout.
/// - `align = 64`: it lies on cache lines of its own, so that stores to its neighbours do not disturb who waits for it.
///   Its type becomes `Line<T, PAD>`, in which the rest of the line is filled with zeros: in a struct literal write
///   `turn: 3.into()`, in a hole `*hole.turn += 1`. The accessors are those of the type as it was written. What comes
///   before it has to end where a line does: put such fields first, or fill the gap. Its size may not depend on a
///   parameter of the struct.
///
/// # `#![forbid(unsafe_code)]`
///
/// The attribute writes `unsafe impl`s and no other unsafe code. It is the attribute that vouches for what they
/// promise, by the checks above, and a crate that forbids or denies unsafe code may use it.
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
