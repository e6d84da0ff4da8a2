//! Types that cannot live in shared memory, and what to say to who tries.

use syn::{GenericArgument, Ident, PathArguments, PathSegment, Type};

/// Why a type cannot be shared.
pub(crate) struct Refusal {
    /// What to say.
    pub(crate) message: String,
    /// Whether a struct that contains it can still get its trait and accessors, so that the rest of the program makes
    /// sense to the compiler: it can be copied and sent.
    pub(crate) is_harmless: bool,
}

fn refuse(message: impl Into<String>, is_harmless: bool) -> Option<Refusal> {
    Some(Refusal { message: message.into(), is_harmless })
}

/// Why `ty` cannot be shared, as far as this can be told from how it is written.
pub(crate) fn of_type(ty: &Type) -> Option<Refusal> {
    match ty {
        // Ours, called as those of std are.
        Type::Path(path) if path.path.segments.iter().rev().nth(1).is_some_and(|module| module.ident == "field") => {
            None
        }
        Type::Path(path) => of_segment(path.path.segments.last()?),
        Type::Reference(reference) => refuse(
            "a reference cannot be shared: it means something only in the process that made it; \
             share the value itself, or its index in a shared array",
            reference.mutability.is_none(),
        ),
        Type::Ptr(_) => refuse(
            "a pointer cannot be shared: it means something only in the process that made it; \
             share an index or an offset",
            false,
        ),
        Type::FnPtr(_) => refuse(
            "a function pointer cannot be shared: functions have other addresses in other processes; \
             share a number that says which to call",
            true,
        ),
        Type::Tuple(tuple) if tuple.elems.is_empty() => {
            refuse("`()` cannot be shared: it has no bytes; leave the field out", true)
        }
        Type::Tuple(_) => refuse(
            "a tuple cannot be shared: the order of its bytes is the compiler's choice; \
             declare a struct with `#[dsm::shared]`",
            false,
        ),
        Type::Slice(_) => refuse(
            "a slice cannot be shared in a struct: its length is not known; \
             use an array such as `[u64; 64]`, or `session.array`",
            false,
        ),
        Type::TraitObject(_) | Type::ImplTrait(_) => refuse(
            "a trait object cannot be shared: it points to code of one process; share a number that says which it is",
            false,
        ),
        Type::Infer(_) => refuse("the type of a field has to be written out", false),
        Type::Never(_) => refuse("`!` cannot be shared: it has no values", true),
        _ => None,
    }
}

/// Why a type called this cannot be shared. The names are those of std. Where std's type has parameters, the name
/// without any is the user's own (a `Cell` of a game, say), and all is well.
fn of_segment(segment: &PathSegment) -> Option<Refusal> {
    let name = segment.ident.to_string();
    let has_parameters = !segment.arguments.is_none();
    let parameter = first_parameter(segment).unwrap_or_else(|| "T".to_owned());
    match (name.as_str(), has_parameters) {
        ("usize", false) => {
            refuse("`usize` cannot be shared: its size is the machine's; use `u64`, or `u32` for an index", true)
        }
        ("isize", false) => refuse("`isize` cannot be shared: its size is the machine's; use `i64`", true),
        ("str", false) => refuse("`str` cannot be shared: use an array of bytes such as `[u8; 32]`", false),
        ("String" | "PathBuf" | "OsString" | "CString", false) => refuse(
            format!(
                "`{name}` cannot be shared: its text is in memory of one process; \
                 use an array of bytes such as `[u8; 32]`"
            ),
            false,
        ),
        ("Vec" | "VecDeque" | "BinaryHeap" | "LinkedList", true) => refuse(
            format!(
                "`{name}` cannot be shared: its elements are in memory of one process; \
                 use an array such as `[{parameter}; 64]`, or `session.array`"
            ),
            false,
        ),
        ("HashMap" | "HashSet" | "BTreeMap" | "BTreeSet", true) => refuse(
            format!("`{name}` cannot be shared: its entries are in memory of one process; use an array of entries"),
            false,
        ),
        ("Box", true) => refuse(
            format!("`Box` cannot be shared: it owns memory of one process; share the value itself, `{parameter}`"),
            false,
        ),
        ("Rc" | "Arc" | "Weak", true) => refuse(
            format!(
                "`{name}` cannot be shared: it counts owners in one process, and a shared value needs none; \
                 share the value itself, `{parameter}`"
            ),
            false,
        ),
        ("Cell" | "RefCell" | "UnsafeCell" | "OnceCell", true) => refuse(
            format!(
                "`{name}` is not needed: a shared field can always be set, by its `set_` accessor; \
                 share the value itself, `{parameter}`"
            ),
            false,
        ),
        ("Mutex" | "RwLock", true) => refuse(
            format!(
                "std's `{name}` cannot be shared: it locks the threads of one process; \
                 use `dsm::field::{name}<{parameter}>`"
            ),
            false,
        ),
        ("OnceLock", true) => refuse(
            format!(
                "`{name}` cannot be shared: it locks the threads of one process; \
                 guard the data with `session.semaphore` and share the value itself, `{parameter}`"
            ),
            false,
        ),
        ("Option" | "Result", true) => refuse(
            format!(
                "`{name}` cannot be shared: any bytes may be stored by another process, and not all make one of its \
                 variants; use a value that stands for none, or a `u8` beside it"
            ),
            false,
        ),
        ("AtomicPtr", true) => of_numbers(&segment.ident, &name),
        ("NonNull", true) => refuse(
            "a pointer cannot be shared: it means something only in the process that made it; \
             share an index or an offset",
            false,
        ),
        ("PhantomData", true) => refuse("`PhantomData` cannot be shared: it has no bytes; leave the field out", false),
        _ => of_numbers(&segment.ident, &name),
    }
}

