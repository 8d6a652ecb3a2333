//! When a trace's requests come, in seconds from its first: spread where many have one timestamp, and at another speed than they were recorded.

use std::collections::VecDeque;

use super::RequestView;

/// Requests of one timestamp are spread over this much at most: Mooncake's conversations have timestamps of 3 s.
const SPREAD_MS: u64 = 3_000;

/// How much of a trace there is, and over how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// From the first timestamp to the last, in milliseconds.
    pub span_ms: u64,
}

impl Extent {
    /// Goes over the requests once.
    #[must_use]
    pub fn of<'a>(requests: impl Iterator<Item = RequestView<'a>>) -> Self {
        let (mut extent, mut first) = (Self::default(), None);
        for request in requests {
            extent.prompt_tokens += request.input_length;
            extent.span_ms = request.timestamp_ms - *first.get_or_insert(request.timestamp_ms);
        }
        extent
    }

    /// How much faster than it was recorded a trace must come so that `hosts` without a cache, each with this prefill rate, would be busy
    /// for this share of the time. `None` where all requests came at once.
    #[must_use]
    pub fn speed_for(&self, load: f64, hosts: usize, prefill_rate: f64) -> Option<f64> {
        let speed = load / self.load_at(1.0, hosts, prefill_rate)?;
        (speed.is_finite() && speed > 0.0).then_some(speed)
    }

    /// The share of the time for which hosts without a cache would be busy.
    #[must_use]
    pub fn load_at(&self, speed: f64, hosts: usize, prefill_rate: f64) -> Option<f64> {
        let seconds = self.span_ms as f64 / 1e3 / speed;
        (seconds > 0.0).then(|| self.prompt_tokens as f64 / prefill_rate / hosts as f64 / seconds)
    }
}

/// Requests with the second at which each comes.
pub struct Arrivals<'a, I: Iterator<Item = RequestView<'a>>> {
    requests: std::iter::Peekable<I>,
    first_ms: Option<u64>,
    /// The requests of one timestamp that are still to come, and how long after each other.
    group: VecDeque<(f64, RequestView<'a>)>,
    last_gap_ms: u64,
    speed: f64,
}

impl<'a, I: Iterator<Item = RequestView<'a>>> Arrivals<'a, I> {
    /// Of requests in order of their timestamps, so many times as fast.
    pub fn new(requests: I, speed: f64) -> Self {
        Self { requests: requests.peekable(), first_ms: None, group: VecDeque::new(), last_gap_ms: 0, speed }
    }

    fn fill(&mut self) {
        let Some(first) = self.requests.next() else { return };
        let at_ms = first.timestamp_ms;
        let mut group = vec![first];
        while let Some(request) = self.requests.next_if(|request| request.timestamp_ms == at_ms) {
            group.push(request);
        }
        // Those of the last timestamp take as long as those before.
        let gap_ms = self.requests.peek().map_or(self.last_gap_ms, |next| next.timestamp_ms - at_ms);
        self.last_gap_ms = gap_ms.min(SPREAD_MS);
        let since_ms = (at_ms - *self.first_ms.get_or_insert(at_ms)) as f64;
        let apart_ms = self.last_gap_ms as f64 / group.len() as f64;
        let speed = self.speed;
        let arrival = |(nth, request): (usize, _)| ((since_ms + apart_ms * nth as f64) / 1e3 / speed, request);
        self.group.extend(group.into_iter().enumerate().map(arrival));
    }
}

impl<'a, I: Iterator<Item = RequestView<'a>>> Iterator for Arrivals<'a, I> {
    type Item = (f64, RequestView<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.group.is_empty() {
            self.fill();
        }
        self.group.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timestamp_ms: u64) -> RequestView<'static> {
        RequestView { timestamp_ms, input_length: 10, output_length: 1, hash_ids: &[] }
    }

    #[test]
    fn requests_of_one_timestamp_are_spread_up_to_the_next() {
        let times = |timestamps: &[u64], speed| -> Vec<f64> {
            Arrivals::new(timestamps.iter().map(|ms| at(*ms)), speed).map(|(seconds, _)| seconds).collect()
        };
        assert_eq!(times(&[5_000, 5_000, 5_000, 6_500, 8_000, 8_000], 1.0), [0.0, 0.5, 1.0, 1.5, 3.0, 3.75]);
        assert_eq!(times(&[0, 0, 60_000], 1.0), [0.0, 1.5, 60.0], "over three seconds at most");
        assert_eq!(times(&[0, 0, 2_000], 2.0), [0.0, 0.5, 1.0]);
        assert_eq!((times(&[7], 1.0), times(&[], 1.0)), (vec![0.0], vec![]));
    }

    #[test]
    fn the_speed_for_a_load_makes_that_load() {
        let extent = Extent::of([at(1_000), at(2_000), at(5_000)].into_iter());
        assert_eq!(extent, Extent { prompt_tokens: 30, span_ms: 4_000 });
        // 30 tokens take 3 s at 10 a second; two hosts are busy for 3 of 8 seconds.
        assert_eq!(extent.load_at(1.0, 2, 10.0), Some(0.375));
        assert_eq!(extent.speed_for(0.75, 2, 10.0), Some(2.0));
        assert_eq!(Extent::of([at(3)].into_iter()).speed_for(0.5, 1, 10.0), None);
    }
}
