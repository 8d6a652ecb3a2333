//! Ours and the limit take turns in short rounds, so that both meet the same moods of the machine; of all rounds the one
//! whose ratio is the median is reported whole.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::BenchError;

/// How long a figure is measured for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// At least so many rounds, so that one disturbance is not the median.
    pub(super) rounds: u32,
    /// Rounds are begun for so long.
    pub(super) time: Duration,
}

/// Ours and the limit's figure of every round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Rounds(Vec<(f64, Option<f64>)>);

/// What stands for all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) value: f64,
    pub(super) limit: Option<f64>,
    pub(super) ratio: Option<f64>,
    pub(super) ratio_range: Option<[f64; 2]>,
    pub(super) rounds: u32,
}

/// Runs rounds, an odd number of them. `round` is told which side goes first.
pub(super) fn in_turn(
    effort: Effort,
    mut round: impl FnMut(bool) -> Result<(f64, Option<f64>), BenchError>,
) -> Result<Rounds, BenchError> {
    let (began, mut rounds) = (Instant::now(), Vec::new());
    while rounds.len() < effort.rounds as usize || rounds.len().is_multiple_of(2) || began.elapsed() < effort.time {
        rounds.push(round(rounds.len().is_multiple_of(2))?);
    }
    Ok(Rounds(rounds))
}

/// One round of two works that share what they work on.
pub(super) fn both<T>(
    ours_first: bool,
    on: &mut T,
    ours: impl FnOnce(&mut T) -> Result<f64, BenchError>,
    limit: impl FnOnce(&mut T) -> Result<f64, BenchError>,
) -> Result<(f64, Option<f64>), BenchError> {
    if ours_first {
        let ours = ours(on)?;
        Ok((ours, Some(limit(on)?)))
    } else {
        let limit = limit(on)?;
        Ok((ours(on)?, Some(limit)))
    }
}

impl Rounds {
    /// The round with the median ratio; where there is no limit, the one with the median value.
    pub(super) fn summary(&self) -> Option<Summary> {
        let ratio = |(value, limit): (f64, Option<f64>)| limit.map(|limit| value / limit);
        let mut rounds: Vec<_> = self.0.iter().map(|round| (round.0, round.1, ratio(*round))).collect();
        rounds.sort_by(|a, b| a.2.unwrap_or(a.0).total_cmp(&b.2.unwrap_or(b.0)));
        let (value, limit, ratio) = *rounds.get(rounds.len() / 2)?;
        let ratio_range = rounds.first()?.2.zip(rounds.last()?.2).map(|(least, most)| [least, most]);
        Some(Summary { value, limit, ratio, ratio_range, rounds: u32::try_from(rounds.len()).unwrap_or(u32::MAX) })
    }
}

/// The middle one of some durations, in microseconds; 0 where there is none.
pub(super) fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// Billions of bytes a second.
pub(super) fn gigabytes(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e9 / time.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Effort = Effort { rounds: 3, time: Duration::ZERO };

    #[test]
    fn the_round_with_the_median_ratio_is_reported_whole() {
        let mut rounds = [(1.0, 2.0), (9.0, 10.0), (8.0, 10.0)].into_iter();
        let mut first = Vec::new();
        let round = |ours_first| {
            first.push(ours_first);
            let (value, limit) = rounds.next().unwrap();
            Ok((value, Some(limit)))
        };
        let summary = in_turn(THREE, round).unwrap().summary().unwrap();
        assert_eq!((summary.value, summary.limit, summary.ratio), (8.0, Some(10.0), Some(0.8)));
        assert_eq!((summary.ratio_range, summary.rounds), (Some([0.5, 0.9]), 3));
        assert_eq!(first, [true, false, true]);
    }

    #[test]
    fn without_a_limit_the_median_is_reported() {
        let mut rounds = [3.0, 1.0, 2.0].into_iter();
        let rounds = in_turn(THREE, |_| Ok((rounds.next().unwrap(), None))).unwrap();
        let summary = rounds.summary().unwrap();
        assert_eq!((summary.value, summary.limit, summary.ratio, summary.ratio_range), (2.0, None, None, None));
    }

    #[test]
    fn whichever_side_goes_first_its_figure_is_its_own() {
        for (ours_first, order) in [(true, "ol"), (false, "lo")] {
            let mut went = String::new();
            let side = |name, figure| {
                move |went: &mut String| {
                    went.push(name);
                    Ok(figure)
                }
            };
            let round = both(ours_first, &mut went, side('o', 1.0), side('l', 2.0)).unwrap();
            assert_eq!((round, went.as_str()), ((1.0, Some(2.0)), order));
        }
    }

    #[test]
    fn a_median_is_the_middle_one() {
        let times = [9, 1, 5].map(Duration::from_micros);
        assert_eq!((median_us(times.to_vec()), median_us(Vec::new())), (5.0, 0.0));
    }
}
