//! What the attribute stands on: checks that it is a struct that can be shared, and says everything that is wrong
//! with it at once.

use crate::field::{self, Extent, FieldKind};
use crate::options::{self, FieldOptions};
use crate::refusal::{self, text};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use std::collections::HashMap;
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Fields, GenericParam, Ident, Index, Item, ItemStruct, Member, Meta, Path, Token, Type, TypeParam,
    WherePredicate, parse_quote,
};

/// Methods of the handles themselves, `dsm::Shared` and `dsm::ReadOnly`, whatever they are handles of: an accessor of that
/// name would be hidden by them. A test compares the list with the sources.
const HANDLE_METHODS: &[&str] = &[
    "as_ptr",
    "hole",
    "load",
    "read_only",
    "store",
    "try_load",
    "update",
    "wait_until",
    "wait_until_async",
    "wait_until_timeout",
];

/// Methods that every handle has from traits that are always in scope.
const PRELUDE_METHODS: &[&str] = &["clone", "clone_from", "clone_into", "into", "to_owned", "try_into"];

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
    /// Whether what makes it a shared struct can be written. It is written even if there were errors, so that no others
    /// follow from those that were reported.
    pub(crate) is_usable: bool,
}

/// A field of it.
pub(crate) struct SharedField {
    /// What it is.
    pub(crate) kind: FieldKind,
    /// Its type as it was written.
    pub(crate) ty: Type,
    /// What it is called in the struct.
    pub(crate) member: Member,
    /// What its accessors are named after.
    pub(crate) base: Ident,
    /// What it is called in the layout.
    pub(crate) text: String,
    /// What was asked for.
    pub(crate) options: FieldOptions,
    /// Its accessors, without those that would collide with others.
    pub(crate) accessors: Vec<(Accessor, Ident)>,
}

impl SharedField {
    /// Whether its type cannot be shared, which has been reported.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.kind, FieldKind::Refused { .. })
    }
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
    /// `update_x(|value| ...)`.
    Update,
}

/// Looks through `item`. What is wrong with it goes to `errors`.
pub(crate) fn check(item: ItemStruct, errors: &mut Vec<Error>) -> SharedStruct {
    let mut shared = SharedStruct {
        missing_derives: missing_derives(&item.attrs),
        needs_repr: true,
        is_usable: true,
        fields: Vec::new(),
        item,
    };
    check_shape(&mut shared, errors);
    for attribute in &shared.item.attrs {
        if is_shared(attribute.path()) {
            errors.push(Error::new_spanned(attribute, "`#[dsm::shared]` is given twice"));
            shared.is_usable = false; // The other one does it.
        }
    }
    let is_plain = check_repr(&mut shared, errors);
    let are_options_known = check_fields(&mut shared, errors);
    if is_plain && are_options_known {
        check_padding(&shared, errors);
    }
    check_names(&mut shared, errors);
    shared
}

/// Whether this is the path of the attribute itself: `shared` or `dsm::shared`.
pub(crate) fn is_shared(path: &Path) -> bool {
    let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    matches!(names[..], ["shared"] | ["dsm", "shared"])
}

