#[dsm::shared]
enum Phase {
    Setup,
    Play,
}

fn main() {
    let _ = Phase::Setup;
    let _ = Phase::Play;
}
