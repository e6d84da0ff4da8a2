//! Layouts as flat lists: what travels to another program, and in which words two of them are compared.

use super::layout::{Kind, Layout};

/// One entry of a described layout: the whole type, or a field of it at any depth.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldDesc {
    /// Where it is: `turn`, `pos.x`, `cells[].owner` (in the first element), or nothing for the whole type.
    pub path: String,
    /// Its type as it stands in source.
    pub ty: String,
    /// Distance from the start of the whole type in bytes.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

impl FieldDesc {
    /// An entry as it came from elsewhere.
    #[must_use]
    pub fn new(path: String, ty: String, offset: u64, size: u64) -> Self {
        Self { path, ty, offset, size }
    }
}

impl Layout {
    /// The layout as a flat list: the whole type first (its path is empty), then every field in the order of
    /// offsets, a struct before its own fields. Of an array of structs, the first element is listed.
    #[must_use]
    pub fn describe(&self) -> Vec<FieldDesc> {
        let mut list = Vec::new();
        self.describe_into(&mut list, String::new(), 0);
        list
    }

    fn describe_into(&self, list: &mut Vec<FieldDesc>, path: String, offset: usize) {
        list.push(FieldDesc::new(path.clone(), self.to_string(), offset as u64, self.size as u64));
        let (mut innermost, mut path) = (self, path);
        while let Kind::Array { element, .. } = innermost.kind {
            innermost = element;
            path.push_str("[]");
        }
        if let Kind::Struct { fields, .. } = innermost.kind {
            for field in fields {
                let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
                field.layout.describe_into(list, path, offset + field.offset);
            }
        }
    }
}

/// In words, the first difference between the layout that a program declares (`want`) and the one that a
/// segment was made with (`found`), or `None` if they are the same.
#[must_use]
pub fn first_difference(want: &[FieldDesc], found: &[FieldDesc]) -> Option<String> {
    field_difference(want, found).or_else(|| {
        // The fields agree, so only names of types, or the size of a type without fields, are left to differ.
        let both = want.iter().zip(found);
        both.filter(|(want, found)| want != found).map(|(want, found)| type_difference(want, found)).next()
    })
}

fn field_difference(want: &[FieldDesc], found: &[FieldDesc]) -> Option<String> {
    let (want_leaves, found_leaves) = (leaves(want), leaves(found));
    let mut index = 0;
    loop {
        let (want_field, found_field) = match (want_leaves.get(index), found_leaves.get(index)) {
            (None, None) => return None,
            (Some(want_field), None) => return Some(missing_there(want_field)),
            (None, Some(found_field)) => return Some(missing_here(found_field)),
            (Some(want_field), Some(found_field)) => (*want_field, *found_field),
        };
        index += 1;
        if want_field.path == found_field.path {
            if (&want_field.ty, want_field.size) != (&found_field.ty, found_field.size) {
                return Some(type_difference(want_field, found_field));
            }
            if want_field.offset != found_field.offset {
                return Some(format!(
                    "field `{}` is at byte {} here, but at byte {} in the segment",
                    want_field.path, want_field.offset, found_field.offset
                ));
            }
            continue;
        }
        let there = found.iter().find(|other| other.path == want_field.path);
        let here = want.iter().find(|other| other.path == found_field.path);
        return Some(match (there, here) {
            (Some(there), None) if there.ty != want_field.ty => type_difference(want_field, there),
            (None, Some(here)) if here.ty != found_field.ty => type_difference(here, found_field),
            (Some(_), None) => missing_here(found_field),
            (None, Some(_)) => missing_there(want_field),
            (None, None) => format!(
                "the field at byte {} is `{}: {}` here, but `{}: {}` in the segment",
                want_field.offset, want_field.path, want_field.ty, found_field.path, found_field.ty
            ),
            (Some(there), Some(_)) => format!(
                "field `{}` is at byte {} here, but at byte {} in the segment",
                want_field.path, want_field.offset, there.offset
            ),
        });
    }
}

/// The entries that no other entry lies in: those that hold the bytes. The whole type is one only when it has
/// no fields.
fn leaves(list: &[FieldDesc]) -> Vec<&FieldDesc> {
    let is_inside = |inner: &FieldDesc, outer: &FieldDesc| {
        outer.path.is_empty()
            || inner.path.strip_prefix(&outer.path).is_some_and(|rest| rest.starts_with('.') || rest.starts_with("[]"))
    };
    let next = list.iter().skip(1).map(Some).chain([None]);
    let pairs = list.iter().zip(next);
    pairs.filter(|(entry, next)| !next.is_some_and(|next| is_inside(next, entry))).map(|(entry, _)| entry).collect()
}

fn type_difference(want: &FieldDesc, found: &FieldDesc) -> String {
    let subject = if want.path.is_empty() { "the type".to_owned() } else { format!("field `{}`", want.path) };
    if want.ty == found.ty {
        format!("{subject} has {} bytes here, but {} in the segment", want.size, found.size)
    } else {
        format!("{subject} is `{}` here, but `{}` in the segment", want.ty, found.ty)
    }
}

fn missing_there(field: &FieldDesc) -> String {
    format!("field `{}: {}` is declared here, but the segment has none of that name", field.path, field.ty)
}

fn missing_here(field: &FieldDesc) -> String {
    format!("the segment has a field `{}: {}`, which is not declared here", field.path, field.ty)
}
