//! The named binary; `dsm arbiter` is the same.
fn main() {
    dsm_daemon::role::main("dsm-arbiter")
}
