//! gRPC messages out of a body, not copied where HTTP/2 brings them whole. tonic's own decoder first gathers a message in a
//! buffer of its own, which costs a copy of every payload.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use prost::Message;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::{Code, Status};

/// gRPC's frame: a flag for compression, and the message's length.
const HEAD_BYTES: usize = 5;

/// A body on its way past tonic's decoder, in the extensions of its request or response. Who takes it reads it; tonic's
/// own stream is then empty.
#[derive(Clone, Debug)]
pub struct RawBody(Arc<Mutex<Option<Body>>>);

impl RawBody {
    /// Holds a body until somebody takes it.
    #[must_use]
    pub fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    /// The body, once.
    #[must_use]
    pub fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The messages of a body, in order. A message's `bytes` fields are slices of what HTTP/2 brought, except where one came
/// in several frames.
#[derive(Debug)]
pub struct Messages<M> {
    body: Body,
    frames: Frames,
    message_max: usize,
    /// A response says in its trailers how the call ended; a request just ends.
    is_response: bool,
    ended: bool,
    message: PhantomData<fn() -> M>,
}

impl<M> Messages<M> {
    /// What a client sends; no message may be larger than `message_max` bytes.
    #[must_use]
    pub fn of_request(body: Body, message_max: usize) -> Self {
        let frames = Frames::default();
        Self { body, frames, message_max, is_response: false, ended: false, message: PhantomData }
    }

    /// What a server answers.
    #[must_use]
    pub fn of_response(body: Body, message_max: usize) -> Self {
        Self { is_response: true, ..Self::of_request(body, message_max) }
    }
}

/// A message that is read from HTTP/2's frames.
pub trait FromFrames: Sized {
    /// Reads all of them.
    ///
    /// # Errors
    /// When they are no such message.
    fn from_frames(frames: &mut Frames) -> Result<Self, Status>;
}

/// As the contract has it: its `bytes` fields are gathered where they came in several frames.
impl<M: Message + Default> FromFrames for M {
    fn from_frames(frames: &mut Frames) -> Result<Self, Status> {
        M::decode(frames).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<M: FromFrames> Stream for Messages<M> {
    type Item = Result<M, Status>;

    /// Ends after the first error.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_message(cx));
        self.ended = !matches!(next, Ok(Some(_)));
        Poll::Ready(next.transpose())
    }
}

impl<M: FromFrames> Messages<M> {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<M>, Status>> {
        loop {
            if let Some(mut message) = self.frames.message(self.message_max)? {
                return Poll::Ready(M::from_frames(&mut message).map(Some));
            }
            let frame = ready!(tonic::codegen::Body::poll_frame(Pin::new(&mut self.body), cx)).transpose()?;
            match frame.map(|frame| frame.into_data().map_err(|other| other.into_trailers())) {
                Some(Ok(data)) => self.frames.push(data),
                Some(Err(Ok(trailers))) if self.is_response => {
                    return Poll::Ready(ended(Status::from_header_map(&trailers)));
                }
                Some(Err(_)) => {}
                None if self.frames.len > 0 => {
                    return Poll::Ready(Err(Status::internal("the stream ended within a message")));
                }
                None if self.is_response => return Poll::Ready(ended(None)),
                None => return Poll::Ready(Ok(None)),
            }
        }
    }
}

fn ended<M>(status: Option<Status>) -> Result<Option<M>, Status> {
    match status {
        Some(status) if status.code() == Code::Ok => Ok(None),
        Some(status) => Err(status),
        None => Err(Status::internal("the stream ended without a status")),
    }
}

/// Bytes in the pieces in which they came.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl FromIterator<Bytes> for Frames {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut frames = Self::default();
        pieces.into_iter().for_each(|piece| frames.push(piece));
        frames
    }
}

impl From<Bytes> for Frames {
    fn from(whole: Bytes) -> Self {
        Self::from_iter([whole])
    }
}

