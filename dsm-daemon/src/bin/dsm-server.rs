//! The named binary; `dsm server` is the same.
fn main() {
    dsm_daemon::role::main("dsm-server")
}
