//! Fields: what kind of type each is of, and where it lies.

use crate::refusal;
use proc_macro2::Span;
use quote::ToTokens;
use syn::{Expr, Lit, Type};

/// What a field is, as far as this can be told from how its type is written.
pub(crate) enum FieldKind {
    /// An integer: it gets an accessor for atomic operations.
    Integer,
    /// A float.
    Float,
    /// A `bool`.
    Bool,
    /// A `char`: not all bytes are one.
    Char,
    /// An atomic of std: its getter gives what has its operations.
    Atomic,
    /// An array of such elements.
    Array,
    /// Something with a name that the compiler has to look up.
    Named,
    /// What cannot be shared, and has been reported.
    Refused {
        /// Whether it is known to be `Copy`.
        is_copied: bool,
        /// Whether it is known to be `Send` and `Sync`.
        is_sent: bool,
    },
}

/// Size and alignment in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Size.
    pub(crate) size: u64,
    /// Alignment.
    pub(crate) align: u64,
}

/// Looks at a field's type. `Err` is the innermost type that cannot be shared, and why.
pub(crate) fn classify(ty: &Type) -> Result<FieldKind, (&Type, String)> {
    match ty {
        Type::Paren(inner) => classify(&inner.elem),
        Type::Group(inner) => classify(&inner.elem),
        Type::Array(array) => {
            classify(&array.elem)?;
            if literal(&array.len) == Some(0) {
                let message = "an array of no elements cannot be shared: it has no bytes; leave the field out";
                return Err((ty, message.to_owned()));
            }
            Ok(FieldKind::Array)
        }
        _ => match (scalar(ty), refusal::of_type(ty)) {
            (Some((_, kind)), _) => Ok(kind),
            (None, Some(message)) => Err((ty, message)),
            (None, None) => Ok(FieldKind::Named),
        },
    }
}

/// The innermost type of arrays of arrays; any other type is its own.
pub(crate) fn innermost(ty: &Type) -> &Type {
    match ty {
        Type::Paren(inner) => innermost(&inner.elem),
        Type::Group(inner) => innermost(&inner.elem),
        Type::Array(array) => innermost(&array.elem),
        _ => ty,
    }
}

/// Where a type begins and ends: what the compiler says of code from the one place to the other, it says of the type, and
/// only once.
pub(crate) fn ends(ty: &Type) -> (Span, Span) {
    let mut tokens = ty.to_token_stream().into_iter().map(|token| token.span());
    let first = tokens.next().unwrap_or_else(Span::call_site);
    (first, tokens.last().unwrap_or(first))
}

/// Whether what can be done with values of type `ty` depends on a name that the compiler has to look up.
pub(crate) fn is_looked_up(ty: &Type) -> bool {
    scalar(innermost(ty)).is_none()
}

/// Size and alignment of a scalar, or an array of scalars with literal lengths; unknown of anything else.
pub(crate) fn extent(ty: &Type) -> Option<Extent> {
    match ty {
        Type::Paren(inner) => extent(&inner.elem),
        Type::Group(inner) => extent(&inner.elem),
        Type::Array(array) => {
            let element = extent(&array.elem)?;
            Some(Extent { size: element.size.checked_mul(literal(&array.len)?)?, ..element })
        }
        _ => scalar(ty).map(|(size, _)| Extent { size, align: size }),
    }
}

/// The padding of a `#[repr(C)]` struct of such fields: after which field, and how much.
pub(crate) fn padding(fields: &[Extent]) -> Vec<(usize, u64)> {
    let mut gaps = Vec::new();
    let mut end = 0u64;
    let align = fields.iter().map(|field| field.align).max().unwrap_or(1);
    let starts = fields.iter().map(|field| field.align).chain([align]);
    for (index, align) in starts.enumerate() {
        let gap = end.wrapping_neg() % align;
        if gap > 0 {
            // Nothing comes before the first field, so there is one before a gap.
            gaps.push((index - 1, gap));
        }
        end = end.saturating_add(gap).saturating_add(fields.get(index).map_or(0, |field| field.size));
    }
    gaps
}

