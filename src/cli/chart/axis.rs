//! Axes: from values to places, and the round numbers that stand beside them.

use super::super::size::human;
use super::super::table::thousands;
use crate::vocab::ByteCount;

/// What an axis counts, and from where to where.
#[derive(Clone, Debug)]
pub(in super::super) struct Axis {
    pub(in super::super) label: String,
    pub(in super::super) unit: Unit,
    pub(in super::super) scale: Scale,
    /// The smallest and the largest value.
    pub(super) range: (f64, f64),
}

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Scale {
    Linear,
    /// Each factor is as wide as another.
    Log,
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Unit {
    Bytes,
    Blocks,
    /// A share, from 0 to 1.
    Percent,
    Money,
    Number,
    /// Of the day.
    Hour,
}

impl Axis {
    /// Over these values: from 0, or from the smallest where the scale has none; up to a round number where it is linear.
    pub(in super::super) fn over(
        label: impl Into<String>,
        (unit, scale): (Unit, Scale),
        values: impl Iterator<Item = f64>,
    ) -> Self {
        let (mut low, mut high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if !low.is_finite() || !high.is_finite() {
            (low, high) = (0.0, 1.0);
        }
        let range = match scale {
            Scale::Log if high > low => (low, high),
            Scale::Log => (low / 2.0, high.max(1.0) * 2.0),
            Scale::Linear => {
                let (low, high) = (low.min(0.0), if high > low.min(0.0) { high } else { 1.0 });
                let step = step((high - low) / 5.0);
                ((low / step).floor() * step, (high / step).ceil() * step)
            }
        };
        Self { label: label.into(), unit, scale, range }
    }

    /// The same from here to there.
    pub(in super::super) fn between(self, low: f64, high: f64) -> Self {
        Self { range: (low, high), ..self }
    }

    /// Where a value lies, from 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        match self.scale {
            Scale::Linear => (value - low) / (high - low),
            Scale::Log => (value / low).ln() / (high / low).ln(),
        }
    }

    /// At most so many round values of the range.
    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        let (low, high) = self.range;
        match (self.scale, self.unit) {
            (Scale::Linear, Unit::Hour) => (0..24).step_by(if most > 8 { 3 } else { 6 }).map(f64::from).collect(),
            (Scale::Linear, _) => {
                let step = step((high - low) / most.max(1) as f64);
                let first = (low / step - 1e-9).ceil() as i64;
                let last = (high / step + 1e-9).floor() as i64;
                (first..=last).map(|number| number as f64 * step).collect()
            }
            (Scale::Log, Unit::Bytes) => {
                let (first, last) = ((low.log2() - 1e-9).ceil() as i32, (high.log2() + 1e-9).floor() as i32);
                let by = (1..).find(|by| (last - first) / by < most as i32).unwrap_or(1);
                (first..=last).filter(|power| power.rem_euclid(by) == 0).map(|power| 2_f64.powi(power)).collect()
            }
            (Scale::Log, _) => {
                let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
                let of = |digits: &[f64]| {
                    let all = decades.clone().flat_map(|ten| digits.iter().map(move |digit| digit * 10_f64.powi(ten)));
                    all.filter(|tick| (low * 0.999..=high * 1.001).contains(tick)).collect::<Vec<f64>>()
                };
                let choices = [of(&[1.0, 2.0, 5.0]), of(&[1.0, 3.0]), of(&[1.0])];
                let fits = choices.iter().find(|ticks| ticks.len() <= most).or(choices.last());
                fits.cloned().unwrap_or_default()
            }
        }
    }

    /// A value as it stands beside the axis.
    pub(super) fn tick(&self, value: f64) -> String {
        match self.unit {
            Unit::Percent if self.range.1 - self.range.0 >= 0.05 => format!("{:.0} %", value * 100.0),
            Unit::Hour => format!("{value:02.0}:00"),
            Unit::Money if value.fract() == 0.0 => Unit::Number.show(value),
            unit => unit.show(value),
        }
    }
}

impl Unit {
    /// A value for people.
    pub(in super::super) fn show(self, value: f64) -> String {
        let whole = value.abs().round() as u64;
        let sign = if value < 0.0 && whole > 0 { "-" } else { "" };
        match self {
            Self::Bytes => human(ByteCount(whole)),
            Self::Blocks => format!("{} blocks", thousands(whole)),
            Self::Percent => format!("{:.1} %", value * 100.0),
            Self::Money | Self::Number if value == 0.0 => "0".to_owned(),
            Self::Money if value.abs() < 100.0 => format!("{value:.2}"),
            Self::Money if value.abs() < 1_000.0 => format!("{value:.1}"),
            Self::Number if value.abs() < 100.0 && value.fract() != 0.0 => format!("{value:.1}"),
            Self::Money | Self::Number => format!("{sign}{}", thousands(whole)),
            Self::Hour => format!("{:02}:00 to {:02}:00", whole, whole + 1),
        }
    }
}

/// The next larger of 1, 2 and 5 times a power of ten.
fn step(least: f64) -> f64 {
    let ten = 10_f64.powf(least.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * ten).find(|step| *step >= least * 0.999).unwrap_or(ten)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(unit: Unit, scale: Scale, low: f64, high: f64) -> Axis {
        Axis::over("x", (unit, scale), [low, high].into_iter())
    }

    fn said(axis: &Axis, most: usize) -> Vec<String> {
        axis.ticks(most).into_iter().map(|tick| axis.tick(tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_and_not_too_many() {
        let bytes = axis(Unit::Bytes, Scale::Log, 50e9, 30e12);
        assert_eq!(
            said(&bytes, 10),
            ["64 GiB", "128 GiB", "256 GiB", "512 GiB", "1 TiB", "2 TiB", "4 TiB", "8 TiB", "16 TiB"]
        );
        assert_eq!(said(&bytes, 5), ["64 GiB", "256 GiB", "1 TiB", "4 TiB", "16 TiB"]);
        assert_eq!(
            said(&axis(Unit::Blocks, Scale::Log, 300.0, 2e6), 5),
            ["1,000 blocks", "10,000 blocks", "100,000 blocks", "1,000,000 blocks"]
        );
        assert_eq!(said(&axis(Unit::Percent, Scale::Linear, 0.1, 0.374), 5), ["0 %", "10 %", "20 %", "30 %", "40 %"]);
        assert_eq!(
            said(&axis(Unit::Money, Scale::Linear, -130.0, 390.0), 6),
            ["-200", "-100", "0", "100", "200", "300", "400"]
        );
    }

    #[test]
    fn a_value_lies_where_its_scale_puts_it() {
        let log = axis(Unit::Blocks, Scale::Log, 1.0, 10_000.0);
        assert!((log.place(100.0) - 0.5).abs() < 1e-12);
        let linear = axis(Unit::Percent, Scale::Linear, 0.2, 0.4);
        assert!((linear.place(0.1) - 0.25).abs() < 1e-12, "{linear:?}");
    }

    #[test]
    fn an_axis_without_width_has_some_all_the_same() {
        for (scale, value) in [(Scale::Log, 1.0), (Scale::Linear, 0.0), (Scale::Log, 70_000.0)] {
            let alone = axis(Unit::Blocks, scale, value, value);
            assert!(alone.place(value).is_finite() && !alone.ticks(6).is_empty(), "{alone:?}");
        }
        let none = Axis::over("x", (Unit::Money, Scale::Linear), std::iter::empty());
        assert!(none.place(0.5).is_finite());
    }
}
