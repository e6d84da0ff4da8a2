//! Cutting a stream into whole lines, so that those of several processes can be told apart.

use std::io::Read;

/// A longer line is passed on in pieces.
const LONGEST: usize = 1 << 20;

/// What has come and is not a whole line yet.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Adds what has come. Returns whole lines, if there are any now.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        let end = end.or_else(|| (self.pending.len() + bytes.len() > LONGEST).then_some(bytes.len()));
        let (whole, rest) = bytes.split_at(end.unwrap_or(0));
        let lines = end.map(|_| {
            let mut lines = std::mem::take(&mut self.pending);
            lines.extend_from_slice(whole);
            lines
        });
        self.pending.extend_from_slice(rest);
        lines
    }

    /// Reads once. Returns whole lines, if there are any now; at the end also what is left. False: it was the end.
    pub fn read(&mut self, from: &mut impl Read, buffer: &mut [u8]) -> (Option<Vec<u8>>, bool) {
        match from.read(buffer) {
            Ok(count) if count > 0 => (self.push(&buffer[..count]), true),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (None, true),
            _ => (Some(std::mem::take(&mut self.pending)).filter(|rest| !rest.is_empty()), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = b"one\ntwo\n\nthree";
        for cut in 1..text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in text.chunks(cut) {
                let Some(whole) = lines.push(piece) else { continue };
                assert!(whole.ends_with(b"\n"));
                seen.extend(whole);
            }
            assert_eq!(seen, b"one\ntwo\n\n");
            let (rest, more) = lines.read(&mut std::io::empty(), &mut [0; 8]);
            assert_eq!((rest.as_deref(), more), (Some(&b"three"[..]), false));
        }
    }

    #[test]
    fn an_endless_line_does_not_take_all_memory() {
        let mut lines = Lines::default();
        let passed: usize = (0..64).filter_map(|_| lines.push(&[b'x'; 64 << 10])).map(|piece| piece.len()).sum();
        assert!(passed >= 2 * LONGEST && lines.pending.len() <= LONGEST);
    }
}
