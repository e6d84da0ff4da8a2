//! Layouts as flat lists: what travels to another program, which compares it with its own.

use super::layout::{Kind, Layout};
use dsm_core::segment::FieldDesc;

/// How much of the variants of an enum is listed, in bytes; then comes the fingerprint.
const LONGEST: usize = 700;

impl Layout {
    /// The layout as a flat list: the whole type first (its path is empty), then every field in the order of
    /// offsets, a struct before its own fields. Of an array of structs, the first element is listed.
    #[must_use]
    pub fn describe(&self) -> Vec<FieldDesc> {
        let mut list = Vec::new();
        self.describe_into(&mut list, String::new(), 0);
        list
    }

    /// The type as it stands in source, with what else two programs have to agree on and the fields do not show.
    fn declared(&self) -> String {
        let mut text = self.to_string();
        let mut innermost = self;
        while let Kind::Array { element, .. } = innermost.kind {
            innermost = element;
        }
        if let Kind::Enum { repr, variants, .. } = innermost.kind {
            text += &format!(" as {repr} {{");
            for (index, variant) in variants.iter().enumerate() {
                if text.len() > LONGEST {
                    text += &format!(" ... {:016x}", innermost.fingerprint);
                    break;
                }
                text += &format!("{} {} = {}", if index == 0 { "" } else { "," }, variant.name, variant.value);
            }
            text += " }";
        }
        if let Kind::Struct { version, .. } | Kind::Enum { version, .. } = innermost.kind
            && version != 0
        {
            text += &format!(" version {version}");
        }
        text
    }

    fn describe_into(&self, list: &mut Vec<FieldDesc>, path: String, offset: usize) {
        list.push(FieldDesc::new(path.clone(), self.declared(), offset as u64, self.size as u64));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::typed::layout::Field;
    use crate::typed::{Kind, SharedType};
    use dsm_core::difference::first_difference;

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
        let Kind::Struct { name, fields, .. } = BOARD.kind else { unreachable!() };
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