/// Std's atomic and non-zero numbers: they are named after the plain ones.
fn of_numbers(ident: &Ident, name: &str) -> Option<Refusal> {
    let plain = |number: &str| match number {
        "I8" => Some("i8"),
        "I16" => Some("i16"),
        "I32" => Some("i32"),
        "I64" | "Isize" => Some("i64"),
        "I128" => Some("i128"),
        "U8" => Some("u8"),
        "U16" => Some("u16"),
        "U32" => Some("u32"),
        "U64" | "Usize" => Some("u64"),
        "U128" => Some("u128"),
        _ => None,
    };
    match name {
        "AtomicUsize" | "AtomicIsize" => {
            let number = if name == "AtomicUsize" { "AtomicU64" } else { "AtomicI64" };
            return refuse(format!("`{ident}` cannot be shared: its size is the machine's; use `{number}`"), false);
        }
        "AtomicPtr" => {
            return refuse(
                "`AtomicPtr` cannot be shared: a pointer means something only in the process that made it; \
                 share an index or an offset in an `AtomicU64`",
                false,
            );
        }
        _ => {}
    }
    let number = name.strip_prefix("NonZero").and_then(plain)?;
    refuse(
        format!("`{ident}` cannot be shared: any bytes may be stored by another process, and so zero; use `{number}`"),
        true,
    )
}

fn first_parameter(segment: &PathSegment) -> Option<String> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(text(ty)),
        _ => None,
    })
}

/// A type as it is usually written: tokens with blanks only where they belong.
pub(crate) fn text(tokens: &impl quote::ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    [(" :: ", "::"), (":: ", "::"), (" <", "<"), ("< ", "<"), (" >", ">"), (" ;", ";"), (" ,", ","), ("& ", "&")]
        .into_iter()
        .fold(text, |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn refusal(ty: &Type) -> Option<String> {
        of_type(ty).map(|refusal| refusal.message)
    }

    #[test]
    fn names_of_std_are_known_wherever_they_are_from() {
        assert!(refusal(&parse_quote!(Vec<u8>)).unwrap().contains("`[u8; 64]`"));
        assert!(refusal(&parse_quote!(std::vec::Vec<[u8; 3]>)).unwrap().contains("`[[u8; 3]; 64]`"));
        assert!(refusal(&parse_quote!(std::sync::Arc<Pos>)).unwrap().contains("share the value itself, `Pos`"));
        assert!(refusal(&parse_quote!(AtomicUsize)).unwrap().contains("use `AtomicU64`"));
        assert!(refusal(&parse_quote!(NonZeroI16)).unwrap().contains("use `i16`"));
    }

    #[test]
    fn own_types_may_be_called_as_those_of_std() {
        for ty in [
            parse_quote!(Cell),
            parse_quote!(game::Box),
            parse_quote!(Option),
            parse_quote!(AtomicBomb),
            parse_quote!(dsm::field::Mutex<Pos>),
        ] {
            assert_eq!(refusal(&ty), None);
        }
    }

    #[test]
    fn text_is_as_it_is_written() {
        let ty: Type = parse_quote!(a::B<[c::D; 3], &'static u8>);
        assert_eq!(text(&ty), "a::B<[c::D; 3], &'static u8>");
    }
}
