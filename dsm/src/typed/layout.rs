//! The layout of a shared type: what two programs must agree on before they map the same bytes.

use std::fmt;

/// How the bytes of a shared type are laid out. A constant: [`SharedType::LAYOUT`](super::SharedType::LAYOUT).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Layout {
    /// Size in bytes; never zero.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// What it is made of.
    pub kind: Kind,
    /// Whether any bytes are a value. If not, [`Layout::check`] tells which are.
    pub plain: bool,
    /// FNV-1a (64 bits) over names, types, offsets and sizes. It depends on the declaration alone: not on the
    /// compiler, nor on the crate or module that holds it.
    pub fingerprint: u64,
}

/// What a shared type is made of.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// An integer or a float, or an atomic of std.
    #[non_exhaustive]
    Scalar {
        /// Its name in Rust: `u32`.
        name: &'static str,
    },
    /// A `bool`: any byte but zero is read as `true`.
    Bool,
    /// A `char`: four bytes, of which not all values are one.
    Char,
    /// An enum without data, marked `#[dsm::shared]`.
    #[non_exhaustive]
    Enum {
        /// Its name, without the path of its module.
        name: &'static str,
        /// The integer that it is stored as: `u8`.
        repr: &'static str,
        /// Its variants in the order of their declaration.
        variants: &'static [Variant],
        /// The version of the declaration; 0 if none is given.
        version: u32,
    },
    /// Several values of one type, one behind the other.
    #[non_exhaustive]
    Array {
        /// Layout of one of them.
        element: &'static Layout,
        /// How many there are.
        len: usize,
    },
    /// A struct marked `#[dsm::shared]`.
    #[non_exhaustive]
    Struct {
        /// Its name, without the path of its module.
        name: &'static str,
        /// Its fields in the order of their offsets.
        fields: &'static [Field],
        /// The arguments of its parameters.
        arguments: &'static [Argument],
        /// The version of the declaration; 0 if none is given.
        version: u32,
    },
}

/// A variant of a shared enum.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Variant {
    /// Its name.
    pub name: &'static str,
    /// What is stored for it.
    pub value: i128,
}

/// What a parameter of a shared struct stands for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Argument {
    /// A constant, as a number.
    Const(i128),
    /// A type.
    Type(&'static Layout),
}

impl Variant {
    /// A variant called `name` that is stored as `value`.
    #[must_use]
    pub const fn new(name: &'static str, value: i128) -> Self {
        Self { name, value }
    }
}

/// A field of a shared struct.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Field {
    /// Name of the field.
    pub name: &'static str,
    /// Distance from the start of the struct in bytes.
    pub offset: usize,
    /// Layout of the field's type.
    pub layout: &'static Layout,
}

impl Field {
    /// A field called `name` that starts `offset` bytes into its struct.
    #[must_use]
    pub const fn new(name: &'static str, offset: usize, layout: &'static Layout) -> Self {
        Self { name, offset, layout }
    }

    /// Fails the build if what follows it at `next` does not begin where it ends.
    #[doc(hidden)]
    #[must_use]
    #[track_caller]
    pub const fn followed_at(self, next: usize) -> Self {
        super::private::assert_no_gap(self.name, self.offset, self.layout.size, next);
        self
    }
}

impl Layout {
    const fn new(size: usize, align: usize, kind: Kind, plain: bool) -> Self {
        Self { size, align, kind, plain, fingerprint: 0 }.with_fingerprint()
    }

    /// A scalar of `size` bytes, aligned to its size.
    pub(super) const fn scalar(name: &'static str, size: usize, align: usize) -> Self {
        Self::new(size, align, Kind::Scalar { name }, true)
    }

    /// A `bool`.
    pub(super) const fn bool() -> Self {
        Self::new(1, 1, Kind::Bool, false)
    }

    /// A `char`.
    pub(super) const fn char() -> Self {
        Self::new(4, 4, Kind::Char, false)
    }

