//! Which plots a plan has.

use super::super::chart::{Axis, COLORS, Curve, Mark, Plot, Scale, Style, Unit, Width};
use super::super::table::percent;
use super::advice::Reason;
use super::report::Report;
use super::sheets::{named, sized};
use super::worth::Size;
use crate::replay::{Day, Fleet, OPTIMUM};

/// Hit rates between which a fleet is shown.
const FLEET_STEPS: u32 = 20;

/// All that there is something to show in.
pub(super) fn all(report: &Report, fleet: Option<&Fleet>) -> Vec<Plot> {
    let of_trace = [Some(rates(report)), shares(report), money(report), ram(report)];
    let of_fleet = fleet.into_iter().flat_map(|fleet| [nodes(fleet, report), margin(fleet, report), demand(fleet)]);
    of_trace.into_iter().flatten().chain(of_fleet).collect()
}

fn size_unit(report: &Report) -> Unit {
    if report.bytes_per_token.is_some() { Unit::Bytes } else { Unit::Blocks }
}

/// A number of blocks, as the axis of sizes has it.
fn place(report: &Report, blocks: u64) -> f64 {
    report.bytes(blocks).unwrap_or(blocks) as f64
}

fn size_axis(report: &Report, label: &str, blocks: impl Iterator<Item = u64>) -> Axis {
    Axis::over(label, (size_unit(report), Scale::Log), blocks.map(|blocks| place(report, blocks)))
}

/// The optimum has a colour of its own, and so has each policy by its place.
fn color(report: &Report, policy: &str) -> usize {
    if policy == OPTIMUM {
        return COLORS - 1;
    }
    report.policies.iter().position(|known| *known == policy).unwrap_or(0) % (COLORS - 1)
}

/// One curve a policy: its hit rates, each made something of.
fn by_policy(report: &Report, of: impl Fn(usize, f64) -> f64) -> Vec<Curve> {
    let curve = |policy: &&'static str| {
        let points = report.sizes.iter().zip(report.rates_of(policy)).enumerate();
        let points = points.map(|(at, (size, rate))| (place(report, size.blocks), of(at, rate))).collect();
        let style = if *policy == OPTIMUM { Style::Dashed } else { Style::Line };
        Curve { name: named(policy).to_owned(), color: color(report, policy), style, points }
    };
    report.policies.iter().map(curve).collect()
}

fn heights(curves: &[Curve]) -> impl Iterator<Item = f64> + '_ {
    curves.iter().flat_map(|curve| curve.points.iter().map(|(_, y)| *y))
}

fn rates(report: &Report) -> Plot {
    let curves = by_policy(report, |_, rate| rate);
    let ceiling = report.infinite_hit_rate;
    let mut marks = vec![Mark::Horizontal(ceiling, format!("ceiling: {}", percent(ceiling)))];
    let knee =
        report.knee_blocks.map(|knee| Mark::Vertical(place(report, knee), format!("knee: {}", sized(report, knee))));
    marks.extend(knee);
    Plot {
        id: "hit-rate",
        width: Width::Full,
        title: "Hit rate by size".to_owned(),
        note: "Share of all prompt tokens that need not be computed. No size exceeds the ceiling. The optimum knows the future.".to_owned(),
        x: size_axis(report, "size of the cache", report.sizes.iter().map(|size| size.blocks)),
        // Room above for the ceiling's words.
        y: Axis::over("hit rate", (Unit::Percent, Scale::Linear), heights(&curves).chain([ceiling * 1.06])),
        curves,
        marks,
    }
}

/// Nothing where even the optimum hits nothing.
fn shares(report: &Report) -> Option<Plot> {
    let share = |at: usize, rate: f64| {
        let best: Option<&Size> = report.sizes.get(at);
        best.filter(|size| size.belady > 0.0).map_or(0.0, |size| rate / size.belady)
    };
    let curves: Vec<Curve> =
        by_policy(report, share).into_iter().filter(|curve| curve.style != Style::Dashed).collect();
    let least = heights(&curves).filter(|share| *share > 0.0).fold(1.0, f64::min);
    // A sample may have a policy above it.
    let most = heights(&curves).fold(1.0, f64::max);
    (report.infinite_hit_rate > 0.0).then(|| Plot {
        id: "optimum",
        width: Width::Half,
        title: "How near each policy comes to the optimum".to_owned(),
        note: "Hits of each policy as a share of the offline optimum's at the same size: what is missing to 100 % is left to be gained \
               by a better policy."
            .to_owned(),
        x: size_axis(report, "size of the cache", report.sizes.iter().map(|size| size.blocks)),
        y: Axis::over("of the optimum's hits", (Unit::Percent, Scale::Linear), heights(&curves))
            .between((least * 10.0 - 0.5).floor().max(0.0) / 10.0, (most * 10.0 - 1e-9).ceil() / 10.0),
        curves,
        marks: Vec::new(),
    })
}

