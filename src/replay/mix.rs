//! The cheapest RAM and NVMe that reach a hit rate.
//!
//! NVMe is inclusive, so its size alone bounds what is hit; RAM decides how much of it comes from RAM: with LRU as much as a tier of
//! RAM's size alone would hit.

use super::HitCurve;

/// Days of a month.
pub const MONTH_DAYS: f64 = 365.25 / 12.0;

/// Hit rate by capacity, between the points that are known.
#[derive(Clone, Copy, Debug)]
pub enum Rates<'a> {
    /// Known at every capacity.
    Exact(&'a HitCurve),
    /// Known at some capacities, from small to large: straight lines between them.
    Points(&'a [u64], &'a [f64]),
}

/// What tiers cost, and what they must do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixOptions {
    /// Share of all prompt tokens that must be hits.
    pub target: f64,
    /// Share of the hits that must come from RAM.
    pub ram_share: f64,
    /// Share of all prompt tokens that NVMe can hand over in time.
    pub nvme_share_max: f64,
    /// RAM holds at least so many: a request passes through it.
    pub ram_blocks_min: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// What a GB of RAM costs a month.
    pub ram_gb_month: f64,
    /// What a TB of NVMe costs a month.
    pub nvme_tb_month: f64,
}

/// Which tiers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiers {
    /// RAM, and nothing below it.
    Ram,
    /// Both.
    RamAndNvme,
}

/// One way to reach the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// Which tiers.
    pub tiers: Tiers,
    /// Blocks in RAM.
    pub ram_blocks: u64,
    /// Blocks on NVMe; 0 where there is none.
    pub nvme_blocks: u64,
    /// Share of all prompt tokens that are hits.
    pub hit_rate: f64,
    /// Share of the hits that come from RAM.
    pub ram_share: f64,
    /// What both cost a month.
    pub cost_month: f64,
}

