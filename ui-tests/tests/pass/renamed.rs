//! The crate `dsm` under another name.
use dsm as my_dsm;

mod nested {
    pub(super) mod library {
        pub(crate) use dsm::*;
    }
}

#[my_dsm::shared(crate = my_dsm)]
struct Board {
    turn: u32,
    more: [u32; 3],
}

#[nested::library::shared(protocol = "replicated", crate = crate::renamed::nested::library)]
struct Table {
    turn: u32,
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn turns(board: dsm::typed::Shared<'_, Board>, table: dsm::typed::Shared<'_, Table>) -> u32 {
    board.turn() + table.turn()
}
