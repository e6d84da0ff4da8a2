//! Atomic read-modify-write operations as data: what a locked instruction asks of the total order.
//!
//! An operation is carried out by whoever holds authority over the word (the sequencer, or an arbiter that
//! leases it), never by the processor of the host that issued it; the old value travels back, and the
//! instruction is then replayed on it, so that flags and registers come from the processor.

/// The function that an [`AtomicOp`] applies to the old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rmw {
    /// `old + operand`, wrapping (`lock add`, `xadd`, `inc`, and `adc` with the carry already added).
    Add = 1,
    /// `old - operand`, wrapping (`lock sub`, `dec`, `sbb` with the borrow already added).
    Sub = 2,
    /// `old & operand` (`lock and`, `btr`).
    And = 3,
    /// `old | operand` (`lock or`, `bts`).
    Or = 4,
    /// `old ^ operand` (`lock xor`, `btc`, `not`).
    Xor = 5,
    /// `operand` (`xchg`).
    Swap = 6,
    /// `operand` if `old == expected`, else `old` (`lock cmpxchg`, `cmpxchg8b`, `cmpxchg16b`).
    CompareExchange = 7,
    /// `-old`, wrapping (`lock neg`).
    Neg = 8,
    /// The unsigned or signed maximum and minimum: no instruction does these, the typed doors offer them.
    MaxUnsigned = 9,
    /// Unsigned minimum.
    MinUnsigned = 10,
    /// Signed maximum.
    MaxSigned = 11,
    /// Signed minimum.
    MinSigned = 12,
    /// `!(old & operand)`: std's `fetch_nand`.
    Nand = 13,
}

impl Rmw {
    /// The operation that a byte from outside names, if it names one.
    pub fn from_u8(value: u8) -> Option<Self> {
        use Rmw::*;
        [Add, Sub, And, Or, Xor, Swap, CompareExchange, Neg, MaxUnsigned, MinUnsigned, MaxSigned, MinSigned, Nand]
            .into_iter()
            .find(|rmw| *rmw as u8 == value)
    }
}

/// One atomic read-modify-write on 1, 2, 4, 8 or 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicOp {
    /// The function.
    pub rmw: Rmw,
    /// Width of the operand in bytes: 1, 2, 4, 8 or 16.
    pub width: u8,
    /// The instruction's source operand, zero-extended.
    pub operand: u128,
    /// What [`Rmw::CompareExchange`] compares with; ignored by the others.
    pub expected: u128,
}

impl AtomicOp {
    /// An operation without a comparand. `width` in bytes.
    pub fn new(rmw: Rmw, width: u8, operand: u128) -> Self {
        Self { rmw, width, operand, expected: 0 }
    }

    /// A compare-exchange of `width` bytes.
    pub fn compare_exchange(width: u8, expected: u128, new: u128) -> Self {
        Self { rmw: Rmw::CompareExchange, width, operand: new, expected }
    }

    /// All bits that a value of this width has.
    #[inline]
    pub fn mask(&self) -> u128 {
        match self.width {
            16.. => u128::MAX,
            width => (1u128 << (u32::from(width) * 8)) - 1,
        }
    }

    /// The value that `old` becomes. Upper bits beyond the width are ignored and returned as zero.
    #[inline]
    pub fn apply(&self, old: u128) -> u128 {
        let mask = self.mask();
        let (old, operand) = (old & mask, self.operand & mask);
        let new = match self.rmw {
            Rmw::Add => old.wrapping_add(operand),
            Rmw::Sub => old.wrapping_sub(operand),
            Rmw::And => old & operand,
            Rmw::Or => old | operand,
            Rmw::Xor => old ^ operand,
            Rmw::Swap => operand,
            Rmw::CompareExchange if old == self.expected & mask => operand,
            Rmw::CompareExchange => old,
            Rmw::Neg => old.wrapping_neg(),
            Rmw::MaxUnsigned => old.max(operand),
            Rmw::MinUnsigned => old.min(operand),
            Rmw::MaxSigned => self.signed(old).max(self.signed(operand)) as u128,
            Rmw::MinSigned => self.signed(old).min(self.signed(operand)) as u128,
            Rmw::Nand => !(old & operand),
        };
        new & mask
    }

    #[inline]
    fn signed(&self, value: u128) -> i128 {
        let unused = 128 - u32::from(self.width.min(16)) * 8;
        ((value << unused) as i128) >> unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_wrap_at_their_width() {
        assert_eq!(AtomicOp::new(Rmw::Add, 1, 1).apply(0xff), 0);
        assert_eq!(AtomicOp::new(Rmw::Sub, 2, 1).apply(0), 0xffff);
        assert_eq!(AtomicOp::new(Rmw::Neg, 4, 0).apply(1), 0xffff_ffff);
        assert_eq!(AtomicOp::new(Rmw::MaxSigned, 1, 0xff).apply(1), 1);
        assert_eq!(AtomicOp::new(Rmw::MaxUnsigned, 1, 0xff).apply(1), 0xff);
        assert_eq!(AtomicOp::new(Rmw::MinSigned, 16, u128::MAX).apply(3), u128::MAX);
        assert_eq!(AtomicOp::new(Rmw::Nand, 1, 0b11).apply(0b01), 0xfe);
    }

    #[test]
    fn compare_exchange_compares_only_its_width() {
        let op = AtomicOp::compare_exchange(2, 0xffff_0001, 7);
        assert_eq!(op.apply(0x1_0001), 7);
        assert_eq!(op.apply(2), 2);
    }

    #[test]
    fn names_survive_the_wire() {
        for value in 0..=255u8 {
            assert!(Rmw::from_u8(value).is_none_or(|rmw| rmw as u8 == value));
        }
        assert_eq!(Rmw::from_u8(0), None);
        assert_eq!(Rmw::from_u8(14), None);
    }
}