impl Frames {
    /// The pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// The next message, if all of it is here.
    fn message(&mut self, most: usize) -> Result<Option<Self>, Status> {
        let mut head = [0; HEAD_BYTES];
        if self.len < HEAD_BYTES {
            return Ok(None);
        }
        let heads = self.pieces.iter().flat_map(|piece| piece.iter());
        head.iter_mut().zip(heads).for_each(|(to, from)| *to = *from);
        let [flag, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        if flag != 0 {
            return Err(Status::unimplemented("a compressed message: only identity is spoken here"));
        }
        if length > most {
            return Err(Status::out_of_range(format!("a message has {length} bytes, the most is {most}")));
        }
        if self.len - HEAD_BYTES < length {
            return Ok(None);
        }
        self.advance(HEAD_BYTES);
        Ok(Some(self.split_to(length)))
    }

    /// The first `len` bytes, or all that are left.
    pub(super) fn split_to(&mut self, len: usize) -> Self {
        let mut split = Self::default();
        while split.len < len
            && let Some(mut piece) = self.pieces.pop_front()
        {
            let part = piece.split_to(piece.len().min(len - split.len));
            self.len -= part.len();
            split.push(part);
            if !piece.is_empty() {
                self.pieces.push_front(piece);
            }
        }
        split
    }
}

impl Buf for Frames {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.len, "advance stays within the bytes at hand");
        self.split_to(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        assert!(len <= self.len, "only what is at hand is taken");
        let split = self.split_to(len);
        match split.pieces.len() {
            0 => Bytes::new(),
            1 => split.pieces.into_iter().next().unwrap_or_default(),
            _ => split
                .pieces
                .iter()
                .fold(Vec::with_capacity(len), |mut whole, piece| {
                    whole.extend_from_slice(piece);
                    whole
                })
                .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_stream::StreamExt;
    use tonic::codec::{Codec, EncodeBody, SingleMessageCompressionOverride};

    use super::super::{BlockPiece, PutData};
    use super::*;

    fn message(sizes: &[usize]) -> PutData {
        let piece = |size: &usize| BlockPiece { data: vec![9; *size].into(), length: 7, ..BlockPiece::default() };
        PutData { pieces: sizes.iter().map(piece).collect() }
    }

    /// As it is on the wire.
    fn framed(message: &PutData) -> Vec<u8> {
        let mut wire = vec![0];
        wire.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
        message.encode(&mut wire).unwrap();
        wire
    }

    fn frames(pieces: impl IntoIterator<Item = Bytes>) -> Frames {
        pieces.into_iter().collect()
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_messages_are_the_same(
            sizes in proptest::collection::vec(proptest::collection::vec(0..300_usize, 0..4), 0..4),
            cuts in proptest::collection::vec(1..200_usize, 1..20),
        ) {
            let sent: Vec<PutData> = sizes.iter().map(|sizes| message(sizes)).collect();
            let mut wire: Bytes = sent.iter().flat_map(framed).collect::<Vec<u8>>().into();
            let (mut frames, mut came) = (Frames::default(), Vec::new());
            for cut in cuts.iter().cycle() {
                while let Some(mut message) = frames.message(1 << 20).unwrap() {
                    came.push(PutData::decode(&mut message).unwrap());
                }
                if wire.is_empty() {
                    break;
                }
                frames.push(wire.split_to(wire.len().min(*cut)));
            }
            prop_assert_eq!(came, sent);
            prop_assert_eq!((frames.len, frames.pieces.len()), (0, 0));
        }
    }

    #[test]
    fn a_payload_that_came_in_one_frame_is_not_copied_and_one_in_two_is_whole() {
        let sent = message(&[100_000]);
        let wire = Bytes::from(framed(&sent));
        let payload = wire.len() - 100_000;
        for cuts in [vec![], vec![payload], vec![3, payload], vec![payload + 10]] {
            let bounds: Vec<usize> = [0].into_iter().chain(cuts.clone()).chain([wire.len()]).collect();
            let pieces = bounds.windows(2).map(|bound| wire.slice(bound[0]..bound[1]));
            let mut whole = frames(pieces).message(1 << 20).unwrap().unwrap();
            let came = PutData::decode(&mut whole).unwrap();
            assert_eq!(came, sent);
            let shared = came.pieces[0].data.as_ptr() == wire[payload..].as_ptr();
            assert_eq!(shared, cuts != [payload + 10], "{cuts:?}");
        }
    }

    #[test]
    fn a_compressed_message_and_one_too_large_are_refused() {
        let refused = |head: [u8; 5]| frames([Bytes::copy_from_slice(&head)]).message(1000).unwrap_err();
        assert_eq!(refused([1, 0, 0, 0, 1]).code(), Code::Unimplemented);
        assert_eq!(refused([0, 0, 0, 3, 0xe9]).message(), "a message has 1001 bytes, the most is 1000");
    }

    /// What comes of a body that tonic has written.
    async fn read(sent: Vec<Result<PutData, Status>>, is_response: bool) -> Vec<Result<PutData, Code>> {
        let encoder = tonic_prost::ProstCodec::<PutData, PutData>::default().encoder();
        let sent = tokio_stream::iter(sent);
        let body = EncodeBody::new_server(encoder, sent, None, SingleMessageCompressionOverride::default(), None);
        let messages = Messages { is_response, ..Messages::of_request(Body::new(body), 1 << 20) };
        messages.map(|message| message.map_err(|status| status.code())).collect().await
    }

    #[tokio::test]
    async fn a_response_ends_with_the_status_of_its_trailers() {
        let sent = message(&[5, 70_000]);
        let twice = || vec![Ok(sent.clone()), Ok(sent.clone())];
        let came: Vec<_> = twice().into_iter().map(|sent: Result<_, Status>| sent.map_err(|_| Code::Ok)).collect();
        assert_eq!(read(twice(), true).await, came);
        let broken = [twice(), vec![Err(Status::data_loss("gone"))]].concat();
        assert_eq!(read(broken, true).await, [came, vec![Err(Code::DataLoss)]].concat());
    }

    #[tokio::test]
    async fn a_response_without_trailers_is_an_error_and_a_request_has_none() {
        let response: Vec<_> = Messages::<PutData>::of_response(Body::empty(), 9).collect().await;
        assert!(matches!(&response[..], [Err(status)] if status.code() == Code::Internal));
        let request: Vec<_> = Messages::<PutData>::of_request(Body::empty(), 9).collect().await;
        assert!(request.is_empty());
    }
}
