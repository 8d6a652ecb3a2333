//! A whole trace in memory: ids lie in one flat list, so that a request costs 40 bytes and an id eight.

use super::{RequestView, TraceRequest};

/// Requests in order of their timestamps; those of one timestamp keep the order they came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    block_tokens: u32,
    entries: Vec<Entry>,
    ids: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    timestamp_ms: u64,
    input_length: u64,
    output_length: u64,
    start: usize,
    end: usize,
}

impl Trace {
    /// Collects requests that come one by one and may fail to come, such as those of a
    /// [`TraceReader`](super::TraceReader).
    ///
    /// # Errors
    /// The first error of `requests`.
    pub fn try_collect<E>(
        block_tokens: u32,
        requests: impl IntoIterator<Item = Result<TraceRequest, E>>,
    ) -> Result<Self, E> {
        let mut trace = Self { block_tokens, ..Self::default() };
        for request in requests {
            trace.push(request?.view());
        }
        trace.entries.sort_by_key(|entry| entry.timestamp_ms);
        Ok(trace)
    }

    /// Collects requests that can't fail to come, such as those of a [`Generator`](super::Generator).
    #[must_use]
    pub fn collect(block_tokens: u32, requests: impl IntoIterator<Item = TraceRequest>) -> Self {
        let Ok(trace) = Self::try_collect(block_tokens, requests.into_iter().map(Ok::<_, std::convert::Infallible>));
        trace
    }

    /// Tokens of a block.
    #[must_use]
    pub const fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// How many requests there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Blocks that all requests refer to, with repetitions.
    #[must_use]
    pub fn block_references(&self) -> usize {
        self.ids.len()
    }

    /// The requests, in order.
    pub fn requests(&self) -> impl ExactSizeIterator<Item = RequestView<'_>> + DoubleEndedIterator {
        self.entries.iter().map(|entry| RequestView {
            timestamp_ms: entry.timestamp_ms,
            input_length: entry.input_length,
            output_length: entry.output_length,
            hash_ids: self.ids.get(entry.start..entry.end).unwrap_or_default(),
        })
    }

    fn push(&mut self, request: RequestView<'_>) {
        let start = self.ids.len();
        self.ids.extend_from_slice(request.hash_ids);
        self.entries.push(Entry {
            timestamp_ms: request.timestamp_ms,
            input_length: request.input_length,
            output_length: request.output_length,
            start,
            end: self.ids.len(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timestamp_ms: u64, id: u64) -> TraceRequest {
        TraceRequest { timestamp_ms, input_length: 1, output_length: 1, hash_ids: vec![id] }
    }

    #[test]
    fn requests_are_sorted_by_time_and_ties_keep_their_order() {
        // Enough of them that an unstable sort would show itself.
        let trace = Trace::collect(512, (0..1_000).map(|id| at(9 - id % 10, id)));
        let ids: Vec<u64> = trace.requests().flat_map(|request| request.hash_ids.to_vec()).collect();
        let expected: Vec<u64> = (0..10).flat_map(|time| (0..100).map(move |nth| nth * 10 + 9 - time)).collect();
        assert_eq!(ids, expected);
        assert_eq!((trace.len(), trace.block_references(), trace.block_tokens()), (1_000, 1_000, 512));
    }
}
