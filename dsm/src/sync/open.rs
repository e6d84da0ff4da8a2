//! Numbers of semaphores and barriers: asked for by name, or by the place of a field.

use crate::region::Region;
use crate::{Error, Result};
use dsm_core::wire::control::{Ask, OpenSync, SyncKind, Told};
use std::sync::{Arc, PoisonError};

/// What the fields are that have an object behind them. Together with an offset it says which: a lock may begin where
/// the first field of its value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Object {
    Semaphore,
    Barrier,
    Mutex,
    RwLock,
    Versioned,
}

impl Object {
    fn word(self) -> &'static str {
        match self {
            Self::Semaphore => "semaphore",
            Self::Barrier => "barrier",
            Self::Mutex => "mutex",
            Self::RwLock => "rwlock",
            Self::Versioned => "versioned",
        }
    }
}

/// The number of the object `name`.
pub(crate) fn ask(region: &Region, name: &str, kind: SyncKind) -> Result<u32> {
    if let Some(error) = region.lost() {
        return Err(error);
    }
    crate::signals::adopt()?;
    match region.ask(&Ask::Sync(OpenSync { name: name.to_owned(), kind, process: 0 }))?.0 {
        Told::Sync(id) => Ok(id),
        _ => Err(Error::Unavailable("the arbiter's answer makes no sense".into())),
    }
}

/// The number of the object behind the field at `offset`, and what people call it. This process asks once.
pub(crate) fn open_at(region: &Region, object: Object, offset: u64, kind: SyncKind) -> Result<(u32, Arc<str>)> {
    // Held while asking: a barrier counts how often it was opened.
    let mut objects = region.objects.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((id, label)) = objects.get(&(object, offset)) {
        return Ok((*id, Arc::clone(label)));
    }
    let (name, label) = {
        let segments = region.segments.lock().unwrap_or_else(PoisonError::into_inner);
        // Segments do not overlap, and may have grown since they were attached.
        let before = segments.iter().map(|segment| &segment.info).filter(|info| info.offset <= offset);
        let Some(info) = before.max_by_key(|info| info.offset) else {
            return Err(Error::NotFound(format!("there is no segment at offset {offset:#x} of the session")));
        };
        let within = offset - info.offset;
        // A segment's own name may be as long as names can be.
        (
            format!("dsm:{}@{}+{within:x}", object.word(), info.id),
            match within {
                0 => info.name.clone(),
                within => format!("{}+{within:#x}", info.name),
            },
        )
    };
    let id = ask(region, &name, kind)?;
    let label = Arc::from(label);
    objects.insert((object, offset), (id, Arc::clone(&label)));
    Ok((id, label))
}
