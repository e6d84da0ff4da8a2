//! In which words two descriptions of a type are compared.

use crate::segment::FieldDesc;

/// In words, the first difference between the layout that a program declares (`want`) and the one that a
/// segment was made with (`found`), or `None` if they are the same.
#[must_use]
pub fn first_difference(want: &[FieldDesc], found: &[FieldDesc]) -> Option<String> {
    // What holds for the whole type comes last: of a field that differs, a user wants to know the name.
    field_difference(want, found).or_else(|| {
        let mut both = want.iter().zip(found);
        both.find(|(want, found)| want != found).map(|(want, found)| type_difference(want, found))
    })
}

fn field_difference(want: &[FieldDesc], found: &[FieldDesc]) -> Option<String> {
    let mut index = 0;
    loop {
        let (want_field, found_field) = match (fields(want).nth(index), fields(found).nth(index)) {
            (None, None) => return None,
            (Some(want_field), None) => return Some(missing_there(want_field)),
            (None, Some(found_field)) => return Some(missing_here(found_field)),
            (Some(want_field), Some(found_field)) => (want_field, found_field),
        };
        if want_field.path != found_field.path {
            return Some(path_difference(want, want_field, found, found_field));
        }
        // A struct whose size differs is not the one to name: one of its own fields, which follow, is.
        let is_struct = has_fields(want, want_field) && has_fields(found, found_field);
        if want_field.ty != found_field.ty || (want_field.size != found_field.size && !is_struct) {
            return Some(type_difference(want_field, found_field));
        }
        if want_field.offset != found_field.offset {
            return Some(offset_difference(want_field, found_field));
        }
        index += 1;
    }
}

/// The difference of two layouts that are alike up to two fields of different names.
fn path_difference(want: &[FieldDesc], want_field: &FieldDesc, found: &[FieldDesc], found_field: &FieldDesc) -> String {
    let there = fields(found).find(|other| other.path == want_field.path);
    let here = fields(want).find(|other| other.path == found_field.path);
    match (there, here) {
        (Some(_), None) => missing_here(found_field),
        (None, Some(_)) => missing_there(want_field),
        (Some(there), Some(_)) => offset_difference(want_field, there),
        (None, None) => format!(
            "the field at byte {} is `{}: {}` here, but `{}: {}` in the segment",
            want_field.offset, want_field.path, want_field.ty, found_field.path, found_field.ty
        ),
    }
}

fn fields(list: &[FieldDesc]) -> impl Iterator<Item = &FieldDesc> {
    list.iter().filter(|entry| !entry.path.is_empty())
}

fn has_fields(list: &[FieldDesc], outer: &FieldDesc) -> bool {
    let is_inside = |rest: &str| rest.starts_with('.') || rest.starts_with("[]");
    list.iter().any(|entry| entry.path.strip_prefix(&outer.path).is_some_and(is_inside))
}

fn offset_difference(want: &FieldDesc, found: &FieldDesc) -> String {
    format!("field `{}` is at byte {} here, but at byte {} in the segment", want.path, want.offset, found.offset)
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
