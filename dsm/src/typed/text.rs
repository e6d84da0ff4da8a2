//! [`Text`]: a string of bounded length.

use super::layout::{Argument, Field, Layout};
use super::private::structure;
use super::read_only::ReadOnly;
use super::shared::{Assign, Plain, Shared, SharedType, its_own_handle};
use std::borrow::Cow;
use std::fmt;
use std::str::Utf8Error;

/// A string of at most `N` bytes of UTF-8, for shared memory.
///
/// ```
/// use dsm::Text;
///
/// #[dsm::shared]
/// pub struct Player {
///     pub name: Text<24>,
///     pub score: u32,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
#[doc = include_str!("../sync/example.txt")]
/// let player = session.open::<Player>("player")?;
/// player.name().set("Ada")?;
/// player.name().push_str(" L.")?;
/// assert_eq!(player.name().get()?, "Ada L.");
/// assert!(player.name().set("a name that is far too long for it").is_err());
/// # Ok(())
/// # }
/// ```
///
/// Any process may store any bytes, and a text is longer than a word: who reads while another host stores may find part
/// of the one text and part of the other. So reading gives a `Result`, or replaces what is no UTF-8; a semaphore, or
/// [`Versioned`](super::Versioned), keeps texts whole.
///
/// It takes `N + 4` bytes, and is aligned to one.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Text<const N: usize> {
    /// Little-endian; bytes, so that there is never padding. More than `N` is not believed.
    len: [u8; LEN],
    bytes: [u8; N],
}

/// Bytes before the text.
const LEN: usize = 4;

/// What was to be stored is longer than there is room for; nothing is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} are too many: there is room for {capacity}")]
#[non_exhaustive]
pub struct CapacityError {
    /// How many bytes or elements it would be then.
    pub needed: usize,
    /// How many there can be.
    pub capacity: usize,
}

/// Bytes in shared memory that are no text: another process stored them, or is at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidText {
    /// A length that is more than there is room for.
    #[error("a text in shared memory cannot have {0} bytes")]
    Length(u32),
    /// Bytes that are not UTF-8.
    #[error("a text in shared memory is no UTF-8: {0}")]
    Utf8(#[from] Utf8Error),
}

impl<const N: usize> Text<N> {
    const FIELDS: &'static [Field] =
        &[Field::new("len", 0, <[u8; LEN]>::LAYOUT), Field::new("bytes", LEN, <[u8; N]>::LAYOUT)];
    const ARGUMENTS: &'static [Argument] = {
        assert!(N > 0 && N <= u32::MAX as usize, "a `Text` needs room for 1 to 4,294,967,295 bytes");
        &[Argument::Const(N as i128)]
    };

    /// The empty text.
    #[must_use]
    pub const fn new() -> Self {
        Self { len: [0; LEN], bytes: [0; N] }
    }

    /// How many bytes there is room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        N
    }

    fn bytes(&self) -> Result<&[u8], InvalidText> {
        let len = u32::from_le_bytes(self.len);
        self.bytes.get(..len as usize).ok_or(InvalidText::Length(len))
    }

    /// The text.
    ///
    /// # Errors
    /// [`InvalidText`] when this was loaded and another process has stored what is none.
    pub fn as_str(&self) -> Result<&str, InvalidText> {
        Ok(std::str::from_utf8(self.bytes()?)?)
    }

    /// The text; what is no UTF-8 is replaced by U+FFFD, and a length that cannot be by the longest that can.
    #[must_use]
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes().unwrap_or(&self.bytes))
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> TryFrom<&str> for Text<N> {
    type Error = CapacityError;

    fn try_from(text: &str) -> Result<Self, CapacityError> {
        let mut this = Self::new();
        let room = this.bytes.get_mut(..text.len());
        room.ok_or(CapacityError { needed: text.len(), capacity: N })?.copy_from_slice(text.as_bytes());
        this.len = (text.len() as u32).to_le_bytes();
        Ok(this)
    }
}

/// Whether they are the same text; of what is none, whether the bytes are the same.
impl<const N: usize> PartialEq for Text<N> {
    fn eq(&self, other: &Self) -> bool {
        match (self.bytes(), other.bytes()) {
            (Ok(one), Ok(other)) => one == other,
            _ => (self.len, self.bytes) == (other.len, other.bytes),
        }
    }
}

/// As [`Text::to_string_lossy`].
impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_string_lossy())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string_lossy(), f)
    }
}

