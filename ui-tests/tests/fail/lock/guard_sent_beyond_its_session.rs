use dsm::SemaphoreGuard;

fn hand_over(guard: SemaphoreGuard<'_>) {
    std::thread::spawn(move || drop(guard));
}

fn main() {}