impl Rates<'_> {
    /// Hit rate with so many blocks.
    #[must_use]
    pub fn at(&self, blocks: u64) -> f64 {
        match self {
            Self::Exact(curve) => curve.hit_rate(blocks),
            Self::Points(capacities, rates) => {
                let at = capacities.partition_point(|capacity| *capacity < blocks);
                let Some((high, rate)) = capacities.get(at).zip(rates.get(at)) else {
                    return rates.last().copied().unwrap_or(0.0);
                };
                let (low, from) = before(capacities, rates, at);
                from + (rate - from) * share(blocks, low, *high)
            }
        }
    }

    /// The fewest blocks that hit this much; nothing where none does.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two capacities")]
    pub fn blocks_to_hit(&self, rate: f64) -> Option<u64> {
        match self {
            Self::Exact(curve) => curve.blocks_to_hit(rate),
            Self::Points(capacities, rates) => {
                let at = rates.iter().position(|known| *known >= rate)?;
                let (low, from) = before(capacities, rates, at);
                let part = if rates[at] > from { (rate - from) / (rates[at] - from) } else { 1.0 };
                // A share that is a whole number of blocks but for the last bit is that many.
                Some(low + ((capacities[at] - low) as f64 * part.max(0.0) - 1e-6).ceil() as u64)
            }
        }
    }

    /// The most that any known capacity hits.
    #[must_use]
    pub fn most(&self) -> f64 {
        match self {
            Self::Exact(curve) => curve.ceiling(),
            Self::Points(_, rates) => rates.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// The point before one; nothing is hit with nothing.
fn before(capacities: &[u64], rates: &[f64], at: usize) -> (u64, f64) {
    at.checked_sub(1).map_or((0, 0.0), |at| (capacities[at], rates[at]))
}

fn share(blocks: u64, low: u64, high: u64) -> f64 {
    if high > low { (blocks - low) as f64 / (high - low) as f64 } else { 1.0 }
}

/// RAM alone, and RAM over NVMe, where they reach the target; the cheapest first.
#[must_use]
pub fn cheapest(rates: Rates<'_>, options: &MixOptions) -> Vec<Mix> {
    let Some(needed) = rates.blocks_to_hit(options.target) else { return Vec::new() };
    let needed = needed.max(options.ram_blocks_min);
    let all = rates.at(needed);
    let alone = mix(options, (needed, 0), all, 1.0);
    let from_ram = (options.ram_share * all).max(all - options.nvme_share_max);
    let ram_blocks = rates.blocks_to_hit(from_ram).unwrap_or(needed).max(options.ram_blocks_min);
    let mut mixes = vec![alone];
    // With as much RAM as NVMe the drive is of no use.
    if ram_blocks < needed {
        let ram_share = if all > 0.0 { rates.at(ram_blocks) / all } else { 0.0 };
        mixes.push(mix(options, (ram_blocks, needed), all, ram_share));
    }
    mixes.sort_by(|one, other| one.cost_month.total_cmp(&other.cost_month));
    mixes
}

fn mix(options: &MixOptions, (ram_blocks, nvme_blocks): (u64, u64), hit_rate: f64, ram_share: f64) -> Mix {
    let bytes = |blocks: u64| blocks as f64 * options.block_bytes as f64;
    let cost_month = bytes(ram_blocks) / 1e9 * options.ram_gb_month + bytes(nvme_blocks) / 1e12 * options.nvme_tb_month;
    let tiers = if nvme_blocks == 0 { Tiers::Ram } else { Tiers::RamAndNvme };
    Mix { tiers, ram_blocks, nvme_blocks, hit_rate, ram_share, cost_month }
}

#[cfg(test)]
mod tests {
    use super::super::{GenerateOptions, Generator, SimulateOptions, Trace, simulate};
    use super::*;

    const OPTIONS: MixOptions = MixOptions {
        target: 0.4,
        ram_share: 0.5,
        nvme_share_max: 1.0,
        ram_blocks_min: 1,
        block_bytes: 1_000_000_000,
        ram_gb_month: 0.1,
        nvme_tb_month: 10.0,
    };
    const POINTS: Rates<'static> = Rates::Points(&[100, 200, 400], &[0.2, 0.3, 0.5]);

    #[test]
    fn between_known_points_are_straight_lines() {
        assert_eq!([0, 50, 100, 150, 400, 1_000].map(|blocks| POINTS.at(blocks)), [0.0, 0.1, 0.2, 0.25, 0.5, 0.5]);
        assert_eq!([0.1, 0.2, 0.25, 0.5].map(|rate| POINTS.blocks_to_hit(rate)), [50, 100, 150, 400].map(Some));
        assert_eq!((POINTS.blocks_to_hit(0.51), POINTS.most()), (None, 0.5));
    }

    #[test]
    fn the_cheapest_mix_is_what_one_works_out_by_hand() {
        // 300 blocks hit 0.4; half of that comes from the 100 blocks that hit 0.2.
        let [both, alone] = cheapest(POINTS, &OPTIONS)[..] else { panic!("two ways") };
        assert_eq!((both.tiers, both.ram_blocks, both.nvme_blocks), (Tiers::RamAndNvme, 100, 300));
        assert_eq!((alone.tiers, alone.ram_blocks, alone.nvme_blocks), (Tiers::Ram, 300, 0));
        assert!((both.cost_month - (10.0 + 3.0)).abs() < 1e-9 && (alone.cost_month - 30.0).abs() < 1e-9);
        assert!((both.ram_share - 0.5).abs() < 1e-9 && (both.hit_rate - 0.4).abs() < 1e-9, "{both:?}");
        // A drive dearer than RAM is no use.
        let dear = MixOptions { nvme_tb_month: 500.0, ..OPTIONS };
        assert_eq!(cheapest(POINTS, &dear)[0].tiers, Tiers::Ram);
        // A drive that hands over a tenth of all tokens leaves 0.3 to RAM.
        let slow = MixOptions { nvme_share_max: 0.1, ..OPTIONS };
        assert_eq!(cheapest(POINTS, &slow)[0].ram_blocks, 200);
        let useless = MixOptions { nvme_share_max: 0.0, ..OPTIONS };
        assert_eq!(cheapest(POINTS, &useless).len(), 1, "all must come from RAM");
        assert_eq!(cheapest(POINTS, &MixOptions { target: 0.6, ..OPTIONS }), []);
    }

    #[test]
    fn of_lru_it_is_what_two_simulated_tiers_hit() {
        let made = GenerateOptions { requests: 400, ..GenerateOptions::default() };
        let trace = Trace::collect(512, Generator::new(made).unwrap());
        let curve = HitCurve::of_lru(&trace, |_| {});
        let ram_blocks_min = trace.requests().map(|request| request.blocks()).max().unwrap();
        let options = MixOptions { target: 0.8 * curve.ceiling(), ram_blocks_min, ..OPTIONS };
        let mixes = cheapest(Rates::Exact(&curve), &options);
        let both = mixes.iter().find(|mix| mix.tiers == Tiers::RamAndNvme).unwrap();
        let simulated = simulate(&trace, SimulateOptions::lru(both.ram_blocks, both.nvme_blocks), |_, _| {});
        assert_eq!(both.hit_rate, simulated.hit_rate);
        assert!(both.hit_rate >= options.target && curve.hit_rate(both.nvme_blocks - 1) < options.target);
        let from_ram = simulated.by_tier.ram as f64 / simulated.hit_tokens as f64;
        assert!((both.ram_share - from_ram).abs() < 0.01, "{both:?} {from_ram}");
        assert!(from_ram > 0.49, "{from_ram}");
    }
}