/// What to say of an item that is neither a struct nor an enum.
pub(crate) fn not_shareable(item: &Item) -> Error {
    let only = "`#[dsm::shared]` is for structs, and enums without data";
    match item {
        Item::Union(item) => Error::new(
            item.union_token.span,
            format!("{only}: use one struct for each reading of a union, or an array of bytes"),
        ),
        Item::Fn(item) => Error::new(item.sig.fn_token.span, only),
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

/// Checks that it has fields, and that its parameters are types that can be shared, and constants.
fn check_shape(shared: &mut SharedStruct, errors: &mut Vec<Error>) {
    let item = &shared.item;
    let nothing = "a struct without fields cannot be shared: it has no bytes";
    match &item.fields {
        Fields::Unnamed(fields) if fields.unnamed.is_empty() => {
            errors.push(Error::new(fields.paren_token.span.join(), nothing));
        }
        Fields::Unit => errors.push(Error::new_spanned(&item.ident, nothing)),
        Fields::Named(fields) if fields.named.is_empty() => {
            errors.push(Error::new(fields.brace_token.span.join(), nothing));
        }
        Fields::Named(_) | Fields::Unnamed(_) => {}
    }
    for lifetime in item.generics.lifetimes() {
        errors.push(Error::new_spanned(
            lifetime,
            "a shared struct has no lifetime parameters: what it borrowed would mean nothing in another process",
        ));
        shared.is_usable = false;
    }
    for TypeParam { ident, bounds, .. } in item.generics.type_params() {
        let predicates = item.generics.where_clause.iter().flat_map(|clause| &clause.predicates);
        let mut bounded = predicates.filter_map(|predicate| match predicate {
            WherePredicate::Type(predicate) => Some(&predicate.bounded_ty),
            _ => None,
        });
        if bounds.is_empty() && !bounded.any(|ty| matches!(ty, Type::Path(path) if path.path.is_ident(ident))) {
            errors.push(Error::new_spanned(
                ident,
                format!(
                    "what this stands for has to be something that can be shared: write `{ident}: dsm::SharedType`"
                ),
            ));
        }
    }
}

pub(crate) fn missing_derives(attributes: &[Attribute]) -> Vec<&'static str> {
    let derived = |name: &str| {
        let derives = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
        derives
            .filter_map(|derive| derive.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated).ok())
            .flatten()
            .any(|path| path.segments.last().is_some_and(|last| last.ident == name))
    };
    ["Clone", "Copy"].into_iter().filter(|name| !derived(name)).collect()
}

/// Checks `#[repr(...)]`, and says whether it leaves every field where `repr(C)` alone would put it. One that is wrong does
/// not stay.
fn check_repr(shared: &mut SharedStruct, errors: &mut Vec<Error>) -> bool {
    let (mut is_plain, before) = (true, errors.len());
    for attribute in shared.item.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        let Ok(reprs) = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else {
            continue; // The compiler says what is wrong with it.
        };
        for repr in reprs {
            if repr.path().is_ident("C") {
                shared.needs_repr = false;
            } else if repr.path().is_ident("align") {
                is_plain = false;
            } else if repr.path().is_ident("packed") {
                let message = "a shared struct cannot be packed: only aligned fields are stored without tearing; \
                 `#[dsm::shared]` makes sure that there is no padding";
                errors.push(Error::new_spanned(repr, message));
            } else {
                let message = format!(
                    "a shared struct is `repr(C)`, which `#[dsm::shared]` adds; `{}` contradicts it",
                    text(&repr)
                );
                errors.push(Error::new_spanned(repr, message));
            }
        }
    }
    let is_right = errors.len() == before;
    if !is_right {
        shared.item.attrs.retain(|attribute| !attribute.path().is_ident("repr"));
        shared.needs_repr = true;
    }
    is_plain && is_right
}

