use dsm::prelude::*;

struct Plain {
    turn: u32,
}

fn open(session: &Session) -> dsm::Result<()> {
    session.open::<Plain>("board")?;
    session.array::<usize>("numbers", 8)?;
    session.create_new::<[&u8; 4]>("bytes")?;
    session.open_read_only::<&str>("name")?;
    session.mutex::<Option<u32>>("number")?;
    Ok(())
}

fn main() {}
