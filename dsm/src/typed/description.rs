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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::typed::layout::Field;
    use crate::typed::{Kind, SharedType};

    const POS: &Layout =
        &Layout::structure("Pos", 8, 4, &[Field::new("x", 0, f32::LAYOUT), Field::new("y", 4, f32::LAYOUT)]);

    const BOARD: &Layout = &Layout::structure(
        "Board",
        48,
        8,
        &[
            Field::new("turn", 0, u32::LAYOUT),
            Field::new("phase", 4, u32::LAYOUT),
            Field::new("scores", 8, <[u64; 2]>::LAYOUT),
            Field::new("pos", 24, POS),
            Field::new("trail", 32, &Layout::array(POS, 2)),
        ],
    );

    fn listed(layout: &Layout) -> Vec<String> {
        let entries = layout.describe();
        entries.iter().map(|entry| format!("{}+{} {}: {}", entry.offset, entry.size, entry.path, entry.ty)).collect()
    }

    /// `BOARD` with field `index` in another way.
    fn with(index: usize, change: impl FnOnce(&mut Field)) -> Vec<FieldDesc> {
        let Kind::Struct { name, fields } = BOARD.kind else { unreachable!() };
        let mut fields = fields.to_vec();
        change(&mut fields[index]);
        Layout::structure(name, BOARD.size, BOARD.align, fields.leak()).describe()
    }

    fn difference(found: &[FieldDesc]) -> String {
        first_difference(&BOARD.describe(), found).expect("they differ")
    }

    #[test]
    fn structs_are_listed_with_their_fields() {
        assert_eq!(
            listed(BOARD),
            [
                "0+48 : Board",
                "0+4 turn: u32",
                "4+4 phase: u32",
                "8+16 scores: [u64; 2]",
                "24+8 pos: Pos",
                "24+4 pos.x: f32",
                "28+4 pos.y: f32",
                "32+16 trail: [Pos; 2]",
                "32+4 trail[].x: f32",
                "36+4 trail[].y: f32",
            ]
        );
        assert_eq!(listed(&Layout::array(POS, 3)), ["0+24 : [Pos; 3]", "0+4 [].x: f32", "4+4 [].y: f32"]);
        assert_eq!(listed(u64::LAYOUT), ["0+8 : u64"]);
    }

    #[test]
    fn equal_layouts_do_not_differ() {
        for layout in [BOARD, POS, u64::LAYOUT, <[u8; 3]>::LAYOUT, &Layout::array(POS, 3)] {
            assert_eq!(first_difference(&layout.describe(), &layout.describe()), None);
        }
    }

    #[test]
    fn another_type() {
        let found = with(1, |field| field.layout = i32::LAYOUT);
        assert_eq!(difference(&found), "field `phase` is `u32` here, but `i32` in the segment");
        let found = with(2, |field| field.layout = <[u64; 3]>::LAYOUT);
        assert_eq!(difference(&found), "field `scores` is `[u64; 2]` here, but `[u64; 3]` in the segment");
        let found = with(3, |field| field.layout = f64::LAYOUT);
        assert_eq!(difference(&found), "field `pos` is `Pos` here, but `f64` in the segment");
        let found = with(4, |field| field.layout = const { &Layout::array(POS, 3) });
        assert_eq!(difference(&found), "field `trail` is `[Pos; 2]` here, but `[Pos; 3]` in the segment");
        assert_eq!(
            first_difference(&u64::LAYOUT.describe(), &u32::LAYOUT.describe()).unwrap(),
            "the type is `u64` here, but `u32` in the segment"
        );
    }

    #[test]
    fn another_name() {
        let found = with(1, |field| field.name = "stage");
        assert_eq!(difference(&found), "the field at byte 4 is `phase: u32` here, but `stage: u32` in the segment");
        let mut found = BOARD.describe();
        found[0].ty = "Table".to_owned();
        assert_eq!(difference(&found), "the type is `Board` here, but `Table` in the segment");
        let mut found = BOARD.describe();
        found[4].ty = "Point".to_owned();
        assert_eq!(difference(&found), "field `pos` is `Pos` here, but `Point` in the segment");
    }

    #[test]
    fn another_place() {
        let found = with(1, |field| field.offset = 8);
        assert_eq!(difference(&found), "field `phase` is at byte 4 here, but at byte 8 in the segment");
        let mut found = BOARD.describe();
        found[1].offset = 4;
        found[2].offset = 0;
        found.swap(1, 2);
        assert_eq!(difference(&found), "field `turn` is at byte 0 here, but at byte 4 in the segment");
    }

    #[test]
    fn fields_of_structs_are_named() {
        let longer: &'static [Field] = const { &[Field::new("x", 0, f32::LAYOUT), Field::new("y", 4, f64::LAYOUT)] };
        let found = with(3, |field| field.layout = Box::leak(Box::new(Layout::structure("Pos", 12, 4, longer))));
        assert_eq!(difference(&found), "field `pos.y` is `f32` here, but `f64` in the segment");
    }

    #[test]
    fn more_and_fewer_fields() {
        let mut found = BOARD.describe();
        found.remove(2);
        assert_eq!(difference(&found), "field `phase: u32` is declared here, but the segment has none of that name");
        assert_eq!(
            first_difference(&found, &BOARD.describe()).unwrap(),
            "the segment has a field `phase: u32`, which is not declared here"
        );
        let mut found = BOARD.describe();
        found.push(FieldDesc::new("round".to_owned(), "u64".to_owned(), 48, 8));
        assert_eq!(difference(&found), "the segment has a field `round: u64`, which is not declared here");
        assert_eq!(
            first_difference(&found, &BOARD.describe()).unwrap(),
            "field `round: u64` is declared here, but the segment has none of that name"
        );
    }

    #[test]
    fn lists_that_cannot_be_layouts_are_compared_all_the_same() {
        let nothing = Vec::new();
        assert!(first_difference(&BOARD.describe(), &nothing).is_some());
        assert!(first_difference(&nothing, &BOARD.describe()).is_some());
        assert_eq!(first_difference(&nothing, &nothing), None);
    }
}
