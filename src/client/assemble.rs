//! Pieces back into blocks. Pure: no stream, no clock.

use bytes::{Bytes, BytesMut};

use super::ClientError;
use crate::proto::BlockPiece;
use crate::vocab::limits::PAYLOAD_BYTES_MAX;

/// A whole block as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assembled {
    pub(super) block: u32,
    pub(super) bytes: Bytes,
    pub(super) crc: u64,
}

/// The block that is coming in.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    next: u32,
    partial: BytesMut,
}

impl Assembler {
    /// Takes in a piece; the block that it completes. A block in one piece is handed through, not copied.
    pub(super) fn piece(&mut self, piece: BlockPiece) -> Result<Option<Assembled>, ClientError> {
        let BlockPiece { block, shard, offset, length, crc, data } = piece;
        let have = self.partial.len();
        let end = offset as usize + data.len();
        let in_turn = block == self.next && shard == 0 && offset as usize == have;
        // A piece without bytes would never end a block; one of an empty block is whole.
        let grows = !data.is_empty() || length == 0;
        if !in_turn || !grows || end > length as usize || length > PAYLOAD_BYTES_MAX {
            let what = format!(
                "a piece of block {block} shard {shard} offset {offset} with {} of {length} bytes came in where block {} \
                 from offset {have} is next",
                data.len(),
                self.next
            );
            return Err(ClientError::Protocol { what });
        }
        let bytes = if end < length as usize {
            self.partial.reserve(length as usize - have);
            self.partial.extend_from_slice(&data);
            return Ok(None);
        } else if have == 0 {
            data
        } else {
            self.partial.extend_from_slice(&data);
            self.partial.split().freeze()
        };
        self.next += 1;
        Ok(Some(Assembled { block, bytes, crc }))
    }

    /// How many blocks were completed.
    pub(super) fn blocks(&self) -> u32 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::super::pack::Packer;
    use super::*;

    fn piece(block: u32, offset: u32, length: u32, data: &'static [u8]) -> BlockPiece {
        BlockPiece { block, shard: 0, offset, length, crc: 9, data: Bytes::from_static(data) }
    }

    #[test]
    fn a_block_in_one_piece_is_not_copied() {
        let data: &'static [u8] = b"payload";
        let block = Assembler::default().piece(piece(0, 0, 7, data)).unwrap().unwrap();
        assert_eq!(block.bytes.as_ptr(), data.as_ptr());
        assert_eq!((block.block, block.crc), (0, 9));
    }

    #[test]
    fn what_was_packed_is_assembled_again_whatever_the_sizes() {
        let lengths = [1, 99, 100, 101, 250, 3, 4, 5, 300, 64, 36, 1];
        let payload = |at: usize| Bytes::from(vec![at as u8; lengths[at]]);
        let mut packer = Packer::new(100);
        let mut messages: Vec<_> = (0..lengths.len()).flat_map(|at| packer.push(at as u32, &payload(at))).collect();
        messages.extend(packer.flush());
        let mut assembler = Assembler::default();
        let blocks: Vec<Bytes> = messages
            .into_iter()
            .flat_map(|message| message.pieces)
            .filter_map(|piece| assembler.piece(piece).unwrap().map(|block| block.bytes))
            .collect();
        assert_eq!(blocks, (0..lengths.len()).map(payload).collect::<Vec<_>>());
    }

    #[test]
    fn a_piece_out_of_turn_is_refused_and_named() {
        for wrong in [
            piece(1, 0, 4, b"data"),
            piece(0, 1, 4, b"ata"),
            piece(0, 0, 3, b"data"),
            piece(0, 0, 4, b""),
            piece(0, 0, u32::MAX, b"data"),
            BlockPiece { shard: 1, ..piece(0, 0, 4, b"data") },
        ] {
            let error = Assembler::default().piece(wrong).unwrap_err();
            assert!(error.to_string().contains("where block 0 from offset 0 is next"), "{error}");
        }
    }
}
