//! What the attribute stands on: checks that it is a struct that can be shared, and says everything that is wrong
//! with it at once.

use crate::field::{self, FieldKind};
use crate::refusal::text;
use std::collections::HashMap;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Field, Fields, Ident, Item, ItemStruct, Meta, Path, Token};

/// Methods of the handle itself, `dsm::Shared`: an accessor of that name would be hidden by them.
const HANDLE_METHODS: &[&str] = &["as_ptr", "hole", "load", "raw_hole", "store"];

/// Methods that every handle has from traits that are always in scope.
const PRELUDE_METHODS: &[&str] = &["clone", "clone_into", "into", "to_owned", "try_into"];

/// A struct that the attribute stands on, looked through.
pub(crate) struct SharedStruct {
    /// The struct as it was written.
    pub(crate) item: ItemStruct,
    /// Its fields.
    pub(crate) fields: Vec<SharedField>,
    /// Which of `Clone` and `Copy` have still to be derived.
    pub(crate) missing_derives: Vec<&'static str>,
    /// Whether `#[repr(C)]` has to be added.
    pub(crate) needs_repr: bool,
    /// Whether nothing was found that makes the struct useless to the rest of the program. If so, what can be written
    /// is written, so that no other errors follow from those that were reported.
    pub(crate) is_usable: bool,
    /// Whether the padding is known already, and reported.
    pub(crate) is_padding_known: bool,
}

/// A field of it.
pub(crate) struct SharedField {
    /// What it is.
    pub(crate) kind: FieldKind,
    /// Its accessors, without those that would collide with others.
    pub(crate) accessors: Vec<(Accessor, Ident)>,
}

/// What an accessor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accessor {
    /// `x()`.
    Get,
    /// `set_x(value)`.
    Set,
    /// `x_ref()`.
    Handle,
    /// `x_atomic()`.
    Atomic,
}

/// Looks through `item`. What is wrong with it goes to `errors`; `None` if nothing can be made of it.
pub(crate) fn check(item: Item, errors: &mut Vec<Error>) -> Option<SharedStruct> {
    let item = match item {
        Item::Struct(item) => item,
        other => {
            errors.push(not_a_struct(&other));
            return None;
        }
    };
    if !check_shape(&item, errors) {
        return None;
    }
    let mut shared = SharedStruct {
        missing_derives: missing_derives(&item.attrs),
        needs_repr: true,
        is_usable: true,
        is_padding_known: false,
        fields: Vec::new(),
        item,
    };
    for attribute in &shared.item.attrs {
        if attribute.path().segments.last().is_some_and(|last| last.ident == "shared") {
            errors.push(Error::new_spanned(attribute, "`#[dsm::shared]` is given twice"));
            shared.is_usable = false;
        }
    }
    let has_align = check_repr(&mut shared, errors);
    check_fields(&mut shared, errors);
    if !has_align {
        check_padding(&mut shared, errors);
    }
    check_names(&mut shared, errors);
    Some(shared)
}

fn not_a_struct(item: &Item) -> Error {
    let only = "`#[dsm::shared]` is for structs with named fields";
    match item {
        Item::Enum(item) => Error::new(
            item.enum_token.span,
            format!(
                "{only}: any bytes may be stored by another process, and not all make a variant of an enum; share a number, and match on it"
            ),
        ),
        Item::Union(item) => Error::new(
            item.union_token.span,
            format!("{only}: use one struct for each reading of a union, or an array of bytes"),
        ),
        Item::Fn(item) => Error::new_spanned(&item.sig.fn_token, only),
        Item::Impl(item) => Error::new(item.impl_token.span, format!("{only}: put it on the struct itself")),
        Item::Mod(item) => Error::new(item.mod_token.span, format!("{only}: put it on each struct in the module")),
        Item::Static(item) => Error::new(
            item.static_token.span,
            format!("{only}: a shared variable is opened by `session.open::<Type>(name)`"),
        ),
        Item::Trait(item) => Error::new(item.trait_token.span, only),
        Item::Type(item) => Error::new(
            item.type_token.span,
            format!("{only}: an alias can be shared as it is, if what it stands for can be shared"),
        ),
        other => Error::new_spanned(other, only),
    }
}