/// Checks the fields, and says whether their options are all known.
fn check_fields(shared: &mut SharedStruct, errors: &mut Vec<Error>) -> bool {
    let mut are_options_known = true;
    let parameters: Vec<_> = shared.item.generics.params.iter().filter_map(parameter_name).cloned().collect();
    for (index, field) in shared.item.fields.iter_mut().enumerate() {
        field.attrs.retain(|attribute| {
            let is_cfg = attribute.path().is_ident("cfg");
            if is_cfg {
                errors.push(Error::new_spanned(
                    attribute,
                    "a field of a shared struct cannot depend on `cfg`: all programs have to agree on its layout",
                ));
            }
            !is_cfg
        });
        let before = errors.len();
        let mut options = options::of_field(&mut field.attrs, errors);
        if options.is_aligned && mentions(field.ty.to_token_stream(), &parameters) {
            errors.push(Error::new_spanned(
                &field.ty,
                "a field on lines of its own cannot depend on a parameter: how much fills its last line has to be known",
            ));
            options.is_aligned = false;
        }
        are_options_known &= errors.len() == before;
        let span = field.ty.span();
        let kind = if is_itself(field::innermost(&field.ty), &shared.item.ident) {
            let name = &shared.item.ident;
            let message = format!(
                "a struct cannot contain itself: it would never end; point to the other by `dsm::Pointer<{name}>`"
            );
            errors.push(Error::new_spanned(&field.ty, message));
            let ty = &field.ty;
            field.ty = parse_quote!(&'static #ty);
            FieldKind::Refused { is_copied: true, is_sent: true }
        } else {
            let refused = field::classify(&field.ty).map_err(|(ty, message)| Error::new_spanned(ty, message));
            refused.unwrap_or_else(|error| {
                errors.push(error);
                field.ty = refusal::stand_in(&field.ty);
                FieldKind::Refused { is_copied: refusal::is_copied(&field.ty), is_sent: refusal::is_sent(&field.ty) }
            })
        };
        let member = match &field.ident {
            Some(name) => Member::Named(name.clone()),
            None => Member::Unnamed(Index { index: u32::try_from(index).unwrap_or(u32::MAX), span }),
        };
        let (base, text) = match (&options.rename, &field.ident) {
            (Some(name), _) | (None, Some(name)) => (name.clone(), name.unraw().to_string()),
            (None, None) => (Ident::new(&format!("field_{index}"), span), index.to_string()),
        };
        let ty = field.ty.clone();
        shared.fields.push(SharedField { kind, ty, member, base, text, options, accessors: Vec::new() });
    }
    are_options_known
}

/// What a parameter of types or constants is called.
fn parameter_name(parameter: &GenericParam) -> Option<&Ident> {
    match parameter {
        GenericParam::Type(parameter) => Some(&parameter.ident),
        GenericParam::Const(parameter) => Some(&parameter.ident),
        GenericParam::Lifetime(_) => None,
    }
}

/// Whether one of the names is in the tokens.
fn mentions(tokens: TokenStream, names: &[Ident]) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => names.contains(&ident),
        TokenTree::Group(group) => mentions(group.stream(), names),
        _ => false,
    })
}

/// Whether this is the type that is being declared.
fn is_itself(ty: &Type, name: &Ident) -> bool {
    matches!(ty, Type::Path(path) if path.path.is_ident(name) || path.path.is_ident("Self"))
}

/// Reports padding, if the extents of all fields are known.
fn check_padding(shared: &SharedStruct, errors: &mut Vec<Error>) {
    let extents = shared.fields.iter().map(|field| {
        let Extent { size, align } = field::extent(&field.ty)?;
        Some(if field.options.is_aligned {
            Extent { size: size.next_multiple_of(64), align: 64 }
        } else {
            Extent { size, align }
        })
    });
    let Some(extents) = extents.collect::<Option<Vec<_>>>() else { return };
    for (index, gap) in field::padding(&extents) {
        let Some(field) = shared.fields.get(index) else { continue };
        let bytes = if gap == 1 { "byte" } else { "bytes" };
        let filler = match field.member {
            Member::Named(_) => format!("_pad: [u8; {gap}]"),
            Member::Unnamed(_) => format!("[u8; {gap}]"),
        };
        errors.push(Error::new(
            field.base.span(),
            format!(
                "{gap} padding {bytes} after `{}`: shared memory has none, because nobody stores them; \
                 fill the gap by a field `{filler}`, or put larger fields first",
                field.text
            ),
        ));
    }
}