/// Nothing without a price of prefill, or where a block's size is not known.
fn money(report: &Report) -> Option<Plot> {
    report.sizes.first()?.net_per_day?;
    let curve = |name: &str, color, style, of: fn(&Size) -> Option<f64>| {
        let points = report.sizes.iter().map(|size| Some((place(report, size.blocks), of(size)?)));
        let points = points.collect::<Option<Vec<(f64, f64)>>>()?;
        Some(Curve { name: name.to_owned(), color, style, points })
    };
    let curves = [
        curve("prefill saved", 0, Style::Line, |size| size.saved_per_day),
        curve("net", 2, Style::Line, |size| size.net_per_day),
        curve("customers pay less", 3, Style::Line, |size| size.forgone_per_day),
        curve("NVMe costs", 1, Style::Dashed, |size| size.nvme_per_day),
    ];
    let curves: Vec<Curve> = curves.into_iter().flatten().collect();
    let currency = report.prices.currency().map_or_else(String::new, |currency| format!("{currency} "));
    let best = Some(report.advice).filter(|advice| advice.reason == Reason::Net).map(|advice| {
        Mark::Vertical(place(report, advice.nvme_blocks), format!("pays most: {}", sized(report, advice.nvme_blocks)))
    });
    Some(Plot {
        id: "money",
        width: Width::Half,
        title: "What each size is worth a day".to_owned(),
        note: "At the trace's pace. Net is the prefill saved, less what the drives cost and, by a price book, what customers pay less for hits."
            .to_owned(),
        x: size_axis(report, "size of NVMe", report.sizes.iter().map(|size| size.blocks)),
        y: Axis::over(format!("{currency}a day"), (Unit::Money, Scale::Linear), heights(&curves)),
        curves,
        marks: best.into_iter().collect(),
    })
}

/// Nothing where nothing is hit.
fn ram(report: &Report) -> Option<Plot> {
    let nvme = report.ram.last().filter(|_| report.ram.len() > 1)?.blocks;
    let points: Vec<(f64, f64)> = report.ram.iter().map(|point| (place(report, point.blocks), point.share)).collect();
    let bought = Some(report.advice.ram_blocks).filter(|blocks| *blocks > 0 && *blocks < nvme);
    let mark = |blocks| Mark::Vertical(place(report, blocks), format!("cheapest: {}", sized(report, blocks)));
    Some(Plot {
        id: "ram",
        width: Width::Half,
        title: "How much RAM hands over".to_owned(),
        note: format!(
            "Share of the hits that come from RAM and not from the drive, over {} of NVMe, with lru.",
            sized(report, nvme)
        ),
        x: size_axis(report, "size of RAM", report.ram.iter().map(|point| point.blocks)),
        y: Axis::over("of hits from RAM", (Unit::Percent, Scale::Linear), [0.0, 1.0].into_iter()),
        curves: vec![Curve { name: "from RAM".to_owned(), color: 0, style: Style::Line, points }],
        marks: bought.map(mark).into_iter().collect(),
    })
}

/// A fleet's days at all hit rates.
fn by_hit_rate(of: impl Fn(f64) -> Option<f64>) -> Vec<(f64, f64)> {
    let rates = (0..=FLEET_STEPS).map(|step| f64::from(step) / f64::from(FLEET_STEPS));
    rates.filter_map(|rate| Some((rate, of(rate)?))).collect()
}

fn fleet_plot(id: &'static str, fleet: &Fleet, report: &Report, y: (&str, Unit), curves: Vec<Curve>) -> Plot {
    let now = fleet.demand.hit_rate;
    let advised = report.advice.hit_rate;
    let mut marks = vec![Mark::Vertical(now, format!("its day: {}", percent(now)))];
    if (advised - now).abs() > 0.02 && advised > 0.0 {
        marks = vec![Mark::Vertical(advised, format!("this plan: {}", percent(advised)))];
    }
    Plot {
        id,
        width: Width::Half,
        title: String::new(),
        note: String::new(),
        x: Axis::over("hit rate", (Unit::Percent, Scale::Linear), [0.0, 1.0].into_iter()),
        y: Axis::over(y.0, (y.1, Scale::Linear), heights(&curves)),
        curves,
        marks,
    }
}

fn nodes(fleet: &Fleet, report: &Report) -> Plot {
    let curve = |name: &str, color, style, of: fn(&Day) -> f64| {
        let points = by_hit_rate(|rate| Some(of(&fleet.day_at(rate))));
        Curve { name: name.to_owned(), color, style, points }
    };
    let curves = vec![
        curve("at peak", 5, Style::Dashed, |day| day.nodes_peak),
        curve("on average", 0, Style::Line, |day| day.nodes_average),
        curve("for prefill", 2, Style::Line, |day| day.prefill_nodes_average),
    ];
    Plot {
        title: "Nodes of the fleet".to_owned(),
        note: "How many nodes the fleet's day takes by hit rate.".to_owned(),
        ..fleet_plot("fleet-nodes", fleet, report, ("nodes", Unit::Number), curves)
    }
}

fn margin(fleet: &Fleet, report: &Report) -> Plot {
    let points = by_hit_rate(|rate| fleet.day_at(rate).margin_percent.map(|margin| margin / 100.0));
    let curves = vec![Curve { name: "margin".to_owned(), color: 2, style: Style::Line, points }];
    Plot {
        title: "Margin of the fleet".to_owned(),
        note:
            "Revenue less the cost of the nodes, in percent of the cost. Hits take fewer nodes and are sold for less."
                .to_owned(),
        ..fleet_plot("fleet-margin", fleet, report, ("margin", Unit::Percent), curves)
    }
}

fn demand(fleet: &Fleet) -> Plot {
    let by_hour = fleet.input_by_hour().map(|tokens| tokens / 1e6);
    let points: Vec<(f64, f64)> = (0_u32..).map(f64::from).zip(by_hour).collect();
    let axis = Axis::over("hour of the day", (Unit::Hour, Scale::Linear), std::iter::empty());
    let y = Axis::over("million tokens", (Unit::Number, Scale::Linear), points.iter().map(|(_, y)| *y));
    Plot {
        id: "fleet-demand",
        width: Width::Half,
        title: "Demand by hour".to_owned(),
        note: "Prompt tokens that customers ask for in each hour of the fleet's day.".to_owned(),
        x: axis.between(0.0, 24.0),
        y,
        curves: vec![Curve { name: "prompt tokens".to_owned(), color: 6, style: Style::Bars, points }],
        marks: Vec::new(),
    }
}
