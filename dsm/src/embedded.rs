//! The embedded default: this executable can be run again as an arbiter (with daemon and server in it).

/// Runs before `main`, in every program that links the library; looks at one environment variable.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    dsm_daemon::spawn::become_arbiter_if_asked();
}

/// Keeps the linker from leaving this module out: whoever starts an arbiter refers to it.
pub(crate) fn keep() {
    std::hint::black_box(&raw const BEFORE_MAIN);
}
