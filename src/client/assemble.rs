//! Pieces back into blocks, each byte read once: checksummed where it is, or copied and checksummed in one pass. Pure: no stream,
//! no clock.

use bytes::{Buf, Bytes, BytesMut};

use super::ClientError;
use crate::copy::copy_slice;
use crate::proto::{BlockPiece, SlicedPiece};
use crate::vocab::BlockKey;
use crate::vocab::crc::PayloadCrc;
use crate::vocab::limits::{COPY_CHUNK_BYTES, PAYLOAD_BYTES_MAX};

/// A whole block as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assembled {
    pub(super) block: u32,
    pub(super) length: u32,
    /// Its payload, where it was not copied elsewhere.
    pub(super) bytes: Bytes,
    pub(super) crc: u64,
    /// Whether its bytes have that checksum, where that was to be found out.
    pub(super) is_right: bool,
}

/// The block that is coming in.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    next: u32,
    /// Bytes of it that came.
    have: u32,
    /// Those of them that were kept.
    partial: BytesMut,
    crc: Option<PayloadCrc>,
}

/// Where a block's bytes are to go.
pub(super) enum Into<'a> {
    /// To memory of their own, or nowhere where they came as one slice.
    Own,
    /// To the caller's, from its start.
    Memory(&'a mut [u8]),
}

impl Assembler {
    /// Whether a block has come in part.
    pub(super) fn is_within(&self) -> bool {
        self.have > 0
    }

    /// Takes in a piece; the block that it completes. With its key, its bytes are checksummed. A block that came as one slice is
    /// handed through, not copied.
    pub(super) fn piece(
        &mut self,
        piece: SlicedPiece,
        key: Option<&BlockKey>,
        to: &mut Into<'_>,
    ) -> Result<Option<Assembled>, ClientError> {
        let SlicedPiece { names: BlockPiece { block, length, crc, .. }, mut data } = piece;
        let end = self.check(&piece.names, data.remaining())?;
        if self.have == 0 {
            self.crc = key.map(PayloadCrc::new);
        }
        let mut bytes = Bytes::new();
        match to {
            Into::Memory(memory) => {
                let Some(room) = memory.get_mut(self.have as usize..end as usize) else {
                    let what = format!("block {block} has {length} bytes, the memory for it {}", memory.len());
                    return Err(ClientError::Protocol { what });
                };
                let mut room = room;
                for slice in data.pieces() {
                    let (part, rest) = room.split_at_mut(slice.len());
                    copy_slice(part, slice, self.crc.as_mut());
                    room = rest;
                }
            }
            Into::Own if self.have == 0 && end == length && data.pieces().count() == 1 => {
                bytes = data.copy_to_bytes(data.remaining());
                if let Some(crc) = &mut self.crc {
                    crc.update(&bytes);
                }
            }
            Into::Own => {
                self.partial.reserve((length - self.have) as usize);
                // Checksummed while it is in the core's first cache.
                for chunk in data.pieces().flat_map(|slice| slice.chunks(COPY_CHUNK_BYTES)) {
                    self.partial.extend_from_slice(chunk);
                    if let Some(crc) = &mut self.crc {
                        crc.update(chunk);
                    }
                }
                if end == length {
                    bytes = self.partial.split().freeze();
                }
            }
        }
        self.have = end;
        if end < length {
            return Ok(None);
        }
        self.have = 0;
        self.next += 1;
        let is_right = self.crc.take().is_none_or(|found| found.finish() == crc);
        Ok(Some(Assembled { block, length, bytes, crc, is_right }))
    }

