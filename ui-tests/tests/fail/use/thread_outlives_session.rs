use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    turn: u32,
}

fn watch(board: Shared<'_, Board>) {
    std::thread::spawn(move || board.turn());
}

fn main() {}
