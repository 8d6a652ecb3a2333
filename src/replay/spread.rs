//! How values are spread, in bounded memory: exactly while they are few.

use hdrhistogram::Histogram;

use super::info::Quantiles;
use crate::vocab::limits::TRACE_EXACT_VALUES;

/// Digits that are kept of a value when there are many.
const DIGITS: u8 = 4;

/// It grows with its values, so that none is too large.
fn record(many: &mut Histogram<u64>, value: u64) {
    many.record(value).ok();
}

/// Values of which quantiles are wanted.
#[derive(Default)]
pub(super) struct Spread {
    values: Vec<u64>,
    /// All before `values`, where they became too many.
    many: Option<Histogram<u64>>,
    max: u64,
}

impl Spread {
    pub(super) fn add(&mut self, value: u64) {
        self.max = self.max.max(value);
        match &mut self.many {
            Some(many) => record(many, value),
            None => {
                self.values.push(value);
                if self.values.len() > TRACE_EXACT_VALUES {
                    self.sum_up();
                }
            }
        }
    }

    fn sum_up(&mut self) {
        // Digits from 0 to 5 are right, so it is there.
        // So many digits are allowed, so it is there.
        let Ok(mut many) = Histogram::new(DIGITS) else { return };
        self.values.iter().for_each(|value| record(&mut many, *value));
        self.values = Vec::new();
        self.many = Some(many);
    }

    pub(super) fn quantiles(self) -> Option<Quantiles> {
        let Some(many) = self.many else { return Quantiles::of(self.values) };
        let at = |share| many.value_at_quantile(share).min(self.max);
        Some(Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: self.max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_values_quantiles_are_right_to_four_digits_and_the_largest_exactly() {
        let mut spread = Spread::default();
        let values = || (0..TRACE_EXACT_VALUES as u64 + 1_000).map(|value| value * 7_919 % 1_000_003);
        values().for_each(|value| spread.add(value));
        assert!(spread.values.is_empty());
        let (found, exact) = (spread.quantiles().unwrap(), Quantiles::of(values().collect()).unwrap());
        assert_eq!(found.max, exact.max);
        for (found, exact) in [(found.p50, exact.p50), (found.p90, exact.p90), (found.p99, exact.p99)] {
            assert!(found.abs_diff(exact) * 10_000 <= exact, "{found} for {exact}");
        }
    }

    #[test]
    fn few_values_are_those_that_occur() {
        let mut spread = Spread::default();
        assert_eq!(Spread::default().quantiles(), None);
        [9, 100_003, 5].into_iter().for_each(|value| spread.add(value));
        assert_eq!(spread.quantiles(), Quantiles::of(vec![5, 9, 100_003]));
    }
}
