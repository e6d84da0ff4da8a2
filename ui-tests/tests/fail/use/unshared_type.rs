use dsm::typed::SharedType;

struct Plain {
    turn: u32,
}

// As `Session::open` and `Session::array` ask for it.
fn open<T: SharedType>() {}

fn main() {
    open::<Plain>();
    open::<usize>();
    open::<[&u8; 4]>();
    open::<&str>();
}
