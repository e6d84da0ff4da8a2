//! Which bytes make a value. Any process, on any host, may store any bytes: what was loaded is checked before it is
//! called a `bool`, a `char` or a variant of an enum.

use super::layout::{Kind, Layout};
use std::fmt;

/// Bytes in shared memory that make no value of their type: another process stored them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidValue {
    /// Name of the type, as [`Layout`] has it.
    pub type_name: &'static str,
    /// The bytes, as a number.
    pub bits: u64,
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { type_name, bits } = self;
        write!(f, "{bits:#x} in shared memory is no `{type_name}`: another process stored it there")
    }
}

impl std::error::Error for InvalidValue {}

impl Layout {
    /// Makes values of this type out of `bytes`, which are as many as one or several of them have: a `bool` that is
    /// neither 0 nor 1 becomes 1.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if some of the bytes make no `char`, or no variant of an enum.
    pub fn check(&self, bytes: &mut [u8]) -> Result<(), InvalidValue> {
        if self.plain {
            return Ok(());
        }
        bytes.chunks_exact_mut(self.size).try_for_each(|value| self.check_one(value))
    }

    fn check_one(&self, bytes: &mut [u8]) -> Result<(), InvalidValue> {
        match self.kind {
            Kind::Scalar { .. } => Ok(()),
            Kind::Bool => {
                bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
                Ok(())
            }
            Kind::Char => {
                let code = number(bytes);
                let found = u32::try_from(code).ok().and_then(char::from_u32);
                found.map(|_| ()).ok_or(InvalidValue { type_name: "char", bits: code })
            }
            Kind::Enum { name, variants, .. } => {
                let is_stored = |value: i128| value.to_le_bytes().starts_with(bytes);
                let found = variants.iter().any(|variant| is_stored(variant.value));
                if found { Ok(()) } else { Err(InvalidValue { type_name: name, bits: number(bytes) }) }
            }
            Kind::Array { element, .. } => element.check(bytes),
            Kind::Struct { fields, .. } => fields.iter().try_for_each(|field| {
                let end = field.offset + field.layout.size;
                field.layout.check(&mut bytes[field.offset..end])
            }),
        }
    }
}

/// Up to 8 bytes as a number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::typed::SharedType;
    use crate::typed::layout::{Field, Variant};

    const PHASE: &Layout =
        &Layout::enumeration("Phase", "i16", 2, &[Variant::new("Before", -1), Variant::new("After", 300)]);

    #[test]
    fn any_byte_but_zero_is_true() {
        let mut bytes = [0, 1, 2, 255];
        assert_eq!(<[bool; 4]>::LAYOUT.check(&mut bytes), Ok(()));
        assert_eq!(bytes, [0, 1, 1, 1]);
    }

    #[test]
    fn not_all_numbers_are_a_char() {
        for code in [0, 0x41, 0xd7ff, 0xe000, 0x0010_ffff] {
            assert_eq!(char::LAYOUT.check(&mut u32::to_ne_bytes(code)), Ok(()));
        }
        for code in [0xd800, 0xdfff, 0x0011_0000, u32::MAX] {
            let invalid = InvalidValue { type_name: "char", bits: code.into() };
            assert_eq!(char::LAYOUT.check(&mut code.to_ne_bytes()), Err(invalid));
        }
    }

    #[test]
    fn variants_are_told_by_all_their_bytes() {
        for value in [-1i16, 300] {
            assert_eq!(PHASE.check(&mut value.to_ne_bytes()), Ok(()));
        }
        for value in [0i16, 1, 44, 255] {
            let invalid = PHASE.check(&mut value.to_ne_bytes()).unwrap_err();
            assert_eq!(invalid, InvalidValue { type_name: "Phase", bits: value as u64 });
        }
        let invalid = PHASE.check(&mut [44, 0]).unwrap_err();
        assert_eq!(invalid.to_string(), "0x2c in shared memory is no `Phase`: another process stored it there");
    }

    #[test]
    fn checks_reach_into_arrays_and_structs() {
        const INNER: &Layout = &Layout::structure(
            "Inner",
            4,
            2,
            &[Field::new("phase", 0, PHASE), Field::new("on", 2, bool::LAYOUT), Field::new("n", 3, u8::LAYOUT)],
        );
        const OUTER: &Layout = &Layout::array(INNER, 2);
        let mut bytes = [255, 255, 7, 7, 44, 1, 0, 9];
        assert_eq!(OUTER.check(&mut bytes), Ok(()));
        assert_eq!(bytes, [255, 255, 1, 7, 44, 1, 0, 9]);
        bytes[5] = 2;
        assert_eq!(OUTER.check(&mut bytes), Err(InvalidValue { type_name: "Phase", bits: 0x022c }));
        assert!(!OUTER.plain && <[[u8; 3]; 3]>::LAYOUT.plain);
    }
}
