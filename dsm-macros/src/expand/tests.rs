//! What is written, for structs that are right and structs that are not.

use super::*;
use syn::{File, ImplItem, ItemImpl};

fn expanded(options: TokenStream, item: TokenStream) -> File {
    syn::parse2(shared(options, item)).expect("what is written can be parsed")
}

fn names(file: &File) -> Vec<String> {
    let names = file.items.iter().map(|item| match item {
        Item::Struct(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Impl(item) => match &item.trait_ {
            Some((path, _)) => path.segments.last().unwrap().ident.to_string(),
            None => "impl".to_owned(),
        },
        Item::Const(_) => "check".to_owned(),
        Item::Macro(item) => item.mac.path.segments.last().unwrap().ident.to_string(),
        _ => "other".to_owned(),
    });
    names.collect()
}

fn accessors(file: &File) -> Vec<String> {
    let is_inherent = |item: &&ItemImpl| item.trait_.is_none();
    let impls = file.items.iter().filter_map(|item| if let Item::Impl(item) = item { Some(item) } else { None });
    let items = impls.filter(is_inherent).flat_map(|item| &item.items);
    items
        .filter_map(|item| if let ImplItem::Fn(item) = item { Some(item.sig.ident.to_string()) } else { None })
        .collect()
}

#[test]
fn a_correct_struct_is_checked_field_by_field() {
    let file = expanded(
        quote!(),
        quote!(
            struct Board {
                turn: u32,
                pos: Pos,
            }
        ),
    );
    let expected = "Board Clone Copy Board_Fields Clone Copy Debug impl Board_ReadFields Clone Copy Debug impl \
                    SharedType Assign Plain check check";
    assert_eq!(names(&file), expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        accessors(&file),
        [
            "turn",
            "set_turn",
            "turn_ref",
            "turn_atomic",
            "update_turn",
            "pos",
            "set_pos",
            "pos_ref",
            "update_pos",
            "turn",
            "turn_ref",
            "pos",
            "pos_ref"
        ]
    );
}

#[test]
fn what_can_be_written_is_written_in_spite_of_errors() {
    let file = expanded(
        quote!(fast),
        quote!(
            struct Board {
                len: usize,
                turn: u32,
            }
        ),
    );
    let expected = "Board Clone Copy Board_Fields Clone Copy Debug impl Board_ReadFields Clone Copy Debug impl \
                    SharedType Assign Plain compile_error compile_error";
    assert_eq!(names(&file), expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        accessors(&file),
        [
            "len",
            "set_len",
            "update_len",
            "turn",
            "set_turn",
            "turn_ref",
            "turn_atomic",
            "update_turn",
            "len",
            "turn",
            "turn_ref"
        ]
    );
}

#[test]
fn nothing_that_can_be_used_is_missing_in_spite_of_errors() {
    let cases = [
        (
            quote!(
                struct Board {
                    name: String,
                }
            ),
            "Board FIELDS SharedType compile_error",
        ),
        (
            quote!(
                struct Board {
                    raw: *mut u8,
                }
            ),
            "Board Clone Copy Send Sync FIELDS SharedType Assign Plain compile_error",
        ),
        (
            quote!(
                struct Board;
            ),
            "Board Clone Copy FIELDS SharedType Assign Plain compile_error",
        ),
        (
            quote!(
                #[repr(packed)]
                struct Board {
                    a: u8,
                }
            ),
            "Board Clone Copy FIELDS SharedType Assign Plain compile_error",
        ),
        (
            quote!(
                struct Board {
                    next: Board,
                }
            ),
            "Board Clone Copy FIELDS SharedType Assign Plain compile_error",
        ),
        (
            quote!(
                struct Board<T> {
                    t: T,
                }
            ),
            "Board Clone Copy FIELDS SharedType Assign Plain compile_error",
        ),
        (
            quote!(
                enum Phase {
                    Setup,
                }
            ),
            "Phase Send Sync SharedType Assign compile_error compile_error",
        ),
        (
            quote!(
                #[repr(u8)]
                enum Phase {
                    Play(u8) = 0,
                }
            ),
            "Phase Send Sync SharedType Assign compile_error",
        ),
        // These cannot be the type of anything shared.
        (
            quote!(
                struct Board<'a> {
                    t: &'a u8,
                }
            ),
            "Board compile_error compile_error",
        ),
        (
            quote!(
                enum Phase<T> {
                    Play(T),
                }
            ),
            "Phase compile_error compile_error compile_error",
        ),
    ];
    let fields = "Board_Fields Clone Copy Debug impl Board_ReadFields Clone Copy Debug impl";
    for (item, expected) in cases {
        let expected = expected.replace("FIELDS", fields);
        assert_eq!(names(&expanded(quote!(), item.clone())).join(" "), expected, "{item}");
    }
}

/// How a struct's expansion reads. When the attribute changes what it writes, look at the difference, and store it by
/// `UPDATE_EXPANSION=1 cargo test -p dsm-macros`.
#[test]
fn the_expansion_is_as_it_was_read() {
    let file = expanded(
        quote!(version = 2),
        quote! {
            /// The state of a game.
            #[derive(Debug)]
            pub struct Board<T: dsm::SharedType> {
                /// Whose turn it is.
                pub turn: u32,
                #[dsm(read_only)]
                phase: Phase,
                pub scores: [u64; 64],
                pub best: T,
                #[dsm(align = 64)]
                pub hits: u64,
            }
        },
    );
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expanded/board.rs");
    let text = format!(
        "// What the attribute makes of a struct: see `src/expand/tests.rs`.\n{}",
        prettyplease::unparse(&file)
    );
    if std::env::var_os("UPDATE_EXPANSION").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(text == stored, "the expansion differs from {}:\n{text}", path.display());
}

#[test]
fn documentation_is_carried_over() {
    let file = expanded(
        quote!(),
        quote!(
            struct Board {
                #[doc = " Whose turn it is."]
                #[deprecated]
                turn: u32,
            }
        ),
    );
    let text = quote::ToTokens::to_token_stream(&file).to_string();
    // The field itself, its five accessors, and the two that only read.
    assert_eq!(text.matches("Whose turn it is.").count(), 8);
    assert_eq!(text.matches("# [deprecated]").count(), 8);
    // All but `compile_error!`, of which there is none: the attribute's own code is no use of the field.
    assert_eq!(text.matches("# [allow (deprecated)]").count(), file.items.len() - 1);
}
