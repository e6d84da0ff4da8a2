use dsm::typed::Shared;

#[dsm::shared]
struct Board {
    scores: [u64; 8],
}

fn score(board: Shared<'_, Board>, player: u32) {
    board.scores().get(player);
    board.scores().set(0, 1.5);
    board.scores().set("first", 1);
}

fn main() {}
