//! Types that cannot live in shared memory, and what to say to who tries.

use quote::ToTokens;
use syn::{GenericArgument, Ident, Lifetime, PathArguments, PathSegment, Type, parse_quote};

/// Why `ty` cannot be shared, as far as this can be told from how it is written. What is not certain is left to the
/// compiler, which finds the same a little later, and says it by the message of `SharedType`.
pub(crate) fn of_type(ty: &Type) -> Option<String> {
    let message = match ty {
        Type::Path(path) => {
            let path = &path.path;
            if path.segments.len() == 1 || path.segments.iter().rev().nth(1).is_some_and(is_of_std) {
                return of_segment(path.segments.last()?, path.segments.len() > 1);
            }
            return None;
        }
        Type::Reference(reference) => format!(
            "a reference cannot be shared: it means something only in the process that made it; {}",
            match &*reference.elem {
                Type::Path(path) if path.path.is_ident("str") => "share the text itself, `dsm::Text<32>`".to_owned(),
                Type::Slice(slice) => {
                    format!("share the elements themselves, `dsm::List<{}, 64>`", text(&slice.elem))
                }
                to => format!("share the value itself, or point to it by `dsm::Pointer<{}>`", text(to)),
            }
        ),
        Type::Ptr(pointer) => format!(
            "a pointer cannot be shared: it means something only in the process that made it; \
             use `dsm::Pointer<{}>`, which means the same in all",
            text(&pointer.elem)
        ),
        Type::FnPtr(_) => "a function pointer cannot be shared: functions have other addresses in other processes; \
                           share a number that says which to call"
            .to_owned(),
        Type::Tuple(tuple) if tuple.elems.is_empty() => {
            "`()` cannot be shared: it has no bytes; leave the field out".to_owned()
        }
        Type::Tuple(_) => "a tuple cannot be shared: the order of its bytes is the compiler's choice; \
                           declare a struct with `#[dsm::shared]`"
            .to_owned(),
        Type::Slice(slice) => {
            let element = text(&slice.elem);
            format!(
                "a slice cannot be shared in a struct: its length is not known; \
                 use an array such as `[{element}; 64]`, `dsm::List<{element}, 64>`, or `session.array`"
            )
        }
        Type::TraitObject(_) | Type::ImplTrait(_) => {
            "a trait object cannot be shared: it points to code of one process; share a number that says which it is"
                .to_owned()
        }
        Type::Infer(_) => "the type of a field has to be written out".to_owned(),
        Type::Never(_) => "`!` cannot be shared: it has no values".to_owned(),
        _ => return None,
    };
    Some(message)
}

/// Whether this can be a module of std that has types which are refused: another's types may be called as they are.
fn is_of_std(module: &PathSegment) -> bool {
    const MODULES: [&str; 22] = [
        "atomic",
        "binary_heap",
        "boxed",
        "btree_map",
        "btree_set",
        "cell",
        "collections",
        "ffi",
        "hash_map",
        "hash_set",
        "linked_list",
        "marker",
        "num",
        "option",
        "path",
        "primitive",
        "ptr",
        "rc",
        "result",
        "string",
        "sync",
        "vec",
    ];
    MODULES.iter().any(|name| module.ident == name)
}

