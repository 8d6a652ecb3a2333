//! Blocks into messages of about 1 MiB. Pure: no stream, no clock.

use bytes::Bytes;

use crate::proto::{BlockPiece, PutData};
use crate::vocab::limits::MESSAGE_PIECES_MAX;

/// The message that is being filled: several small blocks, or a part of a large one.
#[derive(Debug)]
pub(super) struct Packer {
    limit: usize,
    pieces: Vec<BlockPiece>,
    bytes: usize,
}

impl Packer {
    /// Messages of at most `limit` payload bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), pieces: Vec::new(), bytes: 0 }
    }

    /// Adds a block; the messages that are full now. Nothing is copied: pieces are slices of the payload.
    pub(super) fn push(&mut self, block: u32, payload: &Bytes) -> Vec<PutData> {
        let mut full = Vec::new();
        // A block that fits a message stays whole, so that its reader has it without a copy.
        if self.bytes + payload.len() > self.limit && payload.len() <= self.limit {
            full.extend(self.flush());
        }
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut start = 0;
        loop {
            let end = payload.len().min(start + self.limit - self.bytes);
            let offset = u32::try_from(start).unwrap_or(u32::MAX);
            let data = payload.slice(start..end);
            self.bytes += data.len();
            self.pieces.push(BlockPiece { block, shard: 0, offset, length, crc: 0, data });
            if self.bytes == self.limit || self.pieces.len() == MESSAGE_PIECES_MAX {
                full.extend(self.flush());
            }
            start = end;
            if start == payload.len() {
                return full;
            }
        }
    }

    /// What is left, if anything.
    pub(super) fn flush(&mut self) -> Option<PutData> {
        self.bytes = 0;
        let pieces = std::mem::take(&mut self.pieces);
        (!pieces.is_empty()).then_some(PutData { pieces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(limit: usize, blocks: &[usize]) -> Vec<Vec<(u32, u32, usize)>> {
        let mut packer = Packer::new(limit);
        let mut messages = Vec::new();
        for (at, length) in (0..).zip(blocks) {
            messages.extend(packer.push(at, &Bytes::from(vec![0; *length])));
        }
        messages.extend(packer.flush());
        let shape = |piece: BlockPiece| (piece.block, piece.offset, piece.data.len());
        messages.into_iter().map(|message| message.pieces.into_iter().map(shape).collect()).collect()
    }

    #[test]
    fn small_blocks_share_a_message_and_stay_whole() {
        assert_eq!(
            sizes(100, &[40, 40, 40, 60, 1]),
            [vec![(0, 0, 40), (1, 0, 40)], vec![(2, 0, 40), (3, 0, 60)], vec![(4, 0, 1)]]
        );
    }

    #[test]
    fn a_large_block_is_split_and_its_rest_shares_a_message() {
        assert_eq!(
            sizes(100, &[250, 20, 100]),
            [vec![(0, 0, 100)], vec![(0, 100, 100)], vec![(0, 200, 50), (1, 0, 20)], vec![(2, 0, 100)]]
        );
    }

    #[test]
    fn no_message_is_larger_than_the_limit_in_bytes_or_in_pieces() {
        let tiny = vec![1; MESSAGE_PIECES_MAX + 1];
        assert_eq!(sizes(1 << 20, &tiny).iter().map(Vec::len).collect::<Vec<_>>(), [MESSAGE_PIECES_MAX, 1]);
        let message_bytes = |message: &Vec<(u32, u32, usize)>| message.iter().map(|piece| piece.2).sum::<usize>();
        assert!(sizes(100, &[99, 350, 100, 2, 199, 7]).iter().all(|message| message_bytes(message) <= 100));
    }

    #[test]
    fn an_empty_payload_is_sent_as_such_for_the_daemon_to_refuse() {
        assert_eq!(sizes(100, &[0]), [vec![(0, 0, 0)]]);
    }
}
