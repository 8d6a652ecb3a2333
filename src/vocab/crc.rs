//! The payload checksum: CRC-64/NVME, seeded with the block's key.
//!
//! The seed makes bytes that were written for another block a mismatch too: after a power loss a stale row may point
//! at a slot that was reused, and that has to read as a miss. Kept in the index, never beside the bytes.

use crc_fast::{CrcAlgorithm, Digest};

use super::BlockKey;

/// A running payload checksum, for copies that verify as they go.
#[derive(Clone, Debug)]
pub struct PayloadCrc(Digest);

impl PayloadCrc {
    /// Starts the checksum of the payload of `key`.
    #[must_use]
    pub fn new(key: &BlockKey) -> Self {
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        digest.update(key.as_bytes());
        Self(digest)
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes taken in.
    #[must_use]
    pub fn finish(&self) -> u64 {
        self.0.finalize()
    }
}

/// The checksum of a whole payload.
#[must_use]
pub fn payload_crc(key: &BlockKey, payload: &[u8]) -> u64 {
    let mut crc = PayloadCrc::new(key);
    crc.update(payload);
    crc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_under_another_key_have_another_checksum() {
        let (one, other) = (BlockKey::from_bytes([1; 32]), BlockKey::from_bytes([2; 32]));
        assert_ne!(payload_crc(&one, b"payload"), payload_crc(&other, b"payload"));
    }

    #[test]
    fn pieces_add_up_to_the_whole() {
        let key = BlockKey::from_bytes([7; 32]);
        let mut crc = PayloadCrc::new(&key);
        crc.update(b"pay");
        crc.update(b"load");
        assert_eq!(crc.finish(), payload_crc(&key, b"payload"));
    }
}
