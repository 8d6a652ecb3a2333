//! How the lines of a trace become requests, for each format that has lines.

use std::collections::VecDeque;

use super::chats::Chats;
use super::mooncake::TraceFault;
use super::recording::Recording;
use super::{TraceRequest, bailian, line};
use crate::vocab::limits::{CHAT_LINE_BYTES_MAX, TRACE_LINE_BYTES_MAX};

/// What reads lines of one format.
#[derive(Debug)]
pub(super) enum Parser {
    /// Mooncake's.
    Mooncake,
    /// Alibaba's.
    Bailian,
    /// Text or token ids.
    Chats(Box<Chats>),
    /// A daemon's.
    Recording(Box<Recording>),
}

impl Parser {
    /// Adds the requests of one line: mostly one, of a chat all its turns, of a recording's header none.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub(super) fn parse(
        &mut self,
        bytes: &[u8],
        block_tokens: u32,
        to: &mut VecDeque<TraceRequest>,
    ) -> Result<(), TraceFault> {
        match self {
            Self::Mooncake => to.push_back(line::parse(bytes, block_tokens)?),
            Self::Bailian => to.push_back(bailian::parse(bytes, block_tokens)?),
            Self::Chats(chats) => chats.parse(bytes, block_tokens, to)?,
            Self::Recording(recording) => recording.parse(bytes, to)?,
        }
        Ok(())
    }

    /// There are no more lines: adds what was held back.
    pub(super) fn finish(&mut self, to: &mut VecDeque<TraceRequest>) {
        if let Self::Recording(recording) = self {
            recording.finish(to);
        }
    }

    /// How long a line may be.
    pub(super) fn line_bytes_max(&self) -> u64 {
        if matches!(self, Self::Chats(_)) { CHAT_LINE_BYTES_MAX } else { TRACE_LINE_BYTES_MAX }
    }

    /// Whether the last line may be torn: its writer may have been killed.
    pub(super) fn may_be_torn(&self) -> bool {
        matches!(self, Self::Recording(_))
    }
}
