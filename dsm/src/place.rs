//! A place in the region: the one door through which everything typed reaches shared bytes.

use dsm_core::op::AtomicOp;
use std::marker::PhantomData;

/// An address in a mapped session, good for as long as the session is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Place<'s> {
    address: usize,
    _session: PhantomData<&'s ()>,
}

impl<'s> Place<'s> {
    /// The place `bytes` further on.
    #[inline]
    pub fn at(self, bytes: usize) -> Self {
        Self { address: self.address + bytes, ..self }
    }

    /// Pointer into the view: reading through it is native, storing through it traps.
    #[inline]
    pub fn as_ptr(self) -> *mut u8 {
        self.address as *mut u8
    }

    /// Stores one naturally aligned word of 1, 2, 4, 8 or 16 bytes: the direct door.
    #[inline]
    pub fn store_word<const N: usize>(self, _value: [u8; N]) {
        todo!()
    }

    /// Stores any number of bytes; aligned 8-byte words in it are never torn.
    pub fn store_bytes(self, _bytes: &[u8]) {
        todo!()
    }

    /// Loads one naturally aligned word of 1, 2, 4, 8 or 16 bytes.
    #[inline]
    pub fn load_word<const N: usize>(self) -> [u8; N] {
        todo!()
    }

    /// Loads any number of bytes; aligned 8-byte words in it are never torn.
    pub fn load_bytes(self, _out: &mut [u8]) {
        todo!()
    }

    /// Carries out an atomic operation at its place in the total order and returns the old value.
    pub fn rmw(self, _op: AtomicOp) -> u128 {
        todo!()
    }
}
