//! The tables of a plan, for a terminal and for a page.

use super::super::chart::Unit;
use super::super::fleet;
use super::super::size::human;
use super::super::table::{numbers, percent, thousands};
use super::mix::Found;
use super::report::Report;
use super::worth::Size;
use crate::replay::OPTIMUM;
use crate::vocab::ByteCount;

/// A table with its name.
#[derive(Debug)]
pub(super) struct Sheet {
    pub(super) title: String,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Sheet {
    /// The table of one, for a terminal.
    pub(super) fn text(&self) -> String {
        numbers(&self.header, &self.rows).to_string()
    }
}

/// A policy's name for people.
pub(super) fn named(policy: &str) -> &str {
    if policy == OPTIMUM { "optimum" } else { policy }
}

/// So many blocks as a size, where it is known how large they are.
pub(super) fn sized(report: &Report, blocks: u64) -> String {
    let bytes = report.bytes(blocks).map(|bytes| human(ByteCount(bytes)));
    bytes.unwrap_or_else(|| Unit::Blocks.show(blocks as f64))
}

fn or_dash(value: Option<f64>, unit: Unit) -> String {
    value.map_or_else(|| "-".to_owned(), |value| unit.show(value))
}

/// Hit rates by size and policy.
pub(super) fn rates(report: &Report) -> Sheet {
    let names = report.policies.iter().map(|policy| named(policy).to_owned());
    let first = ["blocks".to_owned(), "size".to_owned()].into_iter();
    let columns: Vec<Vec<f64>> = report.policies.iter().map(|policy| report.rates_of(policy).collect()).collect();
    let row = |(at, size): (usize, &Size)| {
        let bytes = size.bytes.map_or_else(|| "-".to_owned(), |bytes| human(ByteCount(bytes)));
        let of_ceiling = if report.infinite_hit_rate > 0.0 { size.lru / report.infinite_hit_rate } else { 0.0 };
        let rates = columns.iter().map(|column| percent(column[at]));
        [thousands(size.blocks), bytes].into_iter().chain(rates).chain([percent(of_ceiling)]).collect()
    };
    Sheet {
        title: "Hit rate by size".to_owned(),
        header: first.chain(names).chain(["lru, of what can be hit".to_owned()]).collect(),
        rows: report.sizes.iter().enumerate().map(row).collect(),
    }
}

/// What each size is worth; nothing without a price of prefill or of a book.
pub(super) fn money(report: &Report) -> Option<Sheet> {
    let prices = &report.prices;
    if prices.prefill_per_million.is_none() && prices.book.is_none() {
        return None;
    }
    let has_book = prices.book.is_some();
    let with_book = |cells: [String; 7]| {
        let cells = cells.into_iter().enumerate();
        cells.filter(|(at, _)| *at != 3 || has_book).map(|(_, cell)| cell).collect::<Vec<String>>()
    };
    let header =
        ["size", "tokens hit a day", "prefill saved", "customers pay less", "NVMe costs", "net", "net of a TB more"];
    let row = |size: &Size| {
        let money = |amount| or_dash(amount, Unit::Money);
        with_book([
            sized(report, size.blocks),
            or_dash(size.hit_tokens_per_day, Unit::Number),
            money(size.saved_per_day),
            money(size.forgone_per_day),
            money(size.nvme_per_day),
            money(size.net_per_day),
            money(size.net_per_tb_day.or(size.saved_per_tb_day)),
        ])
    };
    let currency = prices.currency().map_or_else(String::new, |currency| format!(", {currency}"));
    Some(Sheet {
        title: format!("What each size is worth a day{currency}, with {}", named(report.sizes_policy)),
        header: with_book(header.map(str::to_owned)),
        rows: report.sizes.iter().map(row).collect(),
    })
}

/// Ways to reach the target.
pub(super) fn mixes(report: &Report) -> Option<Sheet> {
    let target = report.target.as_ref().filter(|target| !target.mixes.is_empty())?;
    let row = |mix: &Found| {
        let nvme = if mix.nvme_blocks == 0 { "none".to_owned() } else { human(ByteCount(mix.nvme_bytes)) };
        vec![
            mix.policy.to_owned(),
            human(ByteCount(mix.ram_bytes)),
            nvme,
            percent(mix.hit_rate),
            percent(mix.ram_share),
            Unit::Money.show(mix.cost_month),
        ]
    };
    let header = ["policy", "RAM", "NVMe", "hit rate", "of hits from RAM", "cost a month"];
    Some(Sheet {
        title: format!("What hits {} costs, the cheapest first", percent(target.hit_rate)),
        header: header.map(str::to_owned).to_vec(),
        rows: target.mixes.iter().map(row).collect(),
    })
}

/// Hits from RAM by its size.
pub(super) fn ram(report: &Report) -> Option<Sheet> {
    let whole = report.ram.last()?.blocks;
    Some(Sheet {
        title: format!("Hits from RAM, over {} of NVMe, with lru", sized(report, whole)),
        header: ["RAM", "of hits from RAM"].map(str::to_owned).to_vec(),
        rows: report.ram.iter().map(|point| vec![sized(report, point.blocks), percent(point.share)]).collect(),
    })
}

/// The days of a fleet.
pub(super) fn fleet(sheet: &fleet::Sheet) -> Sheet {
    Sheet {
        title: "The fleet's day at each hit rate".to_owned(),
        header: fleet::HEADER.map(str::to_owned).to_vec(),
        rows: sheet.rows().map(Vec::from).collect(),
    }
}