// SAFETY: two arrays of bytes, so there is no padding and any bytes are a value; `Unstructured` is a transparent
// wrapper of the handle.
unsafe impl<const N: usize> SharedType for Text<N> {
    const LAYOUT: &'static Layout = &structure::<Self>("Text", Self::FIELDS).with_arguments(Self::ARGUMENTS);
    its_own_handle!();
}

// SAFETY: nothing but bytes.
unsafe impl<const N: usize> Plain for Text<N> {}

impl<const N: usize> Assign for Text<N> {
    type Setter<'a> = &'a Self;

    #[inline]
    fn set_field(field: Shared<'_, Self>, value: &Self) {
        field.store(value);
    }
}

impl<const N: usize> Shared<'_, Text<N>> {
    /// A copy of the text.
    ///
    /// # Errors
    /// [`InvalidText`] when another process has stored what is none, or is at it.
    pub fn get(self) -> Result<String, InvalidText> {
        let text = self.load();
        text.as_str().map(str::to_owned)
    }

    /// A copy of the text, in which what is no UTF-8 is replaced by U+FFFD.
    #[must_use]
    pub fn get_lossy(self) -> String {
        self.load().to_string_lossy().into_owned()
    }

    /// Replaces the text.
    ///
    /// # Errors
    /// [`CapacityError`]: it is longer than `N` bytes, and the old one stays.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    pub fn set(self, text: &str) -> Result<(), CapacityError> {
        if text.len() > N {
            return Err(CapacityError { needed: text.len(), capacity: N });
        }
        // In one piece, and no more than there is.
        let mut bytes = Vec::with_capacity(LEN + text.len());
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        self.place().store_bytes(&bytes);
        Ok(())
    }

    /// Appends to the text. A length that cannot be counts as the longest that can.
    ///
    /// # Errors
    /// [`CapacityError`]: it would be longer than `N` bytes, and the old one stays.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    pub fn push_str(self, text: &str) -> Result<(), CapacityError> {
        let len = self.len();
        let needed = len.saturating_add(text.len());
        if needed > N {
            return Err(CapacityError { needed, capacity: N });
        }
        self.place().at(LEN + len).store_bytes(text.as_bytes());
        self.place().store_bytes(&(needed as u32).to_le_bytes());
        Ok(())
    }

    /// Makes it the empty text.
    ///
    /// # Panics
    ///
    /// When the session has ended.
    pub fn clear(self) {
        self.place().store_bytes(&[0; LEN]);
    }

    /// How many bytes the text has: at most `N`, whatever is stored.
    #[must_use]
    pub fn len(self) -> usize {
        let mut len = [0; LEN];
        self.place().load_bytes(&mut len);
        (u32::from_le_bytes(len) as usize).min(N)
    }

    /// Whether it is the empty text.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// How many bytes there is room for.
    #[must_use]
    pub fn capacity(self) -> usize {
        N
    }
}

impl<const N: usize> ReadOnly<'_, Text<N>> {
    /// As [`Shared::get`].
    ///
    /// # Errors
    /// [`InvalidText`] when another process has stored what is none, or is at it.
    pub fn get(self) -> Result<String, InvalidText> {
        self.shared().get()
    }

    /// As [`Shared::get_lossy`].
    #[must_use]
    pub fn get_lossy(self) -> String {
        self.shared().get_lossy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_hold_what_fits() {
        let text = Text::<6>::try_from("größe");
        assert_eq!(text, Err(CapacityError { needed: 7, capacity: 6 }));
        let text = Text::<7>::try_from("größe").unwrap();
        assert_eq!((text.as_str().unwrap(), format!("{text:>6}").as_str()), ("größe", " größe"));
        assert_eq!(Text::<3>::new().as_str().unwrap(), "");
    }

    #[test]
    fn any_bytes_are_read_within_bounds() {
        let text = Text::<4> { len: 5u32.to_le_bytes(), bytes: *b"abcd" };
        assert_eq!((text.as_str(), &*text.to_string_lossy()), (Err(InvalidText::Length(5)), "abcd"));
        let text = Text::<4> { len: [0xff; 4], bytes: [0xff; 4] };
        assert_eq!(text.as_str(), Err(InvalidText::Length(u32::MAX)));
        assert_eq!(text.to_string_lossy().chars().count(), 4);
        let text = Text::<4> {
            len: 2u32.to_le_bytes(),
            bytes: "aß".as_bytes().iter().chain(&[0]).copied().collect::<Vec<_>>().try_into().unwrap(),
        };
        assert!(matches!(text.as_str(), Err(InvalidText::Utf8(_))), "cut in the middle of a character");
    }
}
