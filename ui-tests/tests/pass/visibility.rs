//! Each accessor is as visible as its field.
use dsm::typed::Shared;

mod game {
    pub(super) mod inner {
        #[dsm::shared]
        pub(crate) struct Board {
            pub(crate) everywhere: u32,
            pub(super) outside: u32,
            pub(in crate::visibility) here: u32,
            inside: u32,
        }

        pub(super) fn inside(board: super::Shared<'_, Board>) -> u32 {
            board.inside()
        }
    }

    use super::Shared;

    pub(super) fn outside(board: Shared<'_, inner::Board>) -> u32 {
        board.outside_ref().get() + inner::inside(board)
    }
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn here(board: Shared<'_, game::inner::Board>) -> u32 {
    board.set_here(1);
    board.everywhere() + game::outside(board)
}

/// Structs can be declared in a function, and be private to it.
#[test]
fn in_a_function() {
    #[dsm::shared]
    struct Local {
        number: u32,
    }
    let number = |local: Shared<'_, Local>| local.number();
    assert_eq!(size_of_val(&number), 0);
}
