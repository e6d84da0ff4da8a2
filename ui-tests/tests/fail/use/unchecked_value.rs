use dsm::typed::Shared;

#[dsm::shared]
#[derive(PartialEq)]
#[repr(u8)]
enum Phase {
    Setup = 0,
    Play = 1,
}

#[dsm::shared]
struct Board {
    phase: Phase,
    phases: [Phase; 3],
}

fn look(board: Shared<'_, Board>) -> bool {
    let _: Board = board.load();
    let _: Phase = board.phases().get(0);
    board.set_phase(0);
    board.phase() == Phase::Play
}

fn main() {}
