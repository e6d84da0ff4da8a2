//! The first bytes of every connection: who speaks, in which version, and (over TCP) proof of the session key.

use crate::control::FINGERPRINT;
use bytemuck::{Pod, Zeroable};

/// First word of a greeting.
const MAGIC: u64 = u64::from_le_bytes(*b"dsm-wire");

/// What the speaker is, or whom it wants to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// A process that talks to its arbiter.
    Process = 1,
    /// An arbiter that talks to a server.
    Arbiter = 2,
    /// Somebody who asks the daemon.
    Directory = 3,
    /// A server that answers.
    Server = 4,
    /// A daemon that answers.
    Daemon = 5,
}

/// The greeting: fixed size, so that it can be read before anything is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Hello {
    magic: u64,
    version: u32,
    role: u32,
    layout: u64,
    /// Fresh random bytes of the speaker, for the proof of the key.
    pub nonce: [u8; 32],
    /// 1 when the speaker holds a key and wants the other to prove it too.
    pub keyed: u64,
}

const _: () = assert!(size_of::<Hello>() == 64);

/// Why a greeting is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Something else listens, or speaks, there.
    #[error("the other end does not speak dsm's protocol")]
    NotDsm,
    /// Another release.
    #[error("the other end speaks version {0}, this is version {ours}: use the same release on both", ours = super::VERSION)]
    Version(u32),
    /// Same version number, other layouts: a different build.
    #[error("the other end was built with other memory layouts: use the same release on both")]
    Layout,
    /// Right protocol, wrong door.
    #[error("the other end is not what was expected there (role {0})")]
    Role(u32),
}

impl Hello {
    /// A greeting of `role`.
    pub fn new(role: Role, nonce: [u8; 32], keyed: bool) -> Self {
        Self {
            magic: MAGIC,
            version: super::VERSION,
            role: role as u32,
            layout: FINGERPRINT,
            nonce,
            keyed: u64::from(keyed),
        }
    }

    /// Checks a received greeting.
    ///
    /// # Errors
    /// [`HelloError`] says what does not fit.
    pub fn check(&self, expected: Role) -> Result<(), HelloError> {
        match self {
            hello if hello.magic != MAGIC => Err(HelloError::NotDsm),
            hello if hello.version != super::VERSION => Err(HelloError::Version(hello.version)),
            hello if hello.layout != FINGERPRINT => Err(HelloError::Layout),
            hello if hello.role != expected as u32 => Err(HelloError::Role(hello.role)),
            _ => Ok(()),
        }
    }
}
