//! Copying into a slot and checksumming in one pass.
#![expect(unsafe_code, reason = "calls the copy that client and daemon share")]

use crate::copy::copy_from;
use crate::vocab::crc::PayloadCrc;

/// Copies `src` to `dst`, which must be as long, and takes what was copied into `crc`.
pub fn copy_with_crc(dst: &mut [u8], src: &[u8], crc: &mut PayloadCrc) {
    assert_eq!(dst.len(), src.len(), "a copy is as long as its source");
    // SAFETY: as many bytes as `dst` has, by the line above, and of two borrows that one excludes the other.
    unsafe { copy_from(dst, src.as_ptr(), Some(crc)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::BlockKey;
    use crate::vocab::crc::payload_crc;

    #[test]
    fn the_copy_is_equal_and_so_is_its_checksum() {
        let (key, src) = (BlockKey::from_bytes([5; 32]), [1, 2, 3, 4, 5]);
        let (mut dst, mut crc) = ([0; 5], PayloadCrc::new(&key));
        copy_with_crc(&mut dst, &src, &mut crc);
        assert_eq!((dst, crc.finish()), (src, payload_crc(&key, &src)));
    }

    #[test]
    #[should_panic(expected = "as long as its source")]
    fn a_copy_of_another_length_is_refused() {
        copy_with_crc(&mut [0; 5], &[0; 4], &mut PayloadCrc::new(&BlockKey::from_bytes([5; 32])));
    }
}
