//! The types that have the accessors of the fields.

use super::{Writer, bounded, copies, own, with_session};
use crate::field::{self, FieldKind};
use crate::item::{Accessor, SharedField};
use proc_macro2::{Literal, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Field, Ident, Type};

impl Writer<'_> {
    /// The type that has the accessors: all, or those that only read.
    pub(super) fn fields_type(&self, is_read_only: bool) -> TokenStream {
        let Self { private, allow, .. } = self;
        let (name, fields_name, vis) = (self.name(), self.fields_name(is_read_only), &self.shared.item.vis);
        let this = self.this();
        let generics = with_session(self.generics());
        let (parameters, arguments, bounds) = generics.split_for_impl();
        let handle = if is_read_only { quote!(ReadOnly) } else { quote!(Shared) };
        let doc = format!(
            "The accessors of the fields of a shared [`{name}`]: what its handle, `{handle}<{name}>`, dereferences to."
        );
        let pairs = self.shared.fields.iter().zip(&self.shared.item.fields);
        let mut sound = 0usize..;
        let accessors = pairs.flat_map(|(shared, field)| {
            let index = if shared.is_refused() { 0 } else { sound.next().unwrap_or_default() };
            let index = Literal::usize_unsuffixed(index);
            let is_read_only = is_read_only || shared.options.is_read_only;
            let wanted = shared.accessors.iter().filter(move |(accessor, _)| !is_read_only || accessor.reads());
            wanted
                .map(|(accessor, name)| {
                    self.accessor(*accessor, name, shared, field, &index, handle.to_string() == "ReadOnly")
                })
                .collect::<Vec<_>>()
        });
        let text = fields_name.to_string();
        let copies = ["Clone", "Copy"].map(|missing| copies(missing, &fields_name, &generics, &self.own_bounds()));
        quote! {
            #[doc = #doc]
            #allow
            #[repr(transparent)]
            #vis struct #fields_name #parameters(#private::#handle<'s, #this>) #bounds;

            #(#allow #copies)*

            #allow
            #[automatically_derived]
            impl #parameters ::core::fmt::Debug for #fields_name #arguments #bounds {
                #[inline]
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    f.debug_tuple(#text).field(&self.0).finish()
                }
            }

            #allow
            #[automatically_derived]
            impl #parameters #fields_name #arguments #bounds {
                #(#accessors)*
            }
        }
    }

    /// One accessor: of the type with all of them, or of the one whose handle (`is_reader`) only reads.
    fn accessor(
        &self,
        accessor: Accessor,
        name: &Ident,
        shared_field: &SharedField,
        field: &Field,
        index: &Literal,
        is_reader: bool,
    ) -> TokenStream {
        let (kind, ty, vis) = (&shared_field.kind, &shared_field.ty, &field.vis);
        let only_reads = is_reader || shared_field.options.is_read_only;
        let attributes = attributes(accessor, only_reads, shared_field, field);
        let mut name = name.clone();
        name.set_span(own(name.span()));
        if shared_field.is_refused() {
            // Never called: that it cannot be shared has been reported.
            return match accessor {
                Accessor::Get => quote!(#attributes #vis fn #name(self) -> #ty { ::core::unreachable!() }),
                Accessor::Update => quote! {
                    #attributes #vis fn #name(self, _: impl ::core::ops::FnOnce(#ty) -> #ty) {}
                },
                _ => quote!(#attributes #vis fn #name(self, _: #ty) {}),
            };
        }
        // Whatever names the field's type is at the place of that type, so that one that cannot be shared is one error.
        let span = ty.span();
        let private = &self.options.private_at(span);
        let this = self.this();
        let shared = |then: TokenStream| self.of(ty, "SharedType", &then);
        let assign = |then: TokenStream| self.of(ty, "Assign", &then);
        let handle = match (is_reader, only_reads) {
            (true, _) => shared(quote!(read_field_of::<#this, #index>(self.0))),
            (false, true) => shared(quote!(field_of::<#this, #index>(self.0).read_only())),
            (false, false) => shared(quote!(field_of::<#this, #index>(self.0))),
        };
        let (argument, result, body) = match accessor {
            Accessor::Get => {
                let result = match (kind, element(ty)) {
                    (FieldKind::Integer | FieldKind::Float | FieldKind::Bool, _) => quote!(#ty),
                    (FieldKind::Char, _) => quote!(::core::result::Result<#ty, #private::InvalidValue>),
                    (FieldKind::Array, Some(element)) if only_reads => {
                        quote_spanned!(span=> #private::ReadOnlySlice<'s, #element>)
                    }
                    (FieldKind::Array, Some(element)) => quote_spanned!(span=> #private::Slice<'s, #element>),
                    _ if only_reads => shared(quote!(ReadGetter<'s>)),
                    _ => shared(quote!(Getter<'s>)),
                };
                let get = if only_reads { quote!(read_field(#handle)) } else { quote!(get_field(#handle)) };
                (None, Some(result), shared(get))
            }
            Accessor::Set => {
                let argument = match kind {
                    FieldKind::Integer | FieldKind::Float | FieldKind::Bool | FieldKind::Char => quote!(value: #ty),
                    FieldKind::Array if !field::is_looked_up(ty) => quote!(value: &#ty),
                    _ => {
                        let setter = assign(quote!(Setter<'_>));
                        quote_spanned!(span=> value: #setter)
                    }
                };
                let body = assign(quote!(set_field(#handle, value)));
                (Some(argument), None, quote!(#body;))
            }
            Accessor::Update => {
                let argument = quote!(change: impl ::core::ops::FnOnce(#ty) -> #ty);
                (Some(argument), None, quote_spanned!(span=> #handle.update(change);))
            }
            Accessor::Handle if only_reads => (None, Some(quote_spanned!(span=> #private::ReadOnly<'s, #ty>)), handle),
            Accessor::Handle => (None, Some(quote_spanned!(span=> #private::Shared<'s, #ty>)), handle),
            Accessor::Atomic => {
                (None, Some(quote_spanned!(span=> #private::Atomic<'s, #ty>)), quote_spanned!(span=> #handle.atomic()))
            }
        };
        let bound = match accessor {
            Accessor::Set => Some("Assign"),
            Accessor::Update => Some("Plain"),
            _ => None,
        };
        let bounds = bound.filter(|_| field::is_looked_up(ty)).map(|bound| {
            let bound = bounded(ty, |span| {
                let (private, bound) = (self.options.private_at(span), Ident::new(bound, span));
                quote_spanned!(span=> #private::#bound)
            });
            quote!(where #bound)
        });
        let is_result = accessor == Accessor::Get && matches!(kind, FieldKind::Char);
        let must_use = (result.is_some() && !is_result).then(|| quote!(#[must_use]));
        let result = result.map(|result| quote!(-> #result));
        quote! {
            #attributes
            #[inline]
            #must_use
            #vis fn #name(self, #argument) #result #bounds { #body }
        }
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
fn attributes(accessor: Accessor, only_reads: bool, shared: &SharedField, field: &Field) -> TokenStream {
    let name = &shared.text;
    let is_carried =
        |attribute: &&Attribute| attribute.path().is_ident("doc") || attribute.path().is_ident("deprecated");
    let carried: Vec<_> = field.attrs.iter().filter(is_carried).collect();
    let is_documented = carried.iter().any(|attribute| attribute.path().is_ident("doc"));
    let errors = (accessor == Accessor::Get && matches!(shared.kind, FieldKind::Char)).then(|| {
        quote! {
            #[doc = ""]
            #[doc = "# Errors"]
            #[doc = ""]
            #[doc = "If another process has stored bytes that make no `char`."]
        }
    });
    let doc = match (accessor, &shared.kind) {
        (Accessor::Get, _) if is_documented => return quote!(#(#carried)* #errors),
        (Accessor::Get, FieldKind::Array) => format!("The elements of `{name}`."),
        (Accessor::Get, FieldKind::Named) => {
            format!("`{name}`, as its type gives it: the value of a number or an enum, the handle of anything larger.")
        }
        (Accessor::Get, FieldKind::Atomic) if !only_reads => {
            format!("`{name}`, for operations that are atomic on all hosts.")
        }
        (Accessor::Get, _) => format!("The value of `{name}`: a plain load."),
        (Accessor::Set, _) => format!(
            "Stores `{name}`: other hosts see it after all that this one stored before. Panics when the session has ended."
        ),
        (Accessor::Handle, _) if only_reads => format!("The handle of `{name}`, which only reads."),
        (Accessor::Handle, _) => format!("The handle of `{name}`."),
        (Accessor::Atomic, _) => format!("`{name}`, for operations that are atomic on all hosts."),
        (Accessor::Update, _) => {
            format!("Loads `{name}` and stores what `change` makes of it; not atomic: see `Shared::update`.")
        }
    };
    let blank = is_documented.then(|| quote!(#[doc = ""]));
    quote!(#[doc = #doc] #blank #(#carried)* #errors)
}
