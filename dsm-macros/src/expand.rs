//! What the attribute writes.

use crate::enumeration;
use crate::field::{self, FieldKind};
use crate::item::{self, Accessor, SharedField, SharedStruct};
use crate::options::{self, Options};
use proc_macro2::{Literal, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Field, Generics, Ident, Item, ItemStruct, Type, parse_quote};

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
    let written = match parsed {
        Item::Struct(parsed) => {
            let without_options = without_field_options(&parsed);
            match item::check(parsed, &mut errors) {
                Some(shared) if shared.is_usable => usable(shared, &options, errors.is_empty()),
                _ => quote!(#without_options),
            }
        }
        Item::Enum(parsed) => enumeration::shared(&parsed, &options, &mut errors),
        other => {
            errors.push(item::not_shareable(&other));
            item
        }
    };
    let errors = errors.into_iter().reduce(|mut all, error| {
        all.combine(error);
        all
    });
    let errors = errors.map(Error::into_compile_error);
    quote!(#written #errors)
}

/// The struct without `#[dsm(...)]` on its fields, which only this attribute knows.
fn without_field_options(item: &ItemStruct) -> ItemStruct {
    let mut item = item.clone();
    for field in &mut item.fields {
        field.attrs.retain(|attribute| !attribute.path().is_ident("dsm"));
    }
    item
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

/// Implements `Clone` or `Copy`. Derived, they would complain one by one of a field that cannot be copied.
pub(crate) fn copies(missing: &str, name: &Ident, generics: Option<&Generics>, bounds: &TokenStream) -> TokenStream {
    let none = Generics::default();
    let (parameters, arguments, _) = generics.unwrap_or(&none).split_for_impl();
    match missing {
        "Copy" => quote! {
            #[automatically_derived]
            impl #parameters ::core::marker::Copy for #name #arguments #bounds {}
        },
        _ => quote! {
            #[automatically_derived]
            impl #parameters ::core::clone::Clone for #name #arguments #bounds {
                #[inline]
                fn clone(&self) -> Self {
                    *self
                }
            }
        },
    }
}

fn usable(mut shared: SharedStruct, options: &Options, is_correct: bool) -> TokenStream {
    let krate = &options.krate;
    let private = quote!(#krate::__private);
    for (shared, field) in shared.fields.iter().zip(&mut shared.item.fields) {
        if shared.options.is_aligned && !matches!(shared.kind, FieldKind::Refused) {
            let ty = &field.ty;
            field.ty = parse_quote!(#private::Line<#ty, { #private::pad(::core::mem::size_of::<#ty>()) }>);
        }
    }
    let repr = shared.needs_repr.then(|| quote!(#[repr(C)]));
    let writer = Writer { shared: &shared, options, private, is_correct };
    let item = &shared.item;
    let copied = writer.copied();
    let missing = shared.missing_derives.iter();
    let copies = copied
        .iter()
        .flat_map(|bounds| missing.clone().map(|missing| copies(missing, &item.ident, Some(&item.generics), bounds)));
    let implementation = writer.implementation();
    let (fields_type, read_fields_type) = (writer.fields_type(false), writer.fields_type(true));
    let checks = (is_correct && !writer.is_generic()).then(|| writer.checks());
    quote! {
        #repr
        #item
        #(#copies)*
        #fields_type
        #read_fields_type
        #implementation
        #checks
    }
}

struct Writer<'a> {
    shared: &'a SharedStruct,
    options: &'a Options,
    /// The path of `dsm::__private`.
    private: TokenStream,
    /// Whether there were no errors.
    is_correct: bool,
}

impl Writer<'_> {
    fn name(&self) -> &Ident {
        &self.shared.item.ident
    }

    /// Whether it has parameters: then what is checked is checked when they are known.
    fn is_generic(&self) -> bool {
        !self.shared.item.generics.params.is_empty()
    }

    /// The struct with its parameters.
    fn this(&self) -> TokenStream {
        let (_, arguments, _) = self.shared.item.generics.split_for_impl();
        let name = self.name();
        quote!(#name #arguments)
    }

    fn fields_name(&self, is_read_only: bool) -> Ident {
        let end = if is_read_only { "ReadFields" } else { "Fields" };
        format_ident!("{}{}", self.name(), end, span = own(self.name().span()))
    }

    /// The fields that are not refused, as they were written and as they are in the struct.
    fn sound_fields(&self) -> impl Iterator<Item = (&SharedField, &Field)> {
        let pairs = self.shared.fields.iter().zip(&self.shared.item.fields);
        pairs.filter(|(shared, _)| !matches!(shared.kind, FieldKind::Refused))
    }

    fn offset(&self, field: &SharedField) -> TokenStream {
        let (this, member) = (self.this(), &field.member);
        quote!(::core::mem::offset_of!(#this, #member))
    }

    /// Where the field behind number `index` starts, or where the struct ends.
    fn next(&self, index: usize) -> TokenStream {
        match self.shared.fields.get(index + 1) {
            Some(next) => self.offset(next),
            None => {
                let this = self.this();
                quote!(::core::mem::size_of::<#this>())
            }
        }
    }

    /// Bounds by which an implementation depends on the fields whose types the compiler has to look up. They are written
    /// with `for<'x>` because a bound without parameters would be an error where it does not hold, and here it is to
    /// mean only that there is no such implementation.
    fn bounds(&self, bound: &TokenStream) -> TokenStream {
        let mut types: Vec<&Type> = Vec::new();
        for ty in self.sound_fields().map(|(field, _)| field::innermost(&field.ty)) {
            if field::is_looked_up(ty) && !types.contains(&ty) {
                types.push(ty);
            }
        }
        let bounds: Vec<_> = types.into_iter().map(|ty| quote!(for<'x> #ty: #bound)).collect();
        if bounds.is_empty() { TokenStream::new() } else { quote!(where #(#bounds),*) }
    }

    /// When it can be copied: the bounds, or `None` if never.
    fn copied(&self) -> Option<TokenStream> {
        let never = self.shared.fields.iter().any(|field| field::is_atomic(&field.ty));
        (!never).then(|| self.bounds(&quote!(::core::marker::Copy)))
    }

    /// When any bytes make one: the bounds, or `None` if never.
    fn plain(&self) -> Option<TokenStream> {
        let private = &self.private;
        let always = self.shared.fields.iter().all(|field| field::is_plain(&field.ty));
        always.then(|| self.bounds(&quote!(#private::Plain)))
    }

    fn implementation(&self) -> TokenStream {
        let Self { private, options, .. } = self;
        let this = self.this();
        let (parameters, _, _) = self.shared.item.generics.split_for_impl();
        let (fields_name, read_fields_name) = (self.fields_name(false), self.fields_name(true));
        let with_session = with_session(&self.shared.item.generics);
        let (_, fields_arguments, _) = with_session.split_for_impl();
        let layout = self.layout();
        let text = options.name.as_ref().map_or_else(|| self.name().unraw().to_string(), syn::LitStr::value);
        let version = (options.version > 0).then(|| {
            let version = Literal::u32_unsuffixed(options.version);
            quote!(.with_version(#version))
        });
        let constants = self.shared.item.generics.const_params().map(|parameter| {
            let ident = &parameter.ident;
            quote!(#private::Argument::Const(#ident as i128))
        });
        let given = self.is_generic().then(|| quote!(.with_arguments(const { &[#(#constants),*] })));
        let assign = self.copied().map(|bounds| {
            quote! {
                #[automatically_derived]
                impl #parameters #private::Assign for #this #bounds {
                    type Setter<'a> = &'a Self;

                    #[inline]
                    fn set_field(field: #private::Shared<'_, Self>, value: &Self) {
                        field.store(value);
                    }
                }
            }
        });
        let plain = self.plain().map(|bounds| {
            quote! {
                // Any bytes make one if they make each of its fields.
                #[automatically_derived]
                unsafe impl #parameters #private::Plain for #this #bounds {}
            }
        });
        quote! {
            // What this promises is checked beside it: the fields are shared types, and there is no padding.
            #[automatically_derived]
            unsafe impl #parameters #private::SharedType for #this {
                const LAYOUT: &'static #private::Layout =
                    &#private::structure::<Self>(#text, const { &[#(#layout),*] })#given #version;
                type Fields<'s> = #fields_name #fields_arguments;
                type ReadFields<'s> = #read_fields_name #fields_arguments;
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

            #assign

            #plain
        }
    }

    /// The fields in the layout. Those of a struct with parameters are checked here, when the parameters are known.
    fn layout(&self) -> Vec<TokenStream> {
        let Self { private, .. } = self;
        let pairs = self.shared.fields.iter().zip(&self.shared.item.fields).enumerate();
        let sound = pairs.filter(|(_, (field, _))| !matches!(field.kind, FieldKind::Refused));
        let fields = sound.map(|(index, (shared, field))| {
            let (text, offset, ty) = (&shared.text, self.offset(shared), &field.ty);
            let span = shared.ty.span();
            let private_there = at(span, private);
            let layout = quote_spanned!(span=> <#ty as #private_there::SharedType>::LAYOUT);
            let checked = (self.is_generic() && self.is_correct).then(|| {
                let next = self.next(index);
                quote!(.followed_at(#next))
            });
            quote!(#private::Field::new(#text, #offset, #layout)#checked)
        });
        fields.collect()
    }

    /// The type that has the accessors: all, or those that only read.
    fn fields_type(&self, is_read_only: bool) -> TokenStream {
        let Self { private, .. } = self;
        let (name, fields_name, vis) = (self.name(), self.fields_name(is_read_only), &self.shared.item.vis);
        let this = self.this();
        let generics = with_session(&self.shared.item.generics);
        let (parameters, arguments, _) = generics.split_for_impl();
        let handle = if is_read_only { quote!(ReadOnly) } else { quote!(Shared) };
        let doc = format!(
            "The accessors of the fields of a shared [`{name}`]: what its handle, `{handle}<{name}>`, dereferences to."
        );
        let pairs = self.shared.fields.iter().zip(&self.shared.item.fields);
        let mut sound = 0usize..;
        let accessors = pairs.flat_map(|(shared, field)| {
            let index = if matches!(shared.kind, FieldKind::Refused) { 0 } else { sound.next().unwrap_or_default() };
            let index = Literal::usize_unsuffixed(index);
            let is_read_only = is_read_only || shared.options.is_read_only;
            let wanted = shared.accessors.iter().filter(move |(accessor, _)| !is_read_only || accessor.reads());
            wanted
                .map(|(accessor, name)| {
                    self.accessor(*accessor, name, shared, field, &index, handle.to_string() == "ReadOnly")
                })
                .collect::<Vec<_>>()
        });
        quote! {
            #[doc = #doc]
            #[derive(Clone, Copy, Debug)]
            #[repr(transparent)]
            #vis struct #fields_name #parameters(#private::#handle<'s, #this>);

            #[automatically_derived]
            impl #parameters #fields_name #arguments {
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
        let Self { private, .. } = self;
        let (kind, ty, vis) = (&shared_field.kind, &shared_field.ty, &field.vis);
        let attributes = attributes(accessor, shared_field, field);
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
        let this = self.this();
        let only_reads = is_reader || shared_field.options.is_read_only;
        let shared = quote_spanned!(span=> <#ty as #private::SharedType>);
        let assign = quote_spanned!(span=> <#ty as #private::Assign>);
        let handle = match (is_reader, only_reads) {
            (true, _) => quote_spanned!(span=> #shared::read_field_of::<#this, #index>(self.0)),
            (false, true) => quote_spanned!(span=> #shared::field_of::<#this, #index>(self.0).read_only()),
            (false, false) => quote_spanned!(span=> #shared::field_of::<#this, #index>(self.0)),
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
                    _ if only_reads => quote_spanned!(span=> #shared::ReadGetter<'s>),
                    _ => quote_spanned!(span=> #shared::Getter<'s>),
                };
                let get = if only_reads { quote_spanned!(span=> read_field) } else { quote_spanned!(span=> get_field) };
                (None, Some(result), quote_spanned!(span=> #shared::#get(#handle)))
            }
            Accessor::Set => {
                let argument = match kind {
                    FieldKind::Integer | FieldKind::Float | FieldKind::Bool | FieldKind::Char => quote!(value: #ty),
                    FieldKind::Array if !field::is_looked_up(ty) => quote!(value: &#ty),
                    _ => quote_spanned!(span=> value: #assign::Setter<'_>),
                };
                (Some(argument), None, quote_spanned!(span=> #assign::set_field(#handle, value);))
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
            Accessor::Set => Some(quote_spanned!(span=> #private::Assign)),
            Accessor::Update => Some(quote_spanned!(span=> #private::Plain)),
            _ => None,
        };
        let bounds = bound.filter(|_| field::is_looked_up(ty)).map(|bound| quote!(where for<'x> #ty: #bound));
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

    /// Constants whose evaluation fails where there is padding, or a field without bytes, or a destructor.
    fn checks(&self) -> TokenStream {
        let Self { private, .. } = self;
        let pairs = self.shared.fields.iter().zip(&self.shared.item.fields);
        let checks = pairs.enumerate().map(|(index, (shared, field))| {
            let (ty, text) = (&field.ty, &shared.text);
            let (offset, next) = (self.offset(shared), self.next(index));
            let span = own(shared.base.span());
            let private = at(span, private);
            quote_spanned! {span=>
                const _: () = #private::assert_no_gap(#text, #offset, ::core::mem::size_of::<#ty>(), #next);
            }
        });
        let name = self.name();
        let destructor = self.copied().is_none().then(|| {
            let span = own(name.span());
            let private = at(span, private);
            quote_spanned!(span=> const _: () = #private::assert_no_destructor::<#name>();)
        });
        quote!(#(#checks)* #destructor)
    }
}

/// The parameters with the session's lifetime before them.
fn with_session(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    generics.params.insert(0, parse_quote!('s));
    generics
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
fn attributes(accessor: Accessor, shared: &SharedField, field: &Field) -> TokenStream {
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
        (Accessor::Get, FieldKind::Named) => format!("The handle of `{name}`, or its value if it is a number."),
        (Accessor::Get, FieldKind::Atomic) => format!("`{name}`, for operations that are atomic on all hosts."),
        (Accessor::Get, _) => format!("The value of `{name}`: a plain load."),
        (Accessor::Set, _) => format!("Stores `{name}`."),
        (Accessor::Handle, _) => format!("The handle of `{name}`."),
        (Accessor::Atomic, _) => format!("`{name}`, for operations that are atomic on all hosts."),
        (Accessor::Update, _) => {
            format!("Loads `{name}` and stores what `change` makes of it; not atomic: see `Shared::update`.")
        }
    };
    let blank = is_documented.then(|| quote!(#[doc = ""]));
    quote!(#[doc = #doc] #blank #(#carried)* #errors)
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
            [
                "Board",
                "impl",
                "impl",
                "BoardFields",
                "impl",
                "BoardReadFields",
                "impl",
                "unsafe impl",
                "impl",
                "unsafe impl",
                "check",
                "check"
            ]
        );
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
        assert_eq!(
            names(&file),
            [
                "Board",
                "impl",
                "impl",
                "BoardFields",
                "impl",
                "BoardReadFields",
                "impl",
                "unsafe impl",
                "impl",
                "unsafe impl",
                "compile_error",
                "compile_error"
            ]
        );
        assert_eq!(
            accessors(&file),
            ["len", "set_len", "turn", "set_turn", "turn_ref", "turn_atomic", "update_turn", "len", "turn", "turn_ref"]
        );
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
            ["Phase", "compile_error", "compile_error"]
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
        // The field itself, its five accessors, and the two that only read.
        assert_eq!(text.matches("Whose turn it is.").count(), 8);
        assert_eq!(text.matches("deprecated").count(), 8);
    }
}
