//! How rows and receipts become bytes: little-endian numbers, and words with their length before them.

use std::str;

/// Bytes that are no row or receipt of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct DecodeError {
    /// What is wrong.
    pub what: &'static str,
    /// Where it is wrong.
    pub at: usize,
}

/// Builds a row.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn u8(self, number: u8) -> Self {
        self.raw(&[number])
    }

    pub(super) fn u32(self, number: u32) -> Self {
        self.raw(&number.to_le_bytes())
    }

    pub(super) fn u64(self, number: u64) -> Self {
        self.raw(&number.to_le_bytes())
    }

    /// A word of at most 255 bytes; all words of this room are checked to be shorter before they get here.
    pub(super) fn word(self, word: &str) -> Self {
        debug_assert!(word.len() <= usize::from(u8::MAX), "words are checked at the door");
        let length = u8::try_from(word.len()).unwrap_or(u8::MAX);
        self.u8(length).raw(&word.as_bytes()[..usize::from(length)])
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes a row apart.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn fail(&self, what: &'static str) -> DecodeError {
        DecodeError { what, at: self.at }
    }

    pub(super) fn raw(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.saturating_add(length);
        let part = self.bytes.get(self.at..end).ok_or_else(|| self.fail("ends too early"))?;
        self.at = end;
        Ok(part)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn word(&mut self) -> Result<&'a str, DecodeError> {
        let length = usize::from(self.u8()?);
        let at = self.at;
        str::from_utf8(self.raw(length)?).map_err(|_| DecodeError { what: "a word that is not UTF-8", at })
    }

    /// A word with the constructor that checks it.
    pub(super) fn parsed<T, E>(&mut self, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, DecodeError> {
        let at = self.at;
        parse(self.word()?).map_err(|_| DecodeError { what: "a word that breaks its rule", at })
    }

    /// A word up to a zero byte, with the constructor that checks it: for keys, which sort as their words do.
    pub(super) fn terminated<T, E>(&mut self, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, DecodeError> {
        let at = self.at;
        let length = self.bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0));
        let word = self.raw(length.ok_or(DecodeError { what: "a word without an end", at })?)?;
        self.at += 1;
        let word = str::from_utf8(word).map_err(|_| DecodeError { what: "a word that is not UTF-8", at })?;
        parse(word).map_err(|_| DecodeError { what: "a word that breaks its rule", at })
    }

    /// All that is left as a word, with the constructor that checks it.
    pub(super) fn rest<T, E>(&mut self, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, DecodeError> {
        let at = self.at;
        let word = self.raw(self.bytes.len() - self.at)?;
        let word = str::from_utf8(word).map_err(|_| DecodeError { what: "a word that is not UTF-8", at })?;
        parse(word).map_err(|_| DecodeError { what: "a word that breaks its rule", at })
    }

    /// Whether all has been read.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Nothing may follow: trailing bytes mean that the reader misunderstands the row.
    pub(super) fn end(self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.fail("bytes left over")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_in_order() {
        let bytes = Writer::default().u8(1).u32(2).u64(3).word("vier").raw(&[5; 3]).finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.u8(), reader.u32(), reader.u64(), reader.word()), (Ok(1), Ok(2), Ok(3), Ok("vier")));
        assert_eq!(reader.array(), Ok([5; 3]));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn a_cut_or_longer_row_is_an_error_that_says_where() {
        let bytes = Writer::default().word("vier").finish();
        assert_eq!(Reader::new(&bytes[..3]).word(), Err(DecodeError { what: "ends too early", at: 1 }));
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Ok(4));
        assert_eq!(reader.end(), Err(DecodeError { what: "bytes left over", at: 1 }));
    }
}
