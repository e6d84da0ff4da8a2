use dsm::Session;

#[dsm::main(rank = 3, session, expect = , session = "a", session = "b" "c", hosts = 2)]
fn main(_: &Session) {}
