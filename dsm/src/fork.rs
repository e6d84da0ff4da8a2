//! `fork`: the child is a process of its own. It inherits the mappings, and joins each session again, by itself, before
//! `fork` returns in it.

use crate::connection::Connection;
use crate::region::Region;
use crate::{Error, Result, trap};
use dsm_core::wire::control::{Ask, Told};

/// Registers the handler, once.
pub(crate) fn install() -> Result<()> {
    // SAFETY: the handler is a function of this program, which is not unloaded.
    let result = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    match result {
        0 => Ok(()),
        code => Err(Error::System { what: "pthread_atfork".into(), source: std::io::Error::from_raw_os_error(code) }),
    }
}

extern "C" fn in_child() {
    for region in trap::regions() {
        // The parent's connection: were it to stay open here, the arbiter could not see the parent end.
        // SAFETY: the descriptor is this process's copy; nobody uses it any more, since it is replaced below.
        unsafe { libc::close(region.socket()) };
        let joined = join(region);
        // SAFETY: the child of a fork has one thread, and it is here.
        unsafe { region.reborn(joined) };
    }
}

/// A number of our own. On failure the region is marked, and the first store says so.
fn join(region: &Region) -> Option<(Connection, u16)> {
    let mut connection = Connection::open(&region.arbiter).ok()?;
    let ask = Ask::Join { session: region.name.clone(), daemon: None, existing: true };
    match connection.exchange(&ask) {
        Ok((Told::Joined { process, .. }, _descriptors)) => Some((connection, process)),
        _ => None,
    }
}