    /// An array of `len` elements.
    pub(super) const fn array(element: &'static Layout, len: usize) -> Self {
        let Some(size) = element.size.checked_mul(len) else { panic!("the array is larger than the address space") };
        Self::new(size, element.align, Kind::Array { element, len }, element.plain)
    }

    /// A struct of `size` bytes. Its padding is checked where it is declared.
    pub(super) const fn structure(name: &'static str, size: usize, align: usize, fields: &'static [Field]) -> Self {
        let (mut plain, mut index) = (true, 0);
        while index < fields.len() {
            plain &= fields[index].layout.plain;
            index += 1;
        }
        Self::new(size, align, Kind::Struct { name, fields, arguments: &[], version: 0 }, plain)
    }

    /// An enum that is stored as an integer of `size` bytes called `repr`.
    pub(super) const fn enumeration(
        name: &'static str,
        repr: &'static str,
        size: usize,
        variants: &'static [Variant],
    ) -> Self {
        Self::new(size, size, Kind::Enum { name, repr, variants, version: 0 }, false)
    }

    /// The same struct with these arguments of its parameters.
    #[must_use]
    pub const fn with_arguments(mut self, given: &'static [Argument]) -> Self {
        if let Kind::Struct { name, fields, version, .. } = self.kind {
            self.kind = Kind::Struct { name, fields, arguments: given, version };
        }
        self.with_fingerprint()
    }

    /// The same struct or enum as declared in this version.
    #[must_use]
    pub const fn with_version(mut self, given: u32) -> Self {
        match self.kind {
            Kind::Struct { name, fields, arguments, .. } => {
                self.kind = Kind::Struct { name, fields, arguments, version: given };
            }
            Kind::Enum { name, repr, variants, .. } => {
                self.kind = Kind::Enum { name, repr, variants, version: given };
            }
            _ => {}
        }
        self.with_fingerprint()
    }

    /// Where field number `index` of a struct starts.
    pub(super) const fn offset_of(&self, index: usize) -> usize {
        match self.kind {
            Kind::Struct { fields, .. } => fields[index].offset,
            _ => panic!("only a struct has fields"),
        }
    }

    /// The fingerprint of a run of elements of this type whose number is not part of the type, as in
    /// `session.array::<T>(name, len)`. It differs from the fingerprint of one element.
    #[must_use]
    pub const fn sequence_fingerprint(&self) -> u64 {
        Fnv::new().text("[").type_name(self).text("]").number(self.size).0
    }

    const fn with_fingerprint(mut self) -> Self {
        self.fingerprint = 0;
        let mut hash = Fnv::new().type_name(&self).number(self.size).number(self.align);
        if let Kind::Struct { fields, .. } = self.kind {
            let mut index = 0;
            while index < fields.len() {
                let Field { name, offset, layout } = fields[index];
                hash = hash.text(name).text(":").type_name(layout).number(offset).number(layout.size);
                index += 1;
            }
        }
        self.fingerprint = hash.0;
        self
    }
}

/// Writes the type as it stands in source: `u32`, `[u64; 64]`, `Board`, `Table<3>`.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Scalar { name } | Kind::Enum { name, .. } => f.write_str(name),
            Kind::Bool => f.write_str("bool"),
            Kind::Char => f.write_str("char"),
            Kind::Array { element, len } => write!(f, "[{element}; {len}]"),
            Kind::Struct { name, arguments, .. } => {
                f.write_str(name)?;
                for (index, argument) in arguments.iter().enumerate() {
                    f.write_str(if index == 0 { "<" } else { ", " })?;
                    match argument {
                        Argument::Const(value) => write!(f, "{value}")?,
                        Argument::Type(layout) => write!(f, "{layout}")?,
                    }
                }
                f.write_str(if arguments.is_empty() { "" } else { ">" })
            }
        }
    }
}

