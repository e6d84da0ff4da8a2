//! Names of fields that collide with something, but need not.
use dsm::typed::Shared;

#[dsm::shared]
#[expect(non_snake_case, reason = "the attribute gets along with it")]
struct Names {
    r#type: u32,
    r#fn: u32,
    // Methods that only the handles of numbers or arrays have.
    get: u32,
    set: f32,
    atomic: u32,
    len: u32,
    iter: u32,
    at: [u32; 2],
    as_slice: u32,
    // Private to the library.
    place: u32,
    part: u32,
    new: u32,
    // Associated functions, called by path.
    ptr_eq: u32,
    field_of: u32,
    // Of traits that are not always in scope.
    fmt: u32,
    deref: u32,
    X: u32,
    value: u32,
    field: u32,
    // Of handles once, or of the session.
    raw_hole: u32,
    snapshot: u32,
    publish: u32,
    fill: u32,
    // Of handles of words.
    swap: u32,
    compare_exchange: u32,
}

/// Names of types as the user's own.
#[dsm::shared]
struct Cell {
    alive: u8,
}

#[dsm::shared]
struct Shared2 {
    cells: [Cell; 8],
    slice: Slice,
    layout: Layout,
}

#[dsm::shared]
struct Slice {
    number: u64,
}

#[dsm::shared]
struct Layout {
    number: u64,
}

/// Names that the attribute might give to types of its own, were it not careful.
#[dsm::shared]
struct Board {
    number: u64,
}

#[dsm::shared]
struct BoardRead {
    number: u64,
}

#[dsm::shared]
struct BoardFields {
    number: u64,
}

struct BoardReadFields;

#[expect(dead_code, reason = "that it compiles is the test")]
fn meeting(board: Shared<'_, Board>, read: Shared<'_, BoardRead>, fields: Shared<'_, BoardFields>) -> BoardReadFields {
    board.set_number(read.number() + fields.number());
    BoardReadFields
}

#[expect(dead_code, reason = "that it compiles is the test")]
fn names(names: Shared<'_, Names>, shared: Shared<'_, Shared2>) -> u32 {
    names.set_type(1);
    names.set_fn(names.r#type());
    names.type_ref().set(3);
    names.set_X(names.X() + names.X_ref().get());
    names.set_set(names.set());
    names.set_get(names.len() + names.iter() + names.as_slice() + names.place() + names.part() + names.new());
    names.set_value(names.ptr_eq() + names.field_of() + names.fmt() + names.deref() + names.field());
    names.at().set(0, names.atomic());
    names.set_fill(names.raw_hole() + names.snapshot() + names.publish() + names.swap() + names.compare_exchange());
    shared.cells().at(3).set_alive(1);
    shared.slice().set_number(shared.layout().number());
    names.get()
}
