// The attribute sees one struct at a time, so the compiler speaks first; of a `Box` the attribute would say what to use.
#[dsm::shared]
struct Team {
    size: u64,
    captain: Player,
}

#[dsm::shared]
struct Player {
    score: u64,
    team: Team,
}

fn main() {}
