//! A day of an inference fleet on one sheet: nodes, cost, revenue and margin, and how they move with the hit rate.
//!
//! Prefill and decode nodes are apart, as in DeepSeek's published day (open-infra-index, 202502OpenSourceWeek, day 6). A hit costs a
//! prefill node what it takes to load it, which may be nothing; a miss what it takes to compute it. Nodes are had in whole units an
//! hour, or, where a unit is not said, in any fraction.

use serde::{Deserialize, Serialize};

/// Hours of a day.
const HOURS: usize = 24;
const SECONDS: f64 = 3_600.0;

/// A fleet and its day.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// What a GPU costs an hour.
    pub gpu_hour: f64,
    /// GPUs of a node.
    pub gpus_per_node: u32,
    /// Nodes that compute prompts.
    pub prefill: Prefill,
    /// Nodes that generate.
    pub decode: Decode,
    /// What customers pay.
    pub prices: FleetPrices,
    /// What they ask for in a day.
    pub demand: Demand,
}

/// Nodes that compute prompts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefill {
    /// Tokens a second that a node computes.
    pub computed_per_second: f64,
    /// Tokens a second of hits that it takes in, if it did nothing else; absent where loading costs it nothing.
    pub loaded_per_second: Option<f64>,
    /// Nodes are had by so many; absent for any fraction.
    pub unit_nodes: Option<u32>,
}

/// Nodes that generate.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decode {
    /// Tokens a second that a node generates.
    pub generated_per_second: f64,
    /// Nodes are had by so many; absent for any fraction.
    pub unit_nodes: Option<u32>,
}

/// What a million tokens cost a customer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetPrices {
    /// Of hits.
    pub hit: f64,
    /// Computed.
    pub miss: f64,
    /// Generated.
    pub output: f64,
}

/// A day's tokens.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// Of prompts.
    pub input_tokens: f64,
    /// Generated.
    pub output_tokens: f64,
    /// Share of the prompts' tokens that are hits.
    pub hit_rate: f64,
    /// How the day's tokens fall on its 24 hours, as weights; absent for evenly.
    #[serde(default)]
    pub by_hour: Vec<f64>,
}

/// A field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, it must be {rule}")]
pub struct FleetError {
    /// Which.
    pub field: &'static str,
    /// What it held.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

/// The day at one hit rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Day {
    /// Share of the prompts' tokens that are hits.
    pub hit_rate: f64,
    /// Nodes in use, on average over the day.
    pub nodes_average: f64,
    /// Of these for prefill.
    pub prefill_nodes_average: f64,
    /// In the busiest hour.
    pub nodes_peak: f64,
    /// In the quietest hour.
    pub nodes_least: f64,
    /// What the nodes in use cost.
    pub cost: f64,
    /// What customers pay.
    pub revenue: f64,
    /// (revenue - cost) / cost, in percent; absent where nothing is used.
    pub margin_percent: Option<f64>,
}

impl Fleet {
    /// Checks every number.
    ///
    /// # Errors
    /// Names the first that breaks its rule.
    pub fn checked(self) -> Result<Self, FleetError> {
        let positive = "a number above 0";
        let least_zero = "a number, at least 0";
        for (field, number, may_be_zero) in [
            ("gpu_hour", self.gpu_hour, true),
            ("gpus_per_node", f64::from(self.gpus_per_node), false),
            ("prefill.computed_per_second", self.prefill.computed_per_second, false),
            ("prefill.loaded_per_second", self.prefill.loaded_per_second.unwrap_or(1.0), false),
            ("prefill.unit_nodes", f64::from(self.prefill.unit_nodes.unwrap_or(1)), false),
            ("decode.generated_per_second", self.decode.generated_per_second, false),
            ("decode.unit_nodes", f64::from(self.decode.unit_nodes.unwrap_or(1)), false),
            ("prices.hit", self.prices.hit, true),
            ("prices.miss", self.prices.miss, true),
            ("prices.output", self.prices.output, true),
            ("demand.input_tokens", self.demand.input_tokens, true),
            ("demand.output_tokens", self.demand.output_tokens, true),
        ] {
            let is_good = number.is_finite() && (number > 0.0 || (may_be_zero && number == 0.0));
            if !is_good {
                let rule = if may_be_zero { least_zero } else { positive };
                return Err(FleetError { field, value: number.to_string(), rule });
            }
        }
        let Demand { hit_rate, by_hour, .. } = &self.demand;
        if !(0.0..=1.0).contains(hit_rate) {
            return Err(FleetError { field: "demand.hit_rate", value: hit_rate.to_string(), rule: "from 0 to 1" });
        }
        let weights: f64 = by_hour.iter().sum();
        let is_good = by_hour.iter().all(|weight| weight.is_finite() && *weight >= 0.0) && weights > 0.0;
        if !by_hour.is_empty() && (by_hour.len() != HOURS || !is_good) {
            let (field, value) = ("demand.by_hour", format!("{} weights that add up to {weights}", by_hour.len()));
            return Err(FleetError { field, value, rule: "24 weights, none below 0 and one above" });
        }
        Ok(self)
    }

    /// Which share of the day's tokens falls on each hour.
    fn by_hour(&self) -> [f64; HOURS] {
        let by_hour = &self.demand.by_hour;
        let weights: f64 = by_hour.iter().sum();
        std::array::from_fn(|hour| by_hour.get(hour).map_or(1.0 / HOURS as f64, |weight| weight / weights))
    }

    /// Prompt tokens that are asked for in each hour.
    #[must_use]
    pub fn input_by_hour(&self) -> [f64; HOURS] {
        self.by_hour().map(|share| share * self.demand.input_tokens)
    }