/// A running FNV-1a hash of 64 bits that can be computed by the compiler.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    const fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3))
    }

    const fn bytes(mut self, bytes: &[u8]) -> Self {
        let mut index = 0;
        while index < bytes.len() {
            self = self.byte(bytes[index]);
            index += 1;
        }
        self
    }

    /// Text and the end of it: without the end, "ab" "c" and "a" "bc" would be the same.
    const fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes()).byte(0)
    }

    const fn number(self, number: usize) -> Self {
        self.bytes(&(number as u64).to_le_bytes())
    }

    /// The type as it stands in source; for a struct, also what it consists of.
    const fn type_name(self, layout: &Layout) -> Self {
        match layout.kind {
            Kind::Scalar { name } => self.text(name),
            Kind::Array { element, len } => self.text("[").type_name(element).text(";").number(len).text("]"),
            Kind::Bool => self.text("bool"),
            Kind::Char => self.text("char"),
            // While the type's own fingerprint is being computed it is still zero.
            Kind::Enum { name, repr, variants, version } => {
                let mut hash = self.text(name).version(version).text(repr);
                let mut index = 0;
                while index < variants.len() {
                    let Variant { name, value } = variants[index];
                    hash = hash.text(name).bytes(&value.to_le_bytes());
                    index += 1;
                }
                hash
            }
            Kind::Struct { name, arguments, version, .. } => {
                let mut hash = self.text(name).version(version);
                let mut index = 0;
                while index < arguments.len() {
                    hash = match arguments[index] {
                        Argument::Const(value) => hash.text("const").bytes(&value.to_le_bytes()),
                        Argument::Type(layout) => hash.text("type").type_name(layout),
                    };
                    index += 1;
                }
                hash.bytes(&layout.fingerprint.to_le_bytes())
            }
        }
    }

    /// A version, if there is one: what was declared without counts as it always did.
    const fn version(self, version: u32) -> Self {
        if version == 0 { self } else { self.text("version").number(version as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::typed::SharedType;

    /// The hash of the text "foobar" in the list of test vectors that the authors of FNV publish.
    #[test]
    fn fnv_agrees_with_its_published_vectors() {
        assert_eq!(Fnv::new().0, 0xcbf2_9ce4_8422_2325);
        assert_eq!(Fnv::new().bytes(b"a").0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Fnv::new().bytes(b"foobar").0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn layouts_print_as_in_source() {
        assert_eq!(u32::LAYOUT.to_string(), "u32");
        assert_eq!(<[[f64; 3]; 5]>::LAYOUT.to_string(), "[[f64; 3]; 5]");
    }

    #[test]
    fn arrays_multiply() {
        let layout = <[[u16; 3]; 5]>::LAYOUT;
        assert_eq!((layout.size, layout.align), (30, 2));
        assert_eq!(<u128 as SharedType>::LAYOUT.align, align_of::<u128>());
    }

    #[test]
    fn fingerprints_tell_types_apart() {
        let all = [
            u8::LAYOUT.fingerprint,
            i8::LAYOUT.fingerprint,
            u32::LAYOUT.fingerprint,
            i32::LAYOUT.fingerprint,
            f32::LAYOUT.fingerprint,
            <[u8; 4]>::LAYOUT.fingerprint,
            <[u8; 5]>::LAYOUT.fingerprint,
            <[[u8; 2]; 2]>::LAYOUT.fingerprint,
            u8::LAYOUT.sequence_fingerprint(),
            i8::LAYOUT.sequence_fingerprint(),
            <[u8; 4]>::LAYOUT.sequence_fingerprint(),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "number {index} has the fingerprint of an earlier one");
        }
    }

    /// Programs of different builds compare fingerprints, so these may change only with the wire version.
    #[test]
    fn fingerprints_stay() {
        assert_eq!(u64::LAYOUT.fingerprint, 0x19ab1cae229abbb6);
        assert_eq!(<[u64; 64]>::LAYOUT.fingerprint, 0xd7c98cf7c2e666a5);
    }
}
