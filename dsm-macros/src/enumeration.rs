//! Enums without data: what of them can be shared, and what the attribute writes for them.

use crate::expand::{allow_deprecated, copies};
use crate::item::{is_shared, missing_derives};
use crate::options::Options;
use crate::refusal::text;
use proc_macro2::{Literal, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Fields, Ident, ItemEnum, Meta, Token};

const INTEGERS: [&str; 8] = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"];

/// Looks through the enum, and expands it.
pub(crate) fn shared(item: &ItemEnum, options: &Options, errors: &mut Vec<Error>) -> TokenStream {
    let repr = check(item, errors);
    let private = options.private();
    let name = &item.ident;
    let Some(repr) = repr else {
        let is_twice = item.attrs.iter().any(|attribute| is_shared(attribute.path()));
        let stand_in = (item.generics.params.is_empty() && !is_twice).then(|| stand_in(name, &private));
        return quote!(#item #stand_in);
    };
    let called = options.name.as_ref().map_or_else(|| name.unraw().to_string(), syn::LitStr::value);
    let version = (options.version > 0).then(|| {
        let version = Literal::u32_unsuffixed(options.version);
        quote!(.with_version(#version))
    });
    let repr_name = repr.to_string();
    let variants = item.variants.iter().map(|variant| {
        let (ident, text) = (&variant.ident, variant.ident.unraw().to_string());
        // By its own path: what the program calls `u8` may be another integer.
        let value = quote!(Self::#ident as ::core::primitive::#repr as ::core::primitive::i128);
        quote!(#private::Variant::new(#text, #value))
    });
    let attributes = item.attrs.iter().chain(item.variants.iter().flat_map(|variant| &variant.attrs));
    let allow = allow_deprecated(attributes);
    let copies = missing_derives(&item.attrs).into_iter().map(|missing| {
        let implementation = copies(missing, name, &item.generics, &TokenStream::new());
        quote!(#allow #implementation)
    });
    let layout = quote!(&#private::enumeration::<Self>(#called, #repr_name, const { &[#(#variants),*] })#version);
    let implementations =
        implementations(name, &private, &allow, &layout, &quote!(field.try_load()), &quote!(field.store(&value);));
    // What is `Copy` has no destructor; whether it is can be seen by its own `Copy` alone.
    let is_derived = !missing_derives(&item.attrs).contains(&"Copy");
    let check = is_derived.then(|| quote!(#allow const _: () = #private::assert_no_destructor::<#name>();));
    quote! {
        #item

        #(#copies)*

        #implementations

        #check
    }
}

/// What makes an enum a shared type: its layout, how its getter loads it, and how its setter stores it.
fn implementations(
    name: &Ident,
    private: &TokenStream,
    allow: &Option<TokenStream>,
    layout: &TokenStream,
    load: &TokenStream,
    store: &TokenStream,
) -> TokenStream {
    let value = quote!(::core::result::Result<Self, #private::InvalidValue>);
    quote! {
        // What this promises is checked beside it: there is no data. What is loaded is compared with the variants.
        #allow
        #[automatically_derived]
        unsafe impl #private::SharedType for #name {
            const LAYOUT: &'static #private::Layout = #layout;
            type Fields<'s> = #private::Unstructured<'s, Self>;
            type ReadFields<'s> = #private::Unstructured<'s, Self>;
            type Getter<'s> = #value;
            type ReadGetter<'s> = #value;

            #[inline]
            fn get_field(field: #private::Shared<'_, Self>) -> #value {
                #load
            }

            #[inline]
            fn read_field(field: #private::ReadOnly<'_, Self>) -> #value {
                #load
            }
        }

        #allow
        #[automatically_derived]
        impl #private::Assign for #name {
            type Setter<'a> = Self;

            #[inline]
            fn set_field(field: #private::Shared<'_, Self>, value: Self) {
                #store
            }
        }
    }
}

/// The same for an enum in which something is wrong, and which is never used: so that nothing else is wrong with the rest of
/// the program.
fn stand_in(name: &Ident, private: &TokenStream) -> TokenStream {
    let never = quote!(::core::unreachable!());
    let layout = quote!(&#private::enumeration::<Self>("", "u8", &[]));
    let implementations = implementations(name, private, &None, &layout, &never, &never);
    quote! {
        #[automatically_derived]
        unsafe impl ::core::marker::Send for #name {}
        #[automatically_derived]
        unsafe impl ::core::marker::Sync for #name {}

        #implementations
    }
}

/// The integer that it is stored as, or `None` if something is wrong with it.
fn check(item: &ItemEnum, errors: &mut Vec<Error>) -> Option<Ident> {
    let before = errors.len();
    for attribute in item.attrs.iter().filter(|attribute| is_shared(attribute.path())) {
        errors.push(Error::new_spanned(attribute, "`#[dsm::shared]` is given twice"));
    }
    if item.variants.is_empty() {
        let message = "an enum without variants cannot be shared: it has no values";
        errors.push(Error::new(item.brace_token.span.join(), message));
        return None;
    }
    for parameter in &item.generics.params {
        errors.push(Error::new_spanned(parameter, "a shared enum has no parameters: it has no data"));
    }
    let repr = repr(item, errors);
    for variant in &item.variants {
        if !matches!(variant.fields, Fields::Unit) {
            errors.push(Error::new(
                variant.fields.span(),
                "a variant with data cannot be shared: another process may store one variant's data beside another's \
                 tag; share an enum without data, and the data in fields beside it",
            ));
        } else if variant.discriminant.is_none() {
            errors.push(Error::new_spanned(
                &variant.ident,
                format!(
                    "a variant of a shared enum needs a number, which all programs agree on: `{} = {}`",
                    variant.ident,
                    item.variants.iter().position(|other| other.ident == variant.ident).unwrap_or_default()
                ),
            ));
        }
        for cfg in variant.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")) {
            errors.push(Error::new_spanned(
                cfg,
                "a variant of a shared enum cannot depend on `cfg`: all programs have to agree on its values",
            ));
        }
    }
    if errors.len() == before { repr } else { None }
}

/// The integer of `#[repr(...)]`.
fn repr(item: &ItemEnum, errors: &mut Vec<Error>) -> Option<Ident> {
    let mut found = None;
    for attribute in item.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        let Ok(reprs) = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else {
            return None; // The compiler says what is wrong with it.
        };
        for repr in reprs {
            match repr.path().get_ident().filter(|ident| INTEGERS.iter().any(|integer| ident == integer)) {
                Some(ident) => found = Some(ident.clone()),
                None => {
                    let message = format!(
                        "a shared enum is stored as an integer of a fixed size, such as `#[repr(u8)]`; `{}` is none",
                        text(&repr)
                    );
                    errors.push(Error::new_spanned(repr, message));
                    return None;
                }
            }
        }
    }
    if found.is_none() {
        let message = "a shared enum needs to say what it is stored as, such as `#[repr(u8)]`";
        errors.push(Error::new_spanned(&item.ident, message));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn checked(item: &ItemEnum) -> (Option<String>, Vec<String>) {
        let mut errors = Vec::new();
        let repr = check(item, &mut errors);
        (repr.map(|repr| repr.to_string()), errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn enums_with_numbers_are_accepted() {
        let item = parse_quote! { #[repr(i16)] enum Phase { Setup = -1, Play = 1 << 4 } };
        assert_eq!(checked(&item), (Some("i16".to_owned()), vec![]));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let item = parse_quote! { enum Phase<T> { Setup, Play(T), #[cfg(x)] End = 3 } };
        let (repr, errors) = checked(&item);
        assert_eq!((repr, errors.len()), (None, 5), "{errors:?}");
        let (_, errors) = checked(&parse_quote! { #[repr(usize)] enum Phase {} });
        assert_eq!(errors.len(), 1, "{errors:?}");
        let (_, errors) = checked(&parse_quote! { #[repr(usize)] enum Phase { A = 0 } });
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
}