    /// The day as it is said to be.
    #[must_use]
    pub fn day(&self) -> Day {
        self.day_at(self.demand.hit_rate)
    }

    /// The same day with another hit rate.
    #[must_use]
    pub fn day_at(&self, hit_rate: f64) -> Day {
        let Demand { input_tokens, output_tokens, .. } = &self.demand;
        let (mut prefill, mut all) = (0.0, Vec::new());
        for share in self.by_hour() {
            let per_second = share / SECONDS;
            let (input, output) = (input_tokens * per_second, output_tokens * per_second);
            let loading = self.prefill.loaded_per_second.map_or(0.0, |loaded| input * hit_rate / loaded);
            let computing = input * (1.0 - hit_rate) / self.prefill.computed_per_second;
            let prefilling = whole_units(loading + computing, self.prefill.unit_nodes);
            prefill += prefilling;
            all.push(prefilling + whole_units(output / self.decode.generated_per_second, self.decode.unit_nodes));
        }
        let hours = HOURS as f64;
        let nodes_average = all.iter().sum::<f64>() / hours;
        let cost = nodes_average * hours * f64::from(self.gpus_per_node) * self.gpu_hour;
        let FleetPrices { hit, miss, output } = self.prices;
        let prompts = input_tokens * (hit_rate * hit + (1.0 - hit_rate) * miss);
        let revenue = (prompts + output_tokens * output) / 1e6;
        Day {
            hit_rate,
            nodes_average,
            prefill_nodes_average: prefill / hours,
            nodes_peak: all.iter().copied().fold(0.0, f64::max),
            nodes_least: all.iter().copied().fold(f64::INFINITY, f64::min),
            cost,
            revenue,
            margin_percent: (cost > 0.0).then(|| (revenue - cost) / cost * 100.0),
        }
    }
}

fn whole_units(nodes: f64, unit: Option<u32>) -> f64 {
    // A sum of tokens that is a whole number of units but for the last bit is that many.
    unit.map_or(nodes, |unit| (nodes / f64::from(unit) - 1e-9).ceil().max(0.0) * f64::from(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Fleet {
        Fleet {
            gpu_hour: 2.0,
            gpus_per_node: 8,
            prefill: Prefill { computed_per_second: 10_000.0, loaded_per_second: None, unit_nodes: None },
            decode: Decode { generated_per_second: 1_000.0, unit_nodes: None },
            prices: FleetPrices { hit: 1.0, miss: 2.0, output: 4.0 },
            demand: Demand { input_tokens: 8.64e9, output_tokens: 86.4e6, hit_rate: 0.5, by_hour: Vec::new() },
        }
    }

    #[test]
    fn a_day_is_what_one_works_out_by_hand() {
        let day = fleet().day();
        // 100,000 tokens in a second, half of them computed: 5 nodes; 1,000 out: 1 node.
        assert!((day.prefill_nodes_average - 5.0).abs() < 1e-9 && (day.nodes_average - 6.0).abs() < 1e-9, "{day:?}");
        assert!((day.cost - 6.0 * 8.0 * 2.0 * 24.0).abs() < 1e-6);
        assert!((day.revenue - (4_320.0 + 8_640.0 + 345.6)).abs() < 1e-6);
        let cold = fleet().day_at(0.0);
        assert!((cold.nodes_average - 11.0).abs() < 1e-9 && cold.revenue > day.revenue);
        let loads = Prefill { loaded_per_second: Some(50_000.0), ..fleet().prefill };
        let loaded = Fleet { prefill: loads, ..fleet() }.day();
        assert!((loaded.prefill_nodes_average - 6.0).abs() < 1e-9, "loading takes a node more");
    }

    #[test]
    fn nodes_are_had_in_units_by_the_hour() {
        let mut by_hour = vec![1.0; 24];
        by_hour[..12].fill(3.0);
        let units = Prefill { unit_nodes: Some(4), ..fleet().prefill };
        let demand = Demand { by_hour, ..fleet().demand };
        let day = Fleet { prefill: units, demand, ..fleet() }.day();
        // 7.5 nodes by day and 2.5 by night are 8 and 4; decode 1.5 and 0.5.
        assert!((day.nodes_peak - 9.5).abs() < 1e-9 && (day.nodes_least - 4.5).abs() < 1e-9, "{day:?}");
        assert!((day.prefill_nodes_average - 6.0).abs() < 1e-9);
        assert_eq!(
            [whole_units(8.0 + 1e-12, Some(4)), whole_units(8.1, Some(4)), whole_units(0.0, Some(4))],
            [8.0, 12.0, 0.0]
        );
    }

    #[test]
    fn a_number_that_can_not_be_is_refused_by_name() {
        let said = |fleet: Fleet| fleet.checked().unwrap_err().to_string();
        assert!(fleet().checked().is_ok());
        assert_eq!(said(Fleet { gpu_hour: -1.0, ..fleet() }), "gpu_hour is -1, it must be a number, at least 0");
        let still = Decode { generated_per_second: 0.0, ..fleet().decode };
        assert_eq!(
            said(Fleet { decode: still, ..fleet() }),
            "decode.generated_per_second is 0, it must be a number above 0"
        );
        let more = Demand { hit_rate: 1.1, ..fleet().demand };
        assert_eq!(said(Fleet { demand: more, ..fleet() }), "demand.hit_rate is 1.1, it must be from 0 to 1");
        let short = Demand { by_hour: vec![1.0; 23], ..fleet().demand };
        assert!(said(Fleet { demand: short, ..fleet() }).starts_with("demand.by_hour is 23 weights that add up to 23"));
    }
}
