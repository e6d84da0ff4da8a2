//! What the attribute writes.

use crate::enumeration;
use crate::field::{self, FieldKind};
use crate::item::{self, SharedField, SharedStruct};
use crate::options::{self, Options};
use proc_macro2::{Literal, Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Field, GenericParam, Generics, Ident, Item, ItemStruct, Lifetime, Type, TypeParamBound,
    parse_quote,
};

mod accessors;
#[cfg(test)]
mod tests;

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
            let shared = item::check(parsed, &mut errors);
            if shared.is_usable { usable(shared, &options, errors.is_empty()) } else { quote!(#without_options) }
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

/// A span that shows the place of `span` but belongs to the attribute's own code, which lints leave alone.
fn own(span: Span) -> Span {
    span.resolved_at(Span::mixed_site())
}

/// `tokens`, all at `span`: so that the compiler shows nothing else when something is wrong with them.
fn at(span: Span, tokens: &TokenStream) -> TokenStream {
    let respanned = tokens.clone().into_iter().map(|mut token| {
        token.set_span(span);
        token
    });
    respanned.collect()
}

/// The bound of a field's type, at the place of the type. It is written with `for<'x>` because a bound without parameters
/// would be an error where it does not hold, and here it is to mean only that there is no such implementation.
fn bounded(ty: &Type, bound: impl Fn(Span) -> TokenStream) -> TokenStream {
    let (mut first, mut last) = field::ends(ty);
    if let Type::Path(path) = ty
        && path.path.get_ident().is_some()
    {
        // Without arguments of its own it is no mistake to name the type; but of a parameter, lints would have bounds joined.
        (first, last) = (own(first), own(last));
    }
    let lifetime = Lifetime::new("'x", own(first));
    let mut bound: Vec<_> = bound(last).into_iter().collect();
    // A path that the user wrote begins where it was written.
    if let Some(begin @ TokenTree::Punct(_)) = bound.first_mut() {
        begin.set_span(first);
    }
    let any = quote_spanned!(first=> for<#lifetime>);
    quote_spanned!(last=> #any #ty: #(#bound)*)
}

/// Implements `Clone` or `Copy`. Derived, they would complain one by one of a field that cannot be copied, and depend on
/// the parameters instead of the fields.
pub(crate) fn copies(missing: &str, name: &Ident, generics: &Generics, bounds: &TokenStream) -> TokenStream {
    let (parameters, arguments, _) = generics.split_for_impl();
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

/// `#[allow(deprecated)]` for what the attribute writes, if something of the item is: its own code is no use of it.
pub(crate) fn allow_deprecated<'a>(mut attributes: impl Iterator<Item = &'a Attribute>) -> Option<TokenStream> {
    attributes.any(|attribute| attribute.path().is_ident("deprecated")).then(|| quote!(#[allow(deprecated)]))
}

fn usable(mut shared: SharedStruct, options: &Options, is_correct: bool) -> TokenStream {
    let private = options.private();
    for (shared, field) in shared.fields.iter().zip(&mut shared.item.fields) {
        if shared.options.is_aligned && !shared.is_refused() {
            let ty = &field.ty;
            field.ty = parse_quote!(#private::Line<#ty, { #private::pad(::core::mem::size_of::<#ty>()) }>);
        }
    }
    let repr = shared.needs_repr.then(|| quote!(#[repr(C)]));
    let attributes = shared.item.attrs.iter().chain(shared.item.fields.iter().flat_map(|field| &field.attrs));
    let allow = allow_deprecated(attributes);
    let generics = of_implementations(&shared.item.generics, &private);
    let writer = Writer { shared: &shared, options, generics, private, allow, is_correct };
    let item = &shared.item;
    let copied = writer.copied();
    let missing = shared.missing_derives.iter();
    let (allow, generics) = (&writer.allow, writer.generics());
    let copies = copied.iter().flat_map(|bounds| {
        missing.clone().map(move |missing| {
            let implementation = copies(missing, &item.ident, generics, bounds);
            quote!(#allow #implementation)
        })
    });
    let sent = writer.sent();
    let implementation = writer.implementation();
    let (fields_type, read_fields_type) = (writer.fields_type(false), writer.fields_type(true));
    let checks = (is_correct && !writer.is_generic()).then(|| writer.checks());
    quote! {
        #repr
        #item
        #(#copies)*
        #sent
        #fields_type
        #read_fields_type
        #implementation
        #checks
    }
}

/// The parameters of a struct, with which it is a shared type: types have to be shared, too.
fn of_implementations(generics: &Generics, private: &TokenStream) -> Generics {
    let mut generics = generics.clone();
    let is_said = |bound: &TypeParamBound| {
        matches!(bound, TypeParamBound::Trait(bound)
            if bound.path.segments.last().is_some_and(|last| last.ident == "SharedType"))
    };
    let unsaid = generics.type_params().filter(|parameter| !parameter.bounds.iter().any(is_said));
    let unsaid: Vec<_> = unsaid.map(|parameter| parameter.ident.clone()).collect();
    for name in unsaid {
        generics.make_where_clause().predicates.push(parse_quote!(#name: #private::SharedType));
    }
    generics
}

struct Writer<'a> {
    shared: &'a SharedStruct,
    options: &'a Options,
    /// The parameters of the implementations.
    generics: Generics,
    /// The path of `dsm::__private`.
    private: TokenStream,
    /// What of it is deprecated may be named.
    allow: Option<TokenStream>,
    /// Whether there were no errors.
    is_correct: bool,
}

impl Writer<'_> {
    fn name(&self) -> &Ident {
        &self.shared.item.ident
    }

    fn generics(&self) -> &Generics {
        &self.generics
    }

    /// Whether it has parameters: then what is checked is checked when they are known.
    fn is_generic(&self) -> bool {
        !self.generics().params.is_empty()
    }

    /// The struct with its parameters.
    fn this(&self) -> TokenStream {
        let (_, arguments, _) = self.generics().split_for_impl();
        let name = self.name();
        quote!(#name #arguments)
    }

    /// What the type with the accessors is called. No name in camel case has such an underscore in it, and none ends both
    /// ways, so the name meets neither a name of the user's nor that of another struct's accessors.
    fn fields_name(&self, is_read_only: bool) -> Ident {
        let end = if is_read_only { "ReadFields" } else { "Fields" };
        format_ident!("{}_{}", self.name(), end, span = own(self.name().span()))
    }

    /// The fields that are not refused, as they were written and as they are in the struct.
    fn sound_fields(&self) -> impl Iterator<Item = (&SharedField, &Field)> {
        let pairs = self.shared.fields.iter().zip(&self.shared.item.fields);
        pairs.filter(|(shared, _)| !shared.is_refused())
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

    /// The struct's own `where` clause.
    fn own_bounds(&self) -> TokenStream {
        let (_, _, clause) = self.generics().split_for_impl();
        quote!(#clause)
    }

    /// The struct's own bounds, and those by which an implementation depends on the types of the fields. All of them: what
    /// is called `u32` may be something else.
    fn bounds(&self, bound: impl Fn(Span) -> TokenStream) -> TokenStream {
        let mut types: Vec<&Type> = Vec::new();
        for ty in self.sound_fields().map(|(field, _)| field::innermost(&field.ty)) {
            if !types.contains(&ty) {
                types.push(ty);
            }
        }
        let own = self.generics().where_clause.iter().flat_map(|clause| &clause.predicates);
        let bounds: Vec<_> = own.map(|own| quote!(#own)).chain(types.iter().map(|ty| bounded(ty, &bound))).collect();
        if bounds.is_empty() { TokenStream::new() } else { quote!(where #(#bounds),*) }
    }

    /// When it can be copied: the bounds, or `None` if never.
    fn copied(&self) -> Option<TokenStream> {
        let never = |field: &SharedField| match field.kind {
            FieldKind::Refused { is_copied, .. } => !is_copied,
            _ => field::is_atomic(&field.ty),
        };
        let never = self.shared.fields.iter().any(never);
        (!never).then(|| self.bounds(|span| quote_spanned!(span=> ::core::marker::Copy)))
    }

    /// When any bytes make one: the bounds, or `None` if never.
    fn plain(&self) -> Option<TokenStream> {
        self.copied()?;
        let always = self.shared.fields.iter().all(|field| field::is_plain(&field.ty));
        always.then(|| {
            self.bounds(|span| {
                let private = self.options.private_at(span);
                quote_spanned!(span=> #private::Plain)
            })
        })
    }

    /// `<Type as Trait>`, with `then` behind it, all at the place of the type.
    fn of(&self, ty: &Type, a_trait: &str, then: &TokenStream) -> TokenStream {
        let (first, last) = field::ends(ty);
        let (private, a_trait) = (self.options.private_at(last), Ident::new(a_trait, last));
        let (open, then) = (quote_spanned!(first=> <), at(last, then));
        quote_spanned!(last=> #open #ty as #private::#a_trait>::#then)
    }

    /// With a field that was refused, the struct might not be `Send` and `Sync`, which a shared type is; this is never run,
    /// and there is nothing more to say of it.
    fn sent(&self) -> Option<TokenStream> {
        let is_refused = |field: &SharedField| matches!(field.kind, FieldKind::Refused { is_sent: false, .. });
        self.shared.fields.iter().any(is_refused).then(|| {
            let (this, bounds) = (self.this(), self.own_bounds());
            let (parameters, _, _) = self.generics().split_for_impl();
            quote! {
                #[automatically_derived]
                unsafe impl #parameters ::core::marker::Send for #this #bounds {}
                #[automatically_derived]
                unsafe impl #parameters ::core::marker::Sync for #this #bounds {}
            }
        })
    }

    fn implementation(&self) -> TokenStream {
        let Self { private, options, allow, .. } = self;
        let this = self.this();
        let (parameters, _, own_bounds) = self.generics().split_for_impl();
        let (fields_name, read_fields_name) = (self.fields_name(false), self.fields_name(true));
        let with_session = with_session(self.generics());
        let (_, fields_arguments, _) = with_session.split_for_impl();
        let layout = self.layout();
        let text = options.name.as_ref().map_or_else(|| self.name().unraw().to_string(), syn::LitStr::value);
        let version = (options.version > 0).then(|| {
            let version = Literal::u32_unsuffixed(options.version);
            quote!(.with_version(#version))
        });
        let given = self.generics().params.iter().filter_map(|parameter| match parameter {
            GenericParam::Const(parameter) => {
                let ident = &parameter.ident;
                Some(quote!(#private::Argument::Const(#ident as ::core::primitive::i128)))
            }
            GenericParam::Type(parameter) => {
                let ident = &parameter.ident;
                Some(quote!(#private::Argument::Type(<#ident as #private::SharedType>::LAYOUT)))
            }
            GenericParam::Lifetime(_) => None,
        });
        let given: Vec<_> = given.collect();
        let layout = match (given.is_empty(), self.is_correct) {
            (true, _) => quote!(#private::structure::<Self>(#text, const { &[#(#layout),*] })),
            (false, true) => quote! {
                #private::structure_with::<Self>(#text, const { &[#(#layout),*] }, const { &[#(#given),*] })
            },
            (false, false) => quote! {
                #private::structure::<Self>(#text, const { &[#(#layout),*] }).with_arguments(const { &[#(#given),*] })
            },
        };
        let assign = self.copied().map(|bounds| {
            quote! {
                #allow
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
                #allow
                #[automatically_derived]
                unsafe impl #parameters #private::Plain for #this #bounds {}
            }
        });
        quote! {
            // What this promises is checked beside it: the fields are shared types, and there is no padding.
            #allow
            #[automatically_derived]
            unsafe impl #parameters #private::SharedType for #this #own_bounds {
                const LAYOUT: &'static #private::Layout = &#layout #version;
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
        let sound = pairs.filter(|(_, (field, _))| !field.is_refused());
        let fields = sound.map(|(index, (shared, field))| {
            let (text, offset, ty) = (&shared.text, self.offset(shared), &field.ty);
            let layout = if shared.options.is_aligned {
                let span = shared.ty.span();
                let private_there = self.options.private_at(span);
                quote_spanned!(span=> <#ty as #private_there::SharedType>::LAYOUT)
            } else {
                self.of(ty, "SharedType", &quote!(LAYOUT))
            };
            let written = quote!(#private::Field::new(#text, #offset, #layout));
            if self.is_generic() && self.is_correct {
                let next = self.next(index);
                // At the place of the field, which the compiler shows when there is a gap.
                let span = own(shared.base.span());
                let private = self.options.private_at(span);
                quote_spanned!(span=> #private::Field::followed_at(#written, #next))
            } else {
                written
            }
        });
        fields.collect()
    }

    /// Constants whose evaluation fails where there is padding, or a field without bytes, or a destructor.
    fn checks(&self) -> TokenStream {
        let allow = &self.allow;
        let pairs = self.shared.fields.iter().zip(&self.shared.item.fields);
        let checks = pairs.enumerate().map(|(index, (shared, field))| {
            let (ty, text) = (&field.ty, &shared.text);
            let (offset, next) = (self.offset(shared), self.next(index));
            let span = own(shared.base.span());
            let private = self.options.private_at(span);
            quote_spanned! {span=>
                #allow
                const _: () = #private::assert_no_gap(#text, #offset, ::core::mem::size_of::<#ty>(), #next);
            }
        });
        let name = self.name();
        // What is `Copy` has none; but what derives it by itself may derive something else of that name.
        let is_copied = self.copied().is_some() && self.shared.missing_derives.contains(&"Copy");
        let destructor = (!is_copied).then(|| {
            let span = own(name.span());
            let private = self.options.private_at(span);
            quote_spanned!(span=> #allow const _: () = #private::assert_no_destructor::<#name>();)
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
