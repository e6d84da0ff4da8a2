#[dsm::shared]
#[repr(C)]
enum Phase {
    Setup = 0,
}

#[dsm::shared]
#[repr(usize)]
enum Other {
    Setup = 0,
}

fn main() {
    let _ = (Phase::Setup, Other::Setup);
}