/// Whether it is a struct of named fields without parameters.
fn check_shape(item: &ItemStruct, errors: &mut Vec<Error>) -> bool {
    let before = errors.len();
    match &item.fields {
        Fields::Unnamed(fields) => errors.push(Error::new(
            fields.paren_token.span.join(),
            "a tuple struct cannot be shared: accessors are named after the fields; give the fields names",
        )),
        Fields::Unit => errors.push(Error::new_spanned(&item.ident, "a struct without fields cannot be shared: it has no bytes")),
        Fields::Named(fields) if fields.named.is_empty() => errors.push(Error::new(
            fields.brace_token.span.join(),
            "a struct without fields cannot be shared: it has no bytes",
        )),
        Fields::Named(_) => {}
    }
    for lifetime in item.generics.lifetimes() {
        errors.push(Error::new_spanned(
            lifetime,
            "a shared struct has no lifetime parameters: what it borrowed would mean nothing in another process",
        ));
    }
    for parameter in item.generics.type_params() {
        errors.push(Error::new_spanned(
            parameter,
            "a shared struct has no type parameters: all programs have to agree on its layout; write out the type",
        ));
    }
    for parameter in item.generics.const_params() {
        errors.push(Error::new_spanned(
            parameter,
            "a shared struct has no const parameters: all programs have to agree on its layout; use a constant",
        ));
    }
    errors.len() == before
}

fn missing_derives(attributes: &[Attribute]) -> Vec<&'static str> {
    let derived = |name: &str| {
        let derives = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
        derives
            .filter_map(|derive| derive.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated).ok())
            .flatten()
            .any(|path| path.segments.last().is_some_and(|last| last.ident == name))
    };
    ["Clone", "Copy"].into_iter().filter(|name| !derived(name)).collect()
}

/// Checks `#[repr(...)]`, and says whether it changes the alignment.
fn check_repr(shared: &mut SharedStruct, errors: &mut Vec<Error>) -> bool {
    let mut has_align = false;
    for attribute in shared.item.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        let Ok(reprs) = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else {
            continue; // The compiler says what is wrong with it.
        };
        for repr in reprs {
            if repr.path().is_ident("C") {
                shared.needs_repr = false;
            } else if repr.path().is_ident("align") {
                has_align = true;
            } else if repr.path().is_ident("packed") {
                shared.is_usable = false;
                let message = "a shared struct cannot be packed: only aligned fields are stored without tearing; `#[dsm::shared]` makes sure that there is no padding";
                errors.push(Error::new_spanned(repr, message));
            } else {
                shared.is_usable = false;
                let message = format!("a shared struct is `repr(C)`, which `#[dsm::shared]` adds; `{}` contradicts it", text(&repr));
                errors.push(Error::new_spanned(repr, message));
            }
        }
    }
    has_align
}

fn check_fields(shared: &mut SharedStruct, errors: &mut Vec<Error>) {
    for field in &shared.item.fields {
        if let Some(cfg) = field.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
            errors.push(Error::new_spanned(
                cfg,
                "a field of a shared struct cannot depend on `cfg`: all programs have to agree on its layout",
            ));
            shared.is_usable = false;
        }
        let kind = field::classify(&field.ty).unwrap_or_else(|(ty, refusal)| {
            errors.push(Error::new_spanned(ty, refusal.message));
            shared.is_usable &= refusal.is_copy;
            FieldKind::Refused
        });
        shared.fields.push(SharedField { kind, accessors: Vec::new() });
    }
}

