//! What the attribute writes.

use crate::field::{self, FieldKind};
use crate::item::{self, Accessor, SharedStruct, field_name};
use crate::options::{self, Options};
use proc_macro2::{Literal, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Field, Ident, Item, Type};

/// Expands `#[dsm::shared(options)] item`.
pub(crate) fn shared(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Vec::new();
    let options = options::parse(options, &mut errors);
    let parsed: Item = match syn::parse2(item.clone()) {
        Ok(parsed) => parsed,
        Err(error) => {
            let error = error.into_compile_error();
            return quote!(#item #error);
        }
    };
    // What was written is kept even if it is wrong, so that no other errors follow from its absence.
    let written = match item::check(parsed, &mut errors) {
        Some(shared) if shared.is_usable => usable(&shared, &options, errors.is_empty()),
        _ => item,
    };
    let errors = errors.into_iter().reduce(|mut all, error| {
        all.combine(error);
        all
    });
    let errors = errors.map(Error::into_compile_error);
    quote!(#written #errors)
}

/// `tokens`, all at `span`: so that the compiler shows nothing else when something is wrong with them.
fn at(span: Span, tokens: &TokenStream) -> TokenStream {
    let respanned = tokens.clone().into_iter().map(|mut token| {
        token.set_span(span);
        token
    });
    respanned.collect()
}

/// A span that shows the place of `span` but belongs to the attribute's own code, which lints leave alone.
fn own(span: Span) -> Span {
    span.resolved_at(Span::mixed_site())
}

fn usable(shared: &SharedStruct, options: &Options, is_correct: bool) -> TokenStream {
    let item = &shared.item;
    let repr = shared.needs_repr.then(|| quote!(#[repr(C)]));
    let krate = &options.krate;
    let writer = Writer { shared, private: quote!(#krate::__private) };
    let copies = shared.missing_derives.iter().map(|name| writer.copies(name));
    let implementation = writer.implementation();
    let fields_type = writer.fields_type();
    let checks = is_correct.then(|| writer.checks());
    quote! {
        #repr
        #item
        #(#copies)*
        #fields_type
        #implementation
        #checks
    }
}

struct Writer<'a> {
    shared: &'a SharedStruct,
    /// The path of `dsm::__private`.
    private: TokenStream,
}

impl Writer<'_> {
    fn name(&self) -> &Ident {
        &self.shared.item.ident
    }

    fn fields_name(&self) -> Ident {
        format_ident!("{}Fields", self.name(), span = own(self.name().span()))
    }

    /// The fields that are not refused.
    fn sound_fields(&self) -> impl Iterator<Item = &Field> {
        let pairs = self.shared.fields.iter().zip(&self.shared.item.fields);
        pairs.filter(|(shared, _)| !matches!(shared.kind, FieldKind::Refused)).map(|(_, field)| field)
    }

    fn offset(&self, field: &Field) -> TokenStream {
        let (name, field) = (self.name(), field_name(field));
        quote!(::core::mem::offset_of!(#name, #field))
    }

    /// Bounds by which an implementation depends on the fields whose types the compiler has to look up. They are written
    /// with `for<'x>` because a bound without parameters would be an error where it does not hold, and here it is to
    /// mean only that there is no such implementation.
    fn bounds(&self, bound: &TokenStream) -> TokenStream {
        let mut types: Vec<&Type> = Vec::new();
        for ty in self.sound_fields().map(|field| field::innermost(&field.ty)) {
            if field::is_looked_up(ty) && !types.contains(&ty) {
                types.push(ty);
            }
        }
        let bounds: Vec<_> = types.into_iter().map(|ty| quote!(for<'x> #ty: #bound)).collect();
        if bounds.is_empty() { TokenStream::new() } else { quote!(where #(#bounds),*) }
    }

    /// Implements `Clone` or `Copy`. Derived, they would complain one by one of a field that cannot be copied.
    fn copies(&self, missing: &str) -> TokenStream {
        let name = self.name();
        let bounds = self.bounds(&quote!(::core::marker::Copy));
        match missing {
            "Copy" => quote! {
                #[automatically_derived]
                impl ::core::marker::Copy for #name #bounds {}
            },
            _ => quote! {
                #[automatically_derived]
                impl ::core::clone::Clone for #name #bounds {
                    #[inline]
                    fn clone(&self) -> Self {
                        *self
                    }
                }
            },
        }
    }

    fn implementation(&self) -> TokenStream {
        let Self { private, .. } = self;
        let (name, fields_name) = (self.name(), self.fields_name());
        let text = name.unraw().to_string();
        let (copied, plain) = (self.bounds(&quote!(::core::marker::Copy)), self.bounds(&quote!(#private::Plain)));
        let fields = self.sound_fields().map(|field| {
            let (text, offset, ty) = (field_name(field).unraw().to_string(), self.offset(field), &field.ty);
            let private_there = at(ty.span(), private);
            let layout = quote_spanned!(ty.span()=> <#ty as #private_there::SharedType>::LAYOUT);
            quote!(#private::Field::new(#text, #offset, #layout))
        });
        quote! {
            // What this promises is checked beside it: the fields are shared types, and there is no padding.
            #[automatically_derived]
            unsafe impl #private::SharedType for #name {
                const LAYOUT: &'static #private::Layout = &#private::structure::<Self>(#text, &[#(#fields),*]);
                type Fields<'s> = #fields_name<'s>;
                type ReadFields<'s> = #private::Unstructured<'s, Self>;
                type Getter<'s> = #private::Shared<'s, Self>;
                type ReadGetter<'s> = #private::ReadOnly<'s, Self>;

                #[inline]
                fn get_field(field: #private::Shared<'_, Self>) -> #private::Shared<'_, Self> {
                    field
                }

                #[inline]
                fn read_field(field: #private::ReadOnly<'_, Self>) -> #private::ReadOnly<'_, Self> {
                    field
                }
            }

            #[automatically_derived]
            impl #private::Assign for #name #copied {
                type Setter<'a> = &'a Self;

                #[inline]
                fn set_field(field: #private::Shared<'_, Self>, value: &Self) {
                    field.store(value);
                }
            }

            // Any bytes make one if they make each of its fields.
            #[automatically_derived]
            unsafe impl #private::Plain for #name #plain {}
        }
    }

    fn fields_type(&self) -> TokenStream {
        let Self { private, .. } = self;
        let (name, fields_name, vis) = (self.name(), self.fields_name(), &self.shared.item.vis);
        let doc = format!(
            "The accessors of the fields of a shared [`{name}`]: what its handle, `Shared<{name}>`, dereferences to."
        );
        let pairs = self.shared.fields.iter().zip(&self.shared.item.fields);
        let mut sound = 0usize..;
        let accessors = pairs.flat_map(|(shared, field)| {
            let index = if matches!(shared.kind, FieldKind::Refused) { 0 } else { sound.next().unwrap_or_default() };
            let index = Literal::usize_unsuffixed(index);
            let accessors = shared.accessors.iter();
            accessors
                .map(|(accessor, name)| self.accessor(*accessor, name, &shared.kind, field, &index))
                .collect::<Vec<_>>()
        });
        quote! {
            #[doc = #doc]
            #[derive(Clone, Copy, Debug)]
            #[repr(transparent)]
            #vis struct #fields_name<'s>(#private::Shared<'s, #name>);

            #[automatically_derived]
            impl<'s> #fields_name<'s> {
                #(#accessors)*
            }
        }
    }

    fn accessor(
        &self,
        accessor: Accessor,
        name: &Ident,
        kind: &FieldKind,
        field: &Field,
        index: &Literal,
    ) -> TokenStream {
        let Self { private, .. } = self;
        let (vis, ty) = (&field.vis, &field.ty);
        let attributes = attributes(accessor, kind, field);
        let mut name = name.clone();
        name.set_span(own(name.span()));
        if let FieldKind::Refused = kind {
            // Never called: that it cannot be shared has been reported.
            return match accessor {
                Accessor::Get => quote!(#attributes #vis fn #name(self) -> #ty { ::core::unreachable!() }),
                _ => quote!(#attributes #vis fn #name(self, _: #ty) {}),
            };
        }
        // Whatever names the field's type is at the place of that type, so that one that cannot be shared is one error.
        let span = ty.span();
        let private = &at(span, private);
        let this = self.name();
        let shared = quote_spanned!(span=> <#ty as #private::SharedType>);
        let assign = quote_spanned!(span=> <#ty as #private::Assign>);
        let handle = quote_spanned!(span=> #shared::field_of::<#this, #index>(self.0));
        let (argument, result, body) = match accessor {
            Accessor::Get => {
                let result = match (kind, element(ty)) {
                    (FieldKind::Integer | FieldKind::Float, _) => quote!(#ty),
                    (FieldKind::Array, Some(element)) => quote_spanned!(span=> #private::Slice<'s, #element>),
                    _ => quote_spanned!(span=> #shared::Getter<'s>),
                };
                (None, Some(result), quote_spanned!(span=> #shared::get_field(#handle)))
            }
            Accessor::Set => {
                let argument = match kind {
                    FieldKind::Integer | FieldKind::Float => quote!(value: #ty),
                    FieldKind::Array if !field::is_looked_up(ty) => quote!(value: &#ty),
                    _ => quote_spanned!(span=> value: #assign::Setter<'_>),
                };
                (Some(argument), None, quote_spanned!(span=> #assign::set_field(#handle, value);))
            }
            Accessor::Handle => (None, Some(quote_spanned!(span=> #private::Shared<'s, #ty>)), handle),
            Accessor::Atomic => {
                (None, Some(quote_spanned!(span=> #private::Atomic<'s, #ty>)), quote_spanned!(span=> #handle.atomic()))
            }
        };
        let bounds = (accessor == Accessor::Set && field::is_looked_up(ty)).then(|| {
            let bound = quote_spanned!(span=> #private::Assign);
            quote!(where for<'x> #ty: #bound)
        });
        let must_use = result.is_some().then(|| quote!(#[must_use]));
        let result = result.map(|result| quote!(-> #result));
        quote! {
            #attributes
            #[inline]
            #must_use
            #vis fn #name(self, #argument) #result #bounds { #body }
        }
    }

    /// Constants whose evaluation fails where there is padding, or a field without bytes.
    fn checks(&self) -> TokenStream {
        let Self { private, .. } = self;
        let name = self.name();
        let fields: Vec<_> = self.shared.item.fields.iter().collect();
        let checks = fields.iter().enumerate().map(|(index, field)| {
            let ty = &field.ty;
            let (ident, offset) = (field_name(field), self.offset(field));
            let text = ident.unraw().to_string();
            let next = match fields.get(index + 1) {
                Some(next) => self.offset(next),
                None => quote!(::core::mem::size_of::<#name>()),
            };
            let private = at(own(ident.span()), private);
            quote_spanned! {own(ident.span())=>
                const _: () = #private::assert_no_gap(#text, #offset, ::core::mem::size_of::<#ty>(), #next);
            }
        });
        quote!(#(#checks)*)
    }
}

/// The element type of an array.
fn element(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Array(array) => Some(&array.elem),
        Type::Paren(inner) => element(&inner.elem),
        Type::Group(inner) => element(&inner.elem),
        _ => None,
    }
}

/// Documentation, and what else of the field's attributes is true of its accessors.
fn attributes(accessor: Accessor, kind: &FieldKind, field: &Field) -> TokenStream {
    let name = field_name(field).unraw();
    let is_carried =
        |attribute: &&Attribute| attribute.path().is_ident("doc") || attribute.path().is_ident("deprecated");
    let carried: Vec<_> = field.attrs.iter().filter(is_carried).collect();
    let is_documented = carried.iter().any(|attribute| attribute.path().is_ident("doc"));
    let doc = match (accessor, kind) {
        (Accessor::Get, _) if is_documented => return quote!(#(#carried)*),
        (Accessor::Get, FieldKind::Array) => format!("The elements of `{name}`."),
        (Accessor::Get, FieldKind::Named) => format!("The handle of `{name}`, or its value if it is a number."),
        (Accessor::Get, _) => format!("The value of `{name}`: a plain load."),
        (Accessor::Set, _) => format!("Stores `{name}`."),
        (Accessor::Handle, _) => format!("The handle of `{name}`."),
        (Accessor::Atomic, _) => format!("`{name}`, for operations that are atomic on all hosts."),
    };
    let blank = is_documented.then(|| quote!(#[doc = ""]));
    quote!(#[doc = #doc] #blank #(#carried)*)
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::{File, ImplItem, ItemImpl};

    fn expanded(options: TokenStream, item: TokenStream) -> File {
        syn::parse2(shared(options, item)).expect("what is written can be parsed")
    }

    fn names(file: &File) -> Vec<String> {
        let names = file.items.iter().map(|item| match item {
            Item::Struct(item) => item.ident.to_string(),
            Item::Enum(item) => item.ident.to_string(),
            Item::Impl(item) => if item.unsafety.is_some() { "unsafe impl" } else { "impl" }.to_owned(),
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
        assert_eq!(
            names(&file),
            ["Board", "impl", "impl", "BoardFields", "impl", "unsafe impl", "impl", "unsafe impl", "check", "check"]
        );
        assert_eq!(accessors(&file), ["turn", "set_turn", "turn_ref", "turn_atomic", "pos", "set_pos", "pos_ref"]);
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
        assert_eq!(
            names(&file),
            [
                "Board",
                "impl",
                "impl",
                "BoardFields",
                "impl",
                "unsafe impl",
                "impl",
                "unsafe impl",
                "compile_error",
                "compile_error"
            ]
        );
        assert_eq!(accessors(&file), ["len", "set_len", "turn", "set_turn", "turn_ref", "turn_atomic"]);
    }

    #[test]
    fn what_is_no_use_is_left_as_it_was() {
        assert_eq!(
            names(&expanded(
                quote!(),
                quote!(
                    struct Board {
                        name: String,
                    }
                )
            )),
            ["Board", "compile_error"]
        );
        assert_eq!(
            names(&expanded(
                quote!(),
                quote!(
                    enum Phase {
                        Setup,
                    }
                )
            )),
            ["Phase", "compile_error"]
        );
        assert_eq!(
            names(&expanded(
                quote!(),
                quote!(
                    struct Board<T> {
                        t: T,
                    }
                )
            )),
            ["Board", "compile_error"]
        );
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
        // The field itself and its four accessors.
        assert_eq!(text.matches("Whose turn it is.").count(), 5);
        assert_eq!(text.matches("deprecated").count(), 5);
    }
}
