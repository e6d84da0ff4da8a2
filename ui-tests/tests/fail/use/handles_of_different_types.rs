use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    turn: u32,
}

#[dsm::shared]
struct Table {
    turn: u32,
}

fn same(board: Shared<'_, Board>, table: Shared<'_, Table>) -> bool {
    Shared::ptr_eq(board, table)
}

fn equal(one: Shared<'_, Board>, other: Shared<'_, Board>) -> bool {
    one == other
}

fn main() {}