    /// Where a piece ends, if its turn is now.
    fn check(&self, names: &BlockPiece, len: usize) -> Result<u32, ClientError> {
        let BlockPiece { block, shard, offset, length, .. } = *names;
        let in_turn = block == self.next && shard == 0 && offset == self.have;
        // A piece without bytes would never end a block; one of an empty block is whole.
        let grows = len > 0 || length == 0;
        let end = u32::try_from(len).ok().and_then(|len| offset.checked_add(len)).filter(|end| *end <= length);
        end.filter(|_| in_turn && grows && length <= PAYLOAD_BYTES_MAX).ok_or_else(|| {
            let what = format!(
                "a piece of block {block} shard {shard} offset {offset} with {len} of {length} bytes came in where block {} \
                 from offset {} is next",
                self.next, self.have
            );
            ClientError::Protocol { what }
        })
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
    use crate::proto::{FetchData, FetchReply, Frames, FromFrames, SlicedReply, fetch_reply::Reply};
    use crate::vocab::crc::payload_crc;

    fn piece(block: u32, offset: u32, length: u32, data: &'static [u8]) -> SlicedPiece {
        let names = BlockPiece { block, shard: 0, offset, length, crc: 9, data: Bytes::new() };
        SlicedPiece { names, data: Frames::from(Bytes::from_static(data)) }
    }

    fn own(assembler: &mut Assembler, piece: SlicedPiece) -> Result<Option<Assembled>, ClientError> {
        assembler.piece(piece, None, &mut Into::Own)
    }

    #[test]
    fn a_block_in_one_piece_is_not_copied() {
        let data: &'static [u8] = b"payload";
        let block = own(&mut Assembler::default(), piece(0, 0, 7, data)).unwrap().unwrap();
        assert_eq!(block.bytes.as_ptr(), data.as_ptr());
        assert_eq!((block.block, block.crc, block.length, block.is_right), (0, 9, 7, true));
    }

    /// What was packed, as it comes out of frames that are cut after every `cut` bytes.
    fn sent(limit: usize, blocks: &[Bytes], cut: usize) -> Vec<SlicedPiece> {
        let key = |block: u32| BlockKey::from_bytes([block as u8; 32]);
        let mut packer = Packer::new(limit);
        let mut messages: Vec<_> = (0..).zip(blocks).flat_map(|(at, block)| packer.push(at, block)).collect();
        messages.extend(packer.flush());
        let mut sent = Vec::new();
        for message in messages {
            let mut pieces = message.pieces;
            for piece in &mut pieces {
                piece.crc = payload_crc(&key(piece.block), &blocks[piece.block as usize]);
            }
            let reply = FetchReply { reply: Some(Reply::Data(FetchData { pieces })) };
            let wire = prost::Message::encode_to_vec(&reply);
            let mut frames: Frames = wire.chunks(cut).map(Bytes::copy_from_slice).collect();
            let SlicedReply::Data(pieces) = SlicedReply::from_frames(&mut frames).unwrap() else { panic!("pieces") };
            sent.extend(pieces);
        }
        sent
    }

    #[test]
    fn what_was_packed_is_assembled_again_whatever_the_sizes_and_wherever_it_goes() {
        let lengths = [1, 99, 100, 101, 250, 3, 4, 5, 300, 64, 36, 1];
        let payload = |at: usize| Bytes::from((0..lengths[at]).map(|byte| (byte * 7 + at) as u8).collect::<Vec<_>>());
        let blocks: Vec<Bytes> = (0..lengths.len()).map(payload).collect();
        for cut in [7, 64, 1 << 20] {
            let (mut assembler, mut copier) = (Assembler::default(), Assembler::default());
            let (mut came, mut memory) = (Vec::new(), vec![0xee; 320]);
            for piece in sent(100, &blocks, cut) {
                let block = piece.names.block;
                let key = BlockKey::from_bytes([block as u8; 32]);
                if let Some(copied) = copier.piece(piece.clone(), Some(&key), &mut Into::Memory(&mut memory)).unwrap() {
                    assert!(copied.is_right && copied.bytes.is_empty());
                    let expected = &blocks[block as usize];
                    assert_eq!((copied.length as usize, &memory[..expected.len()]), (expected.len(), &expected[..]));
                    assert!(memory[expected.len()..].iter().all(|byte| *byte == 0xee), "only these");
                    memory.fill(0xee);
                }
                if let Some(block) = assembler.piece(piece, Some(&key), &mut Into::Own).unwrap() {
                    assert!(block.is_right);
                    came.push(block.bytes);
                }
            }
            assert_eq!(came, blocks);
        }
    }

    #[test]
    fn one_wrong_byte_anywhere_is_found_wherever_the_bytes_go() {
        let blocks = [Bytes::from(vec![5; 250])];
        for wrong in [0, 99, 100, 249] {
            for copies in [false, true] {
                let mut bad = blocks[0].to_vec();
                bad[wrong] ^= 1;
                let mut pieces = sent(100, &[bad.into()], 50);
                let crc = sent(100, &blocks, 50)[0].names.crc;
                pieces.iter_mut().for_each(|piece| piece.names.crc = crc);
                let (mut assembler, mut memory) = (Assembler::default(), vec![0; 250]);
                let mut to = if copies { Into::Memory(&mut memory) } else { Into::Own };
                let key = BlockKey::from_bytes([0; 32]);
                let came: Vec<_> = pieces
                    .into_iter()
                    .filter_map(|piece| assembler.piece(piece, Some(&key), &mut to).unwrap())
                    .collect();
                assert_eq!(came.iter().map(|block| block.is_right).collect::<Vec<_>>(), [false], "byte {wrong}");
            }
        }
    }

    #[test]
    fn a_piece_out_of_turn_is_refused_and_named() {
        let shard = piece(0, 0, 4, b"data");
        let shard = SlicedPiece { names: BlockPiece { shard: 1, ..shard.names }, ..shard };
        for wrong in [
            piece(1, 0, 4, b"data"),
            piece(0, 1, 4, b"ata"),
            piece(0, 0, 3, b"data"),
            piece(0, 0, 4, b""),
            piece(0, 0, u32::MAX, b"data"),
            shard,
        ] {
            let error = own(&mut Assembler::default(), wrong).unwrap_err();
            assert!(error.to_string().contains("where block 0 from offset 0 is next"), "{error}");
        }
    }

    #[test]
    fn a_block_that_is_longer_than_the_memory_for_it_is_refused() {
        let mut memory = [0; 3];
        let to = &mut Into::Memory(&mut memory);
        let error = Assembler::default().piece(piece(0, 0, 4, b"data"), None, to).unwrap_err();
        assert!(error.to_string().contains("block 0 has 4 bytes, the memory for it 3"), "{error}");
    }
}
