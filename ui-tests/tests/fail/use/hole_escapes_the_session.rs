use dsm::prelude::*;

fn numbers(name: &str) -> dsm::Result<dsm::Hole<'static, u64>> {
    let session = Session::join(name)?;
    session.array::<u64>("numbers", 10)?.hole()
}

fn main() {
    let _ = numbers("short");
}
