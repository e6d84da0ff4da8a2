//! The named binary; `dsm daemon` is the same.
fn main() {
    dsm_daemon::role::main("dsm-daemon")
}
