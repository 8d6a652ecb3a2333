//! A fetch's replies with the payloads where HTTP/2 has left them, so that whoever wants them elsewhere reads them once: a
//! payload that came in several frames would be gathered by prost's reader, and then copied again.

use bytes::Buf;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;

use super::messages::{Frames, FromFrames};
use super::{BlockPiece, FetchEnd};

/// Numbers of the fields that are read by hand: `FetchReply.data` and `.end`, `FetchData.pieces`, `BlockPiece.data`.
const REPLY_DATA: u32 = 1;
const REPLY_END: u32 = 2;
const DATA_PIECES: u32 = 1;
const PIECE_DATA: u32 = 6;

/// A `FetchReply`.
#[derive(Clone, Debug)]
pub enum SlicedReply {
    /// Pieces of blocks.
    Data(Vec<SlicedPiece>),
    /// The last one.
    End(FetchEnd),
    /// Nothing that is known here.
    Nothing,
}

/// A `BlockPiece`.
#[derive(Clone, Debug, Default)]
pub struct SlicedPiece {
    /// All but its bytes.
    pub names: BlockPiece,
    /// Its bytes.
    pub data: Frames,
}

impl FromFrames for SlicedReply {
    fn from_frames(frames: &mut Frames) -> Result<Self, Status> {
        let mut reply = Self::Nothing;
        while frames.has_remaining() {
            match decode_key(frames).map_err(broken)? {
                (REPLY_DATA, WireType::LengthDelimited) => {
                    let pieces = pieces(&mut part(frames)?)?;
                    // Of a part that comes twice the two are one, as in any protobuf.
                    reply = match reply {
                        Self::Data(before) => Self::Data(before.into_iter().chain(pieces).collect()),
                        Self::End(_) | Self::Nothing => Self::Data(pieces),
                    };
                }
                (REPLY_END, WireType::LengthDelimited) => {
                    reply = Self::End(FetchEnd::decode(part(frames)?).map_err(broken)?);
                }
                (tag, wire) => skip_field(wire, tag, frames, DecodeContext::default()).map_err(broken)?,
            }
        }
        Ok(reply)
    }
}

fn pieces(frames: &mut Frames) -> Result<Vec<SlicedPiece>, Status> {
    let mut pieces = Vec::new();
    while frames.has_remaining() {
        match decode_key(frames).map_err(broken)? {
            (DATA_PIECES, WireType::LengthDelimited) => pieces.push(piece(&mut part(frames)?)?),
            (tag, wire) => skip_field(wire, tag, frames, DecodeContext::default()).map_err(broken)?,
        }
    }
    Ok(pieces)
}

fn piece(frames: &mut Frames) -> Result<SlicedPiece, Status> {
    let mut piece = SlicedPiece::default();
    while frames.has_remaining() {
        match decode_key(frames).map_err(broken)? {
            (PIECE_DATA, WireType::LengthDelimited) => piece.data = part(frames)?,
            (tag, wire) => {
                let context = DecodeContext::default();
                piece.names.merge_field(tag, wire, frames, context).map_err(broken)?;
            }
        }
    }
    Ok(piece)
}

/// The bytes of a field, after their length.
fn part(frames: &mut Frames) -> Result<Frames, Status> {
    let len = decode_varint(frames).map_err(broken)?;
    match usize::try_from(len) {
        Ok(len) if len <= frames.remaining() => Ok(frames.split_to(len)),
        _ => Err(Status::internal(format!("a field of {len} bytes in a message that has {} more", frames.remaining()))),
    }
}

fn broken(error: prost::DecodeError) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::{FetchData, FetchReply, fetch_reply::Reply};
    use super::*;

    fn frames(wire: &[u8], cuts: &[usize]) -> Frames {
        let (mut wire, mut cuts) = (Bytes::copy_from_slice(wire), cuts.iter().cycle());
        let next = || (!wire.is_empty()).then(|| wire.split_to(wire.len().min(*cuts.next().unwrap_or(&1))));
        std::iter::from_fn(next).collect()
    }

    /// The same as prost reads it, with its pieces' bytes gathered.
    fn whole(reply: SlicedReply) -> Option<Reply> {
        let gathered = |SlicedPiece { names, mut data }| {
            let data = data.copy_to_bytes(data.remaining());
            BlockPiece { data, ..names }
        };
        match reply {
            SlicedReply::Data(pieces) => {
                Some(Reply::Data(FetchData { pieces: pieces.into_iter().map(gathered).collect() }))
            }
            SlicedReply::End(end) => Some(Reply::End(end)),
            SlicedReply::Nothing => None,
        }
    }

    fn any_piece() -> impl Strategy<Value = BlockPiece> {
        (
            any::<u32>(),
            0..2_u32,
            any::<u32>(),
            any::<u32>(),
            any::<u64>(),
            proptest::collection::vec(any::<u8>(), 0..200),
        )
            .prop_map(|(block, shard, offset, length, crc, data)| BlockPiece {
                block,
                shard,
                offset,
                length,
                crc,
                data: data.into(),
            })
    }

    proptest! {
        #[test]
        fn however_the_frames_are_cut_it_is_what_prost_reads(
            pieces in proptest::collection::vec(any_piece(), 0..5),
            cuts in proptest::collection::vec(1..90_usize, 1..9),
            unknown in any::<bool>(),
        ) {
            let sent = FetchReply { reply: Some(Reply::Data(FetchData { pieces })) };
            let mut wire = sent.encode_to_vec();
            if unknown {
                // Field 15, of a later version.
                wire.extend([0x7a, 2, 1, 2]);
            }
            let came = SlicedReply::from_frames(&mut frames(&wire, &cuts)).unwrap();
            prop_assert_eq!(whole(came), sent.reply);
        }

        #[test]
        fn bytes_that_are_no_message_are_refused_or_read_and_never_a_panic(
            wire in proptest::collection::vec(any::<u8>(), 0..60),
            cuts in proptest::collection::vec(1..9_usize, 1..4),
        ) {
            SlicedReply::from_frames(&mut frames(&wire, &cuts)).ok();
        }
    }

    #[test]
    fn an_end_is_read_and_a_field_that_is_cut_short_is_refused() {
        let end = FetchEnd { outcome: 1, blocks_ram: 3, receipt: vec![7; 99].into(), ..FetchEnd::default() };
        let sent = FetchReply { reply: Some(Reply::End(end)) };
        let wire = sent.encode_to_vec();
        assert_eq!(whole(SlicedReply::from_frames(&mut frames(&wire, &[10])).unwrap()), sent.reply);
        assert!(SlicedReply::from_frames(&mut frames(&wire[..wire.len() - 1], &[10])).is_err());
        assert_eq!(whole(SlicedReply::from_frames(&mut Frames::default()).unwrap()), None);
        let piece = BlockPiece { data: vec![7; 99].into(), ..BlockPiece::default() };
        let wire = FetchReply { reply: Some(Reply::Data(FetchData { pieces: vec![piece] })) }.encode_to_vec();
        for cut in 1..wire.len() {
            assert!(SlicedReply::from_frames(&mut frames(&wire[..cut], &[10])).is_err(), "cut after {cut} bytes");
        }
    }
}