/// Why a type called this cannot be shared. The names are those of std, and so are the numbers of parameters that they
/// have: a `Cell` without any, a `Box<3>` or a `Vec<u8, 16>` is the user's own, and all is well.
fn of_segment(segment: &PathSegment, is_qualified: bool) -> Option<String> {
    let name = segment.ident.to_string();
    let parameters = type_parameters(segment)?;
    let first = parameters.first().map(String::as_str).unwrap_or("T");
    let message = match (name.as_str(), parameters.len()) {
        ("usize", 0) => {
            "`usize` cannot be shared: its size is the machine's; use `u64`, or `u32` for an index".to_owned()
        }
        ("isize", 0) => "`isize` cannot be shared: its size is the machine's; use `i64`".to_owned(),
        ("str", 0) => "`str` cannot be shared: its length is not known; use `dsm::Text<32>`".to_owned(),
        ("String" | "PathBuf" | "OsString" | "CString", 0) => {
            format!("`{name}` cannot be shared: its text is in memory of one process; use `dsm::Text<32>`")
        }
        ("Vec" | "VecDeque" | "BinaryHeap" | "LinkedList", 1) => format!(
            "`{name}` cannot be shared: its elements are in memory of one process; \
             use `dsm::List<{first}, 64>`, an array such as `[{first}; 64]`, or `session.array`"
        ),
        ("HashMap" | "BTreeMap", 2) | ("HashSet" | "BTreeSet", 1) => format!(
            "`{name}` cannot be shared: its entries are in memory of one process; \
             use `dsm::List<Entry, 64>` or an array of entries"
        ),
        ("Box", 1) => format!(
            "`Box` cannot be shared: it owns memory of one process; \
             share the value itself, `{first}`, or point to it by `dsm::Pointer<{first}>`"
        ),
        ("Rc" | "Arc" | "Weak", 1) => format!(
            "`{name}` cannot be shared: it counts owners in one process, and a shared value needs none; \
             share the value itself, `{first}`, or point to it by `dsm::Pointer<{first}>`"
        ),
        ("Cell" | "RefCell" | "UnsafeCell" | "OnceCell", 1) => format!(
            "`{name}` is not needed: a shared field can always be set, by its `set_` accessor; \
             share the value itself, `{first}`"
        ),
        // Without `sync::` before it, it may be `dsm::field`'s.
        ("Mutex" | "RwLock", 1) if is_qualified => format!(
            "std's `{name}` cannot be shared: it locks the threads of one process; \
             use `dsm::field::{name}<{first}>`"
        ),
        ("OnceLock" | "LazyLock", 1 | 2) => {
            format!("`{name}` cannot be shared: it locks the threads of one process; use `dsm::field::Mutex<{first}>`")
        }
        ("Option", 1) => format!(
            "`Option` cannot be shared: any bytes may be stored by another process, and not all make one of its \
             variants; {}",
            match parameters_of(segment).next() {
                Some(GenericArgument::Type(Type::Reference(to))) => {
                    format!("use `dsm::Pointer<{}>`, which may point to nothing", text(&to.elem))
                }
                _ => format!("use a value that stands for none, or `dsm::List<{first}, 1>`"),
            }
        ),
        ("Result", 1 | 2) => {
            "`Result` cannot be shared: any bytes may be stored by another process, and not all make one \
                              of its variants; use two fields, and an enum marked `#[dsm::shared]` that says which one \
                              counts"
                .to_owned()
        }
        ("NonNull", 1) => format!(
            "a pointer cannot be shared: it means something only in the process that made it; \
             use `dsm::Pointer<{first}>`, which means the same in all"
        ),
        ("AtomicPtr", 1) => format!(
            "`AtomicPtr` cannot be shared: a pointer means something only in the process that made it; \
             use `dsm::Pointer<{first}>`, which means the same in all"
        ),
        ("PhantomData", 1) => "`PhantomData` cannot be shared: it has no bytes; leave the field out".to_owned(),
        (_, 0) => return of_numbers(&segment.ident, &name),
        _ => return None,
    };
    Some(message)
}

/// The arguments of a type.
fn parameters_of(segment: &PathSegment) -> impl Iterator<Item = &GenericArgument> {
    let arguments = match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => Some(&arguments.args),
        _ => None,
    };
    arguments.into_iter().flatten()
}

/// The arguments of a type as text, if all are types. What is written in capitals may be a constant.
fn type_parameters(segment: &PathSegment) -> Option<Vec<String>> {
    let is_constants = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let types = parameters_of(segment).map(|argument| match argument {
        GenericArgument::Type(ty) => Some(text(ty)).filter(|text| !text.chars().all(is_constants)),
        _ => None,
    });
    types.collect()
}