/// The size of a scalar in bytes, which is its alignment too on x86-64, and what it is.
fn scalar(ty: &Type) -> Option<(u64, FieldKind)> {
    let Type::Path(path) = ty else { return None };
    if path.qself.is_some() {
        return None;
    }
    let name = path.path.segments.last()?;
    if let Some(size) = atomic(&name.ident.to_string()).filter(|_| name.arguments.is_none()) {
        return Some((size, FieldKind::Atomic));
    }
    match path.path.get_ident()?.to_string().as_str() {
        "u8" | "i8" => Some((1, FieldKind::Integer)),
        "u16" | "i16" => Some((2, FieldKind::Integer)),
        "u32" | "i32" => Some((4, FieldKind::Integer)),
        "u64" | "i64" => Some((8, FieldKind::Integer)),
        "u128" | "i128" => Some((16, FieldKind::Integer)),
        "f32" => Some((4, FieldKind::Float)),
        "f64" => Some((8, FieldKind::Float)),
        "bool" => Some((1, FieldKind::Bool)),
        "char" => Some((4, FieldKind::Char)),
        _ => None,
    }
}

/// The size of an atomic of std.
fn atomic(name: &str) -> Option<u64> {
    match name {
        "AtomicBool" | "AtomicU8" | "AtomicI8" => Some(1),
        "AtomicU16" | "AtomicI16" => Some(2),
        "AtomicU32" | "AtomicI32" => Some(4),
        "AtomicU64" | "AtomicI64" => Some(8),
        _ => None,
    }
}

/// Whether values of this type are certainly not `Copy`.
pub(crate) fn is_atomic(ty: &Type) -> bool {
    matches!(scalar(innermost(ty)), Some((_, FieldKind::Atomic)))
}

/// Whether all bytes of this type are known to be a value, or to be made one.
pub(crate) fn is_plain(ty: &Type) -> bool {
    !matches!(scalar(innermost(ty)), Some((_, FieldKind::Atomic | FieldKind::Char)))
}

fn literal(len: &Expr) -> Option<u64> {
    match len {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(int) => int.base10_parse().ok(),
            _ => None,
        },
        Expr::Paren(inner) => literal(&inner.expr),
        Expr::Group(inner) => literal(&inner.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn extents(types: &[Type]) -> Vec<Extent> {
        types.iter().map(|ty| extent(ty).unwrap()).collect()
    }

    #[test]
    fn extents_of_arrays_of_arrays() {
        assert_eq!(extent(&parse_quote!([[u16; 3]; 0x10usize])), Some(Extent { size: 96, align: 2 }));
        assert_eq!(extent(&parse_quote!((u128))), Some(Extent { size: 16, align: 16 }));
        assert_eq!(extent(&parse_quote!([u16; LEN])), None);
        assert_eq!(extent(&parse_quote!([Pos; 3])), None);
    }

    #[test]
    fn scalars_are_aligned_to_their_size() {
        // `extent` relies on it.
        assert_eq!([align_of::<u16>(), align_of::<u32>(), align_of::<u64>(), align_of::<u128>()], [2, 4, 8, 16]);
        assert_eq!([align_of::<f32>(), align_of::<f64>()], [4, 8]);
    }

    #[test]
    fn padding_is_found_within_and_at_the_end() {
        let fields = extents(&[parse_quote!(u8), parse_quote!(u32), parse_quote!([u16; 3]), parse_quote!(u64)]);
        assert_eq!(padding(&fields), [(0, 3), (2, 2)]);
        let fields = extents(&[parse_quote!(u64), parse_quote!(u8)]);
        assert_eq!(padding(&fields), [(1, 7)]);
        let fields = extents(&[parse_quote!(u32), parse_quote!(u32), parse_quote!([u64; 64])]);
        assert_eq!(padding(&fields), []);
    }

    #[test]
    fn padding_agrees_with_the_compiler() {
        #[repr(C)]
        struct Sample(u8, u16, u8, u64, [u8; 3], u32, u8);
        let types: [Type; 7] = [
            parse_quote!(u8),
            parse_quote!(u16),
            parse_quote!(u8),
            parse_quote!(u64),
            parse_quote!([u8; 3]),
            parse_quote!(u32),
            parse_quote!(u8),
        ];
        let fields = extents(&types);
        let sum: u64 = fields.iter().map(|field| field.size).sum();
        let gaps: u64 = padding(&fields).iter().map(|(_, gap)| gap).sum();
        assert_eq!(size_of::<Sample>() as u64, sum + gaps);
    }

    #[test]
    fn refusals_reach_into_arrays() {
        let ty = parse_quote!([[usize; 3]; 3]);
        let Err((inner, _)) = classify(&ty) else { panic!("`usize` was accepted") };
        assert_eq!(*inner, parse_quote!(usize));
    }
}
