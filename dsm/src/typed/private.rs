//! What the code that `#[dsm::shared]` writes calls. Not for anyone else: it may change at any time.

pub use super::layout::{Argument, Field, Layout, Variant};
pub use super::line::{Line, pad};
pub use super::{
    Assign, Atomic, InvalidValue, Plain, ReadOnly, ReadOnlySlice, Shared, SharedType, Slice, Unstructured,
};
pub use crate::start::run_main;

/// The layout of struct `S`.
#[must_use]
pub const fn structure<S: SharedType>(name: &'static str, fields: &'static [Field]) -> Layout {
    Layout::structure(name, size_of::<S>(), align_of::<S>(), fields)
}

/// The layout of struct `S`, which has parameters, so that nothing else is checked but what a program uses: fails the build
/// if it has a destructor.
#[must_use]
pub const fn structure_with<S: SharedType>(
    name: &'static str,
    fields: &'static [Field],
    arguments: &'static [Argument],
) -> Layout {
    assert_no_destructor::<S>();
    structure::<S>(name, fields).with_arguments(arguments)
}

/// The layout of enum `E`, which is stored as the integer `repr`.
#[must_use]
pub const fn enumeration<E: SharedType>(
    name: &'static str,
    repr: &'static str,
    variants: &'static [Variant],
) -> Layout {
    Layout::enumeration(name, repr, size_of::<E>(), variants)
}

/// Fails the build if `S` has a destructor.
pub const fn assert_no_destructor<S>() {
    assert!(
        !std::mem::needs_drop::<S>(),
        "a shared type cannot implement `Drop`: its bytes outlive the process, and nobody would know which process is \
         to drop them"
    );
}

/// Fails the build, at the place of the caller, if there is a gap between the end of `field`, which is `size` bytes
/// at `offset`, and what follows it at `next`; or if it has no bytes.
#[track_caller]
pub const fn assert_no_gap(field: &str, offset: usize, size: usize, next: usize) {
    let text = Text::new();
    let text = if size == 0 {
        text.text("`").text(field).text("` cannot be shared: it has no bytes; leave the field out")
    } else if next > offset + size {
        let gap = next - offset - size;
        text.number(gap)
            .text(if gap == 1 { " padding byte after `" } else { " padding bytes after `" })
            .text(field)
            .text("`: shared memory has none, because nobody stores them; fill the gap by a field `_pad: [u8; ")
            .number(gap)
            .text("]`, or put larger fields first")
    } else {
        return;
    };
    panic!("{}", text.as_str())
}

/// A message that the compiler puts together: `panic!` in a constant takes a finished text only.
struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; 512], len: 0 }
    }

    /// Appends as much of `text` as there is room for.
    const fn text(mut self, text: &str) -> Self {
        let mut index = 0;
        while index < text.len() && self.len < self.bytes.len() {
            self.bytes[self.len] = text.as_bytes()[index];
            self.len += 1;
            index += 1;
        }
        self
    }

    const fn number(self, number: usize) -> Self {
        const DIGITS: &str = "0123456789";
        let more = if number >= 10 { self.number(number / 10) } else { self };
        more.text(DIGITS.split_at(number % 10).1.split_at(1).0)
    }

    const fn as_str(&self) -> &str {
        match str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "padding bytes in a shared struct",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_put_together() {
        assert_eq!(Text::new().number(0).text(" of ").number(1050).as_str(), "0 of 1050");
    }

    #[test]
    fn texts_that_are_too_long_are_cut() {
        assert_eq!(Text::new().text(&"x".repeat(600)).as_str().len(), 512);
    }

    #[test]
    #[should_panic(expected = "3 padding bytes after `flag`")]
    fn gaps_are_counted() {
        assert_no_gap("flag", 0, 1, 4);
    }

    #[test]
    #[should_panic(expected = "`cells` cannot be shared: it has no bytes")]
    fn fields_without_bytes_are_found() {
        assert_no_gap("cells", 4, 0, 4);
    }

    #[test]
    fn fields_that_follow_each_other_are_well() {
        assert_no_gap("flag", 0, 1, 1);
    }
}
