#[dsm::shared]
#[repr(u8)]
enum Phase<T> {
    Setup = 0,
    Play(T) = 1,
}

fn main() {}
