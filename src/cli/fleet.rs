//! The day's sheet of a fleet, as `kvtier plan --fleet` shows it.

use serde::Serialize;

use super::table::{numbers, percent, thousands};
use crate::replay::{Day, Fleet};

/// By how many points the hit rate is moved, from the day as it is said to be.
const MOVES: [f64; 5] = [-0.2, -0.1, 0.0, 0.1, 0.2];

/// What the columns of the days are.
pub(super) const HEADER: [&str; 8] =
    ["hit rate", "nodes", "for prefill", "at peak", "least", "cost a day", "revenue a day", "margin"];

/// Days of a fleet. Field names are a contract: add, never rename.
#[derive(Debug, Serialize)]
pub(super) struct Sheet {
    /// As it is said to be.
    day: Day,
    /// With other hit rates; of a trace's sizes, in their order.
    days: Vec<Day>,
}

impl Sheet {
    /// Its day, and how it moves with the hit rate.
    pub(super) fn of(fleet: &Fleet) -> Self {
        let day = fleet.day();
        let moved = MOVES.map(|more| (day.hit_rate + more).clamp(0.0, 1.0));
        Self { day, days: moved.into_iter().map(|rate| fleet.day_at(rate)).collect() }
    }

    /// Its day, and the same at the hit rate of each size.
    pub(super) fn of_sizes(fleet: &Fleet, rates: &[f64]) -> Self {
        Self { day: fleet.day(), days: rates.iter().map(|rate| fleet.day_at(*rate)).collect() }
    }

    pub(super) fn text(&self) -> String {
        format!("{}\n{}", self.sentence(), numbers(HEADER, self.rows()))
    }

    /// The day in a sentence.
    pub(super) fn sentence(&self) -> String {
        let Day { nodes_average, cost, revenue, margin_percent, .. } = self.day;
        let margin = margin_percent.map_or_else(String::new, |margin| format!(", a margin of {margin:.0} %"));
        let said = format!("{} nodes, {} a day against {}{margin}", nodes(nodes_average), money(cost), money(revenue));
        format!("The day at {} hits: {said}.", percent(self.day.hit_rate))
    }

    /// The days, one a row below [`HEADER`].
    pub(super) fn rows(&self) -> impl Iterator<Item = [String; 8]> + '_ {
        self.days.iter().map(|day| {
            [
                percent(day.hit_rate),
                nodes(day.nodes_average),
                nodes(day.prefill_nodes_average),
                nodes(day.nodes_peak),
                nodes(day.nodes_least),
                money(day.cost),
                money(day.revenue),
                day.margin_percent.map_or_else(|| "-".to_owned(), |margin| format!("{margin:.1} %")),
            ]
        })
    }
}

fn nodes(nodes: f64) -> String {
    format!("{nodes:.2}")
}

/// Whole units of the currency: it is a plan, no invoice.
fn money(amount: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be at least 0")]
    thousands(amount.round() as u64)
}