/// Names the accessors, and reports those that collide.
fn check_names(shared: &mut SharedStruct, errors: &mut Vec<Error>) {
    let mut taken: HashMap<String, (Accessor, Ident)> = HashMap::new();
    let mut fields: Vec<_> = shared.fields.iter_mut().collect();
    fields.retain(|field| !field.options.skips_accessors && !field.base.unraw().to_string().starts_with('_'));
    // Getters first: it is the field with the longer name that is told to change.
    for accessor in Accessor::ALL {
        for field in &mut fields {
            if field.options.skips_accessors || !accessor.is_made_for(field) {
                continue;
            }
            let field_name = field.base.unraw().to_string();
            let name = accessor.name(&field.base);
            let key = name.unraw().to_string();
            if accessor == Accessor::Get
                && let Some(message) = hidden_by(&key)
            {
                errors.push(Error::new(field.base.span(), message));
                continue;
            }
            if let Some((other, other_field)) = taken.get(&key) {
                let (span, message) = match other {
                    // Only a new name can be the same.
                    Accessor::Get if accessor == Accessor::Get => {
                        field.options.skips_accessors = true;
                        (field.base.span(), format!("two fields are called `{key}`; give one another name"))
                    }
                    // The getter of one field is the setter of another.
                    Accessor::Get => (
                        other_field.span(),
                        format!(
                            "field `{key}` collides with the accessor `{key}` of field `{field_name}`; \
                             give it another name"
                        ),
                    ),
                    _ => (
                        field.base.span(),
                        format!(
                            "field `{field_name}` and field `{}` both have an accessor `{key}`; \
                             give one another name",
                            other_field.unraw()
                        ),
                    ),
                };
                errors.push(Error::new(span, message));
                continue;
            }
            taken.insert(key, (accessor, field.base.clone()));
            field.accessors.push((accessor, name));
        }
    }
}

fn hidden_by(name: &str) -> Option<String> {
    if HANDLE_METHODS.contains(&name) {
        return Some(format!(
            "a field cannot be called `{name}`: the handle has a method of that name, which would hide the accessor"
        ));
    }
    let is_hidden = PRELUDE_METHODS.contains(&name);
    is_hidden.then(|| {
        format!(
            "a field cannot be called `{name}`: every type has a method of that name, which would hide the accessor"
        )
    })
}

impl Accessor {
    const ALL: [Self; 5] = [Self::Get, Self::Set, Self::Handle, Self::Atomic, Self::Update];

    fn is_made_for(self, field: &SharedField) -> bool {
        let (kind, is_read_only) = (&field.kind, field.options.is_read_only);
        match self {
            Self::Get => true,
            Self::Set => !is_read_only && !field::is_atomic(&field.ty),
            Self::Handle => !field.is_refused(),
            Self::Atomic => !is_read_only && matches!(kind, FieldKind::Integer),
            Self::Update => {
                let has_values = matches!(
                    kind,
                    FieldKind::Integer
                        | FieldKind::Float
                        | FieldKind::Bool
                        | FieldKind::Named
                        | FieldKind::Refused { .. }
                );
                !is_read_only && has_values
            }
        }
    }

    /// Whether it does not store.
    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Handle)
    }

    fn name(self, field: &Ident) -> Ident {
        let plain = field.unraw();
        match self {
            Self::Get => field.clone(),
            Self::Set => Ident::new(&format!("set_{plain}"), field.span()),
            Self::Handle => Ident::new(&format!("{plain}_ref"), field.span()),
            Self::Atomic => Ident::new(&format!("{plain}_atomic"), field.span()),
            Self::Update => Ident::new(&format!("update_{plain}"), field.span()),
        }
    }
}

