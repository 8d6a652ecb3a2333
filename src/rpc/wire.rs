//! A fetch's messages as HTTP/2 gets them: what gRPC and protobuf put around a payload in one chunk, the payload itself
//! in another, which is not copied. Byte for byte what prost would write, so that any gRPC client reads it.
//!
//! tonic's own encoders write into a buffer of tonic's, which costs a copy of every payload.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::proto::{BlockPiece, FetchReply, fetch_reply::Reply};
use crate::vocab::limits::WIRE_INLINE_BYTES;

/// Numbers of the fields that are written by hand: `FetchReply.data`, `FetchData.pieces`, `BlockPiece.data`.
const REPLY_DATA: u32 = 1;
const DATA_PIECES: u32 = 1;
const PIECE_DATA: u32 = 6;
/// What a piece says besides its bytes takes at most this.
const PIECE_HEAD_BYTES: usize = 48;
/// gRPC's frame: a flag for compression, and the message's length.
const GRPC_HEAD_BYTES: usize = 5;

/// One message with its gRPC frame, in chunks to be sent one after another.
pub(super) fn chunks(reply: &FetchReply) -> Vec<Bytes> {
    let Some(Reply::Data(data)) = &reply.reply else {
        let mut whole = BytesMut::with_capacity(GRPC_HEAD_BYTES + reply.encoded_len());
        put_frame_head(&mut whole, reply.encoded_len());
        reply.encode_raw(&mut whole);
        return vec![whole.freeze()];
    };
    let pieces: Vec<Piece<'_>> = data.pieces.iter().map(Piece::new).collect();
    let data_len = pieces.iter().map(|piece| field_len(DATA_PIECES, piece.len)).sum();
    let inline: usize = pieces.iter().map(|piece| PIECE_HEAD_BYTES + piece.inline().len()).sum();

    let mut chunks = Vec::with_capacity(2 * pieces.len());
    let mut head = BytesMut::with_capacity(inline + PIECE_HEAD_BYTES);
    put_frame_head(&mut head, field_len(REPLY_DATA, data_len));
    put_field_head(&mut head, REPLY_DATA, data_len);
    for piece in &pieces {
        put_field_head(&mut head, DATA_PIECES, piece.len);
        piece.names.encode_raw(&mut head);
        if !piece.bytes.is_empty() {
            put_field_head(&mut head, PIECE_DATA, piece.bytes.len());
        }
        head.extend_from_slice(piece.inline());
        if piece.is_apart() {
            chunks.push(head.split().freeze());
            chunks.push(piece.bytes.clone());
        }
    }
    if !head.is_empty() {
        chunks.push(head.freeze());
    }
    chunks
}

/// A piece about to be written.
struct Piece<'a> {
    /// All fields but the bytes, which are the last.
    names: BlockPiece,
    bytes: &'a Bytes,
    /// Of all of it.
    len: usize,
}

impl<'a> Piece<'a> {
    fn new(piece: &'a BlockPiece) -> Self {
        let names = BlockPiece { data: Bytes::new(), ..*piece };
        let bytes = &piece.data;
        let bytes_len = if bytes.is_empty() { 0 } else { field_len(PIECE_DATA, bytes.len()) };
        let len = names.encoded_len() + bytes_len;
        Self { names, bytes, len }
    }

    fn is_apart(&self) -> bool {
        self.bytes.len() >= WIRE_INLINE_BYTES
    }

    /// The bytes, where they are so few that a chunk of their own would cost more than their copy.
    fn inline(&self) -> &[u8] {
        if self.is_apart() { &[] } else { self.bytes }
    }
}

fn put_frame_head(to: &mut BytesMut, message_len: usize) {
    to.put_u8(0);
    // Far less than 4 GiB: a message has about 1 MiB of payload.
    to.put_u32(u32::try_from(message_len).unwrap_or(u32::MAX));
}

fn put_field_head(to: &mut BytesMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(len as u64, to);
}

fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::{FetchData, FetchEnd};

    fn joined(reply: &FetchReply) -> Vec<u8> {
        chunks(reply).concat()
    }

    /// As tonic writes it.
    fn by_prost(reply: &FetchReply) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(u32::try_from(reply.encoded_len()).unwrap().to_be_bytes());
        reply.encode(&mut message).unwrap();
        message
    }

    fn data(pieces: Vec<BlockPiece>) -> FetchReply {
        FetchReply { reply: Some(Reply::Data(FetchData { pieces })) }
    }

    fn piece() -> impl Strategy<Value = BlockPiece> {
        let sizes = prop_oneof![Just(0), 1..200_usize, 8_000..9_000_usize, 100_000..300_000_usize];
        let small = || prop_oneof![Just(0), 1..300_u32, any::<u32>()];
        let crc = prop_oneof![Just(0), any::<u64>()];
        (small(), small(), small(), small(), crc, sizes, any::<u8>()).prop_map(
            |(block, shard, offset, length, crc, size, fill)| BlockPiece {
                block,
                shard,
                offset,
                length,
                crc,
                data: vec![fill; size].into(),
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_chunks_are_what_prost_writes(pieces in proptest::collection::vec(piece(), 0..6)) {
            let reply = data(pieces);
            prop_assert_eq!(joined(&reply), by_prost(&reply));
        }
    }

    #[test]
    fn the_last_message_and_an_empty_one_are_what_prost_writes() {
        let end =
            FetchEnd { outcome: 1, blocks_ram: 300, blocks_nvme: 1, tokens: 1 << 40, receipt: vec![7; 99].into() };
        for reply in [Some(Reply::End(end)), Some(Reply::End(FetchEnd::default())), None] {
            let reply = FetchReply { reply };
            assert_eq!(joined(&reply), by_prost(&reply));
        }
    }

    #[test]
    fn a_large_payload_is_a_chunk_of_its_own_and_not_copied_and_small_ones_share_one() {
        let payload = |size: usize| Bytes::from(vec![1; size]);
        let (large, small) = (payload(WIRE_INLINE_BYTES), payload(WIRE_INLINE_BYTES - 1));
        let piece = |data: &Bytes| BlockPiece { data: data.clone(), ..BlockPiece::default() };
        let chunks = chunks(&data(vec![piece(&small), piece(&small), piece(&large), piece(&small)]));
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
        assert_eq!(chunks[1].len(), large.len());
    }
}
