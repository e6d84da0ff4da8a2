//! Which methods the handles have, by the sources of the library that has them.

use super::HANDLE_METHODS;
use quote::ToTokens;
use std::collections::BTreeSet;
use std::path::Path;
use syn::{ImplItem, Item, ItemImpl, Type, Visibility};

/// The public methods that handles have whatever they are handles of, by the sources of the library.
#[test]
fn the_methods_of_handles_are_those_that_the_sources_have() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dsm/src");
    if !dir.exists() {
        return; // A registry's copy of this crate stands alone.
    }
    let mut found = BTreeSet::new();
    methods_of_handles(&dir, &mut found);
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), HANDLE_METHODS);
}

fn methods_of_handles(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            methods_of_handles(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let file = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let impls = file.items.iter().filter_map(|item| match item {
                Item::Impl(item) if item.trait_.is_none() && is_of_any_handle(item) => Some(item),
                _ => None,
            });
            for item in impls.flat_map(|item| &item.items) {
                if let ImplItem::Fn(method) = item
                    && method.sig.receiver().is_some()
                    && matches!(method.vis, Visibility::Public(_))
                {
                    found.insert(method.sig.ident.to_string());
                }
            }
        }
    }
}

/// Whether it is of handles of any `T`, as far as structs can be one.
fn is_of_any_handle(item: &ItemImpl) -> bool {
    let Type::Path(path) = &*item.self_ty else { return false };
    let Some(segment) = path.path.segments.last() else { return false };
    let arguments = segment.arguments.to_token_stream().to_string();
    let bounds = item.generics.params.to_token_stream().to_string();
    let clause = item.generics.where_clause.to_token_stream().to_string();
    // Of which no struct is one: numbers, and what a getter gives as a value.
    let is_of_words =
        ["AtomicWord", "Integer", "Loaded", "Scalar"].iter().any(|word| (bounds.clone() + &clause).contains(word));
    (segment.ident == "Shared" || segment.ident == "ReadOnly") && arguments.ends_with(", T >") && !is_of_words
}