/// Reports padding, if the extents of all fields are known.
fn check_padding(shared: &mut SharedStruct, errors: &mut Vec<Error>) {
    let extents: Option<Vec<_>> = shared.item.fields.iter().map(|field| field::extent(&field.ty)).collect();
    let Some(extents) = extents else { return };
    for (index, gap) in field::padding(&extents) {
        let field = shared.item.fields.iter().nth(index).expect("padding comes after a field");
        let name = field_name(field);
        let bytes = if gap == 1 { "byte" } else { "bytes" };
        errors.push(Error::new_spanned(
            name,
            format!(
                "{gap} padding {bytes} after `{}`: shared memory has none, because nobody stores them; fill the gap by a field `_pad: [u8; {gap}]`, or put larger fields first",
                name.unraw()
            ),
        ));
        shared.is_padding_known = true;
    }
}

/// Names the accessors, and reports those that collide.
fn check_names(shared: &mut SharedStruct, errors: &mut Vec<Error>) {
    let mut taken: HashMap<String, (Accessor, String)> = HashMap::new();
    let mut fields: Vec<_> = shared.fields.iter_mut().zip(&shared.item.fields).collect();
    fields.retain(|(_, field)| !field_name(field).unraw().to_string().starts_with('_'));
    // Getters first: it is the field with the longer name that is told to change.
    for accessor in [Accessor::Get, Accessor::Set, Accessor::Handle, Accessor::Atomic] {
        for (shared_field, field) in &mut fields {
            if !accessor.is_made_for(&shared_field.kind) {
                continue;
            }
            let field_ident = field_name(field);
            let field_name = field_ident.unraw().to_string();
            let name = accessor.name(field_ident);
            let key = name.unraw().to_string();
            if accessor == Accessor::Get
                && let Some(message) = hidden_by(&key)
            {
                errors.push(Error::new_spanned(field_ident, message));
                continue;
            }
            if let Some((other, other_field)) = taken.get(&key) {
                let (span, message) = match other {
                    // The getter of one field is the setter of another.
                    Accessor::Get => (
                        find(&shared.item, other_field),
                        format!("field `{key}` collides with the accessor `{key}` of field `{field_name}`; give it another name"),
                    ),
                    _ => (
                        field_ident,
                        format!("field `{field_name}` and field `{other_field}` both have an accessor `{key}`; give one another name"),
                    ),
                };
                errors.push(Error::new_spanned(span, message));
                continue;
            }
            taken.insert(key, (accessor, field_name));
            shared_field.accessors.push((accessor, name));
        }
    }
}

fn hidden_by(name: &str) -> Option<String> {
    if HANDLE_METHODS.contains(&name) {
        return Some(format!("a field cannot be called `{name}`: the handle has a method of that name, which would hide the accessor"));
    }
    let is_hidden = PRELUDE_METHODS.contains(&name);
    is_hidden.then(|| {
        format!("a field cannot be called `{name}`: every type has a method of that name, which would hide the accessor")
    })
}

fn find<'a>(item: &'a ItemStruct, name: &str) -> &'a Ident {
    let names = item.fields.iter().map(field_name);
    names.into_iter().find(|ident| ident.unraw() == name).expect("only names of fields are looked for")
}

/// The name of a field of a struct whose fields have names.
pub(crate) fn field_name(field: &Field) -> &Ident {
    field.ident.as_ref().expect("the fields have names")
}

impl Accessor {
    fn is_made_for(self, kind: &FieldKind) -> bool {
        match self {
            Self::Get | Self::Set => true,
            Self::Handle => !matches!(kind, FieldKind::Refused),
            Self::Atomic => matches!(kind, FieldKind::Integer),
        }
    }

    fn name(self, field: &Ident) -> Ident {
        let plain = field.unraw();
        match self {
            Self::Get => field.clone(),
            Self::Set => Ident::new(&format!("set_{plain}"), field.span()),
            Self::Handle => Ident::new(&format!("{plain}_ref"), field.span()),
            Self::Atomic => Ident::new(&format!("{plain}_atomic"), field.span()),
        }
    }
}

