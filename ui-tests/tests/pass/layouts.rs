//! What the attribute says of the layout of a struct.
use dsm::typed::{Kind, SharedType, first_difference};

const LEN: usize = 3;

#[dsm::shared]
struct Pos {
    x: f32,
    y: f32,
}

#[dsm::shared]
struct Board {
    turn: u32,
    r#type: u32,
    pos: [Pos; LEN],
    wide: i128,
    _pad: [u8; 16],
}

mod elsewhere {
    pub(super) mod same {
        #[dsm::shared]
        pub(crate) struct Pos {
            pub(crate) x: f32,
            y: f32,
        }
    }
    pub(super) mod other_name {
        #[dsm::shared]
        pub(crate) struct Pos {
            x: f32,
            z: f32,
        }
    }
    pub(super) mod other_order {
        #[dsm::shared]
        pub(crate) struct Pos {
            y: f32,
            x: f32,
        }
    }
    pub(super) mod other_type {
        #[dsm::shared]
        pub(crate) struct Pos {
            x: f32,
            y: u32,
        }
    }
}

#[test]
fn layouts_are_as_the_compiler_has_them() {
    let layout = Board::LAYOUT;
    assert_eq!((layout.size, layout.align), (size_of::<Board>(), align_of::<Board>()));
    assert_eq!((layout.size, layout.align), (64, 16));
    let Kind::Struct { name, fields, .. } = layout.kind else { panic!("{layout:?}") };
    assert_eq!(name, "Board");
    let fields: Vec<_> = fields.iter().map(|field| (field.name, field.layout.to_string(), field.offset)).collect();
    let expected = [
        ("turn", "u32", 0),
        ("type", "u32", 4),
        ("pos", "[Pos; 3]", 8),
        ("wide", "i128", 32),
        ("_pad", "[u8; 16]", 48),
    ];
    assert_eq!(fields, expected.map(|(name, ty, offset)| (name, ty.to_owned(), offset)));
}

#[test]
fn fingerprints_do_not_depend_on_the_module() {
    assert_eq!(Pos::LAYOUT.fingerprint, elsewhere::same::Pos::LAYOUT.fingerprint);
}

#[test]
fn fingerprints_depend_on_names_order_and_types() {
    let others =
        [elsewhere::other_name::Pos::LAYOUT, elsewhere::other_order::Pos::LAYOUT, elsewhere::other_type::Pos::LAYOUT];
    for other in others {
        assert_ne!(Pos::LAYOUT.fingerprint, other.fingerprint);
        assert!(first_difference(&Pos::LAYOUT.describe(), &other.describe()).is_some());
    }
    assert_ne!(Pos::LAYOUT.fingerprint, <[Pos; 1]>::LAYOUT.fingerprint);
}

/// Programs that were built apart compare fingerprints, so this may change only with the version of the protocol.
#[test]
fn fingerprints_stay() {
    assert_eq!(Board::LAYOUT.fingerprint, 0xec1a18149a6c5b7b);
}

/// Of a nested struct, its fields count, not only its name.
#[test]
fn fingerprints_reach_into_structs() {
    mod one {
        #[dsm::shared]
        pub(super) struct Outer {
            pub(super) pos: super::Pos,
        }
    }
    mod other {
        #[dsm::shared]
        pub(super) struct Outer {
            pub(super) pos: super::elsewhere::other_name::Pos,
        }
    }
    assert_ne!(one::Outer::LAYOUT.fingerprint, other::Outer::LAYOUT.fingerprint);
    assert_eq!(
        first_difference(&one::Outer::LAYOUT.describe(), &other::Outer::LAYOUT.describe()).unwrap(),
        "the field at byte 4 is `pos.y: f32` here, but `pos.z: f32` in the segment"
    );
}