/// What takes the place of a field's type that was refused, so that the compiler has nothing to add: the same type, if it
/// can be that of a field.
pub(crate) fn stand_in(ty: &Type) -> Type {
    match ty {
        Type::ImplTrait(_) | Type::Infer(_) | Type::Never(_) => parse_quote!(()),
        Type::Slice(_) => parse_quote!(&'static #ty),
        Type::TraitObject(_) => parse_quote!(&'static (#ty)),
        Type::Path(path) if path.path.is_ident("str") => parse_quote!(&'static #ty),
        _ => {
            let mut ty = ty.clone();
            name_lifetimes(&mut ty);
            ty
        }
    }
}

/// Names the lifetimes that are left out: in a field, they may not be.
fn name_lifetimes(ty: &mut Type) {
    match ty {
        Type::Reference(reference) => {
            let forever = || Lifetime::new("'static", proc_macro2::Span::call_site());
            reference.lifetime.get_or_insert_with(forever);
            name_lifetimes(&mut reference.elem);
        }
        Type::Array(array) => *array.elem = stand_in(&array.elem),
        Type::Slice(slice) => name_lifetimes(&mut slice.elem),
        Type::Paren(inner) => name_lifetimes(&mut inner.elem),
        Type::Group(inner) => name_lifetimes(&mut inner.elem),
        Type::Ptr(pointer) => name_lifetimes(&mut pointer.elem),
        Type::Tuple(tuple) => tuple.elems.iter_mut().for_each(name_lifetimes),
        Type::Path(path) => {
            for segment in &mut path.path.segments {
                let PathArguments::AngleBracketed(arguments) = &mut segment.arguments else { continue };
                for argument in &mut arguments.args {
                    if let GenericArgument::Type(ty) = argument {
                        name_lifetimes(ty);
                    }
                }
            }
        }
        _ => {}
    }
}

/// Whether it is certain of a type that was refused that it is `Copy`.
pub(crate) fn is_copied(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => reference.mutability.is_none(),
        Type::Ptr(_) | Type::FnPtr(_) | Type::Never(_) => true,
        Type::Tuple(tuple) => tuple.elems.iter().all(is_copied),
        Type::Array(array) => is_copied(&array.elem),
        Type::Paren(inner) => is_copied(&inner.elem),
        Type::Group(inner) => is_copied(&inner.elem),
        Type::Path(path) => path.path.segments.last().is_some_and(|segment| {
            let name = segment.ident.to_string();
            match name.as_str() {
                "NonNull" | "PhantomData" => true,
                "Option" | "Result" => parameters_of(segment)
                    .all(|argument| matches!(argument, GenericArgument::Type(ty) if is_copied(ty))),
                name => name.starts_with("NonZero") || is_primitive(name),
            }
        }),
        _ => false,
    }
}

/// Whether it is certain of a type that was refused that it is `Send` and `Sync`.
pub(crate) fn is_sent(ty: &Type) -> bool {
    match ty {
        Type::FnPtr(_) | Type::Never(_) => true,
        Type::Reference(reference) => is_sent(&reference.elem),
        Type::Slice(slice) => is_sent(&slice.elem),
        Type::Tuple(tuple) => tuple.elems.iter().all(is_sent),
        Type::Array(array) => is_sent(&array.elem),
        Type::Paren(inner) => is_sent(&inner.elem),
        Type::Group(inner) => is_sent(&inner.elem),
        Type::Path(path) => path.path.segments.last().is_some_and(|segment| match segment.ident.to_string().as_str() {
            "String" | "PathBuf" | "OsString" | "CString" => true,
            "Vec" | "VecDeque" | "HashMap" | "BTreeMap" | "HashSet" | "BTreeSet" | "Box" | "Arc" | "Option"
            | "Result" => {
                parameters_of(segment).all(|argument| matches!(argument, GenericArgument::Type(ty) if is_sent(ty)))
            }
            name => name.starts_with("NonZero") || name.starts_with("Atomic") || is_primitive(name),
        }),
        _ => false,
    }
}

fn is_primitive(name: &str) -> bool {
    const NAMES: [&str; 17] = [
        "bool", "char", "f32", "f64", "i128", "i16", "i32", "i64", "i8", "isize", "str", "u128", "u16", "u32", "u64",
        "u8", "usize",
    ];
    NAMES.contains(&name)
}

/// Std's atomic and non-zero numbers: they are named after the plain ones.
fn of_numbers(ident: &Ident, name: &str) -> Option<String> {
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
        "AtomicUsize" => Some(format!("`{ident}` cannot be shared: its size is the machine's; use `AtomicU64`")),
        "AtomicIsize" => Some(format!("`{ident}` cannot be shared: its size is the machine's; use `AtomicI64`")),
        _ => {
            let number = name.strip_prefix("NonZero").and_then(plain)?;
            Some(format!(
                "`{ident}` cannot be shared: any bytes may be stored by another process, and so zero; use `{number}`"
            ))
        }
    }
}

/// A type as it is usually written: tokens with blanks only where they belong.
pub(crate) fn text(tokens: &impl ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    [(" :: ", "::"), (":: ", "::"), (" <", "<"), ("< ", "<"), (" >", ">"), (" ;", ";"), (" ,", ","), ("& ", "&")]
        .into_iter()
        .fold(text, |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn refusal(ty: &Type) -> String {
        of_type(ty).unwrap_or_else(|| panic!("{} was accepted", text(ty)))
    }

    #[test]
    fn names_of_std_are_known_wherever_they_are_from() {
        assert!(refusal(&parse_quote!(Vec<u8>)).contains("`dsm::List<u8, 64>`"));
        assert!(refusal(&parse_quote!(std::vec::Vec<[u8; 3]>)).contains("`[[u8; 3]; 64]`"));
        assert!(refusal(&parse_quote!(std::sync::Arc<Pos>)).contains("share the value itself, `Pos`"));
        assert!(refusal(&parse_quote!(std::sync::Mutex<Pos>)).contains("`dsm::field::Mutex<Pos>`"));
        assert!(refusal(&parse_quote!(AtomicUsize)).contains("use `AtomicU64`"));
        assert!(refusal(&parse_quote!(NonZeroI16)).contains("use `i16`"));
    }

    #[test]
    fn own_types_may_be_called_as_those_of_std() {
        for ty in [
            parse_quote!(Cell),
            parse_quote!(Cell<4>),
            parse_quote!(Cell<N>),
            parse_quote!(Box<{ 1 + 2 }>),
            parse_quote!(Vec<u8, 16>),
            parse_quote!(Vec<u8, LEN>),
            parse_quote!(game::Box),
            parse_quote!(game::Cell<Pos>),
            parse_quote!(Option),
            parse_quote!(AtomicBomb),
            parse_quote!(Mutex<Pos>),
            parse_quote!(RwLock<u32>),
            parse_quote!(dsm::field::Mutex<Pos>),
        ] {
            assert_eq!(of_type(&ty), None, "{}", text(&ty));
        }
    }

    #[test]
    fn what_takes_a_types_place_can_be_in_a_struct() {
        let stand_in = |ty: Type| text(&stand_in(&ty));
        assert_eq!(stand_in(parse_quote!(&str)), "&'static str");
        assert_eq!(stand_in(parse_quote!(str)), "&'static str");
        assert_eq!(stand_in(parse_quote!(Option<&[u8]>)), "Option<&'static [u8]>");
        assert_eq!(stand_in(parse_quote!([&str; 3])), "[&'static str; 3]");
        assert_eq!(stand_in(parse_quote!(impl Fn())), "()");
        assert_eq!(stand_in(parse_quote!(Vec<u8>)), "Vec<u8>");
    }

    #[test]
    fn what_can_be_copied_and_sent_is_known() {
        let known = |ty: Type| (is_copied(&ty), is_sent(&ty));
        assert_eq!(known(parse_quote!(usize)), (true, true));
        assert_eq!(known(parse_quote!(&'static str)), (true, true));
        assert_eq!(known(parse_quote!(Option<u32>)), (true, true));
        assert_eq!(known(parse_quote!(Vec<String>)), (false, true));
        assert_eq!(known(parse_quote!(*mut u8)), (true, false));
        assert_eq!(known(parse_quote!(Rc<u8>)), (false, false));
        assert_eq!(known(parse_quote!(Option<Pos>)), (false, false));
    }

    #[test]
    fn text_is_as_it_is_written() {
        let ty: Type = parse_quote!(a::B<[c::D; 3], &'static u8>);
        assert_eq!(text(&ty), "a::B<[c::D; 3], &'static u8>");
    }
}