#[cfg(test)]
mod handle_methods;

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    /// The names of all accessors, and what was found to be wrong.
    fn checked(item: ItemStruct) -> (Vec<String>, Vec<String>) {
        let mut errors = Vec::new();
        let shared = check(item, &mut errors);
        let accessors = shared.fields.iter().flat_map(|field| &field.accessors);
        (accessors.map(|(_, name)| name.to_string()).collect(), errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn accessors_suit_the_field() {
        let (accessors, errors) = checked(parse_quote! {
            struct Board { r#type: u32, speed: f32, scores: [u64; 3], pos: Pos, _pad: u64 }
        });
        assert_eq!(errors, [] as [&str; 0]);
        let expected = "r#type set_type type_ref type_atomic update_type speed set_speed speed_ref update_speed \
                        scores set_scores scores_ref pos set_pos pos_ref update_pos";
        assert_eq!(accessors, expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn collisions_are_found_and_the_first_accessor_stays() {
        let (accessors, errors) = checked(parse_quote! { struct Board { x: u32, set_x: f32, y: u32, y_ref: u32 } });
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].contains("field `set_x` collides with the accessor `set_x` of field `x`"));
        assert!(errors[1].contains("field `y_ref` collides with the accessor `y_ref` of field `y`"));
        for name in ["set_x", "y_ref"] {
            assert_eq!(accessors.iter().filter(|accessor| *accessor == name).count(), 1);
        }
    }

    #[test]
    fn two_derived_accessors_can_collide() {
        let (_, errors) = checked(parse_quote! { struct Board { set_x: u32, x_atomic: u32, x: f32 } });
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].contains("field `set_x` collides with the accessor `set_x` of field `x`"));
        assert!(errors[1].contains("field `set_x` and field `x_atomic` both have an accessor `set_x_atomic`"));
    }

    #[test]
    fn options_of_fields_change_their_accessors() {
        let (accessors, errors) = checked(parse_quote! {
            struct Board {
                #[dsm(skip_accessors)] a: u32, #[dsm(rename = "bee")] b: u32, #[dsm(read_only)] c: u64, d: AtomicU64,
                e: char,
            }
        });
        assert_eq!(
            errors,
            ["4 padding bytes after `e`: shared memory has none, because nobody stores them; \
                             fill the gap by a field `_pad: [u8; 4]`, or put larger fields first"]
        );
        let expected = "bee set_bee bee_ref bee_atomic update_bee c c_ref d d_ref e set_e e_ref";
        assert_eq!(accessors, expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn fields_of_tuple_structs_are_numbered() {
        let (accessors, errors) = checked(parse_quote! { struct Pair(f32, #[dsm(rename = "y", read_only)] f32); });
        assert_eq!(errors, [] as [&str; 0]);
        assert_eq!(accessors, ["field_0", "set_field_0", "field_0_ref", "update_field_0", "y", "y_ref"]);
    }

    #[test]
    fn wrong_options_of_fields_are_found() {
        let (_, errors) = checked(parse_quote! {
            struct Board { #[dsm(hot, align = 32, rename, rename = "1x")] a: u32, b: u32, #[dsm(rename = "b")] c: [u32; 15] }
        });
        assert_eq!(errors.len(), 5, "{errors:?}");
        assert!(errors[4].contains("two fields are called `b`"), "{errors:?}");
    }

    #[test]
    fn hidden_names_are_found() {
        for name in HANDLE_METHODS.iter().chain(PRELUDE_METHODS) {
            let name = Ident::new(name, proc_macro2::Span::call_site());
            let (_, errors) = checked(parse_quote! { struct Board { #name: u32 } });
            assert!(errors[0].contains("would hide the accessor"), "{errors:?}");
        }
    }

    #[test]
    fn derives_are_seen_under_any_path() {
        let derives = |item: ItemStruct| missing_derives(&item.attrs);
        assert_eq!(derives(parse_quote! { struct A { x: u8 } }), ["Clone", "Copy"]);
        assert_eq!(derives(parse_quote! { #[derive(Debug, Clone)] #[derive(Eq)] struct A { x: u8 } }), ["Copy"]);
        assert_eq!(
            derives(parse_quote! { #[derive(core::marker::Copy, ::std::clone::Clone)] struct A { x: u8 } }),
            [""; 0]
        );
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let (_, errors) = checked(parse_quote! {
            #[repr(packed)]
            struct Board { a: isize, #[cfg(x)] b: u32, load: u32, c: Vec<u8>, d: [usize; 3] }
        });
        assert_eq!(errors.len(), 6, "{errors:?}");
    }

    #[test]
    fn the_compilers_own_alignment_is_left_to_it() {
        let (_, errors) = checked(parse_quote! { #[repr(C, align(16))] struct Board { a: u8, b: u32 } });
        assert_eq!(errors, [] as [&str; 0]);
        let (_, errors) = checked(parse_quote! { #[repr(C)] struct Board { a: u8, b: u32 } });
        assert!(errors[0].starts_with("3 padding bytes after `a`"), "{errors:?}");
    }
}
