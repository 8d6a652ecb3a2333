//! A plan in sentences, and as text for a terminal.

use super::super::chart::Unit;
use super::super::table::{percent, span, thousands};
use super::Both;
use super::advice::{Advice, Reason};
use super::report::Report;
use super::sheets::{self, Sheet, sized};
use super::worth::Size;

/// What to buy, what it hits, and what that saves.
pub(super) fn advice(report: &Report) -> String {
    let Advice { reason, ram_blocks, nvme_blocks, hit_rate, saved_per_day, cost_per_day } = report.advice;
    let hits = format!(
        "it hits {} of all prompt tokens, where {} is the most",
        percent(hit_rate),
        percent(report.infinite_hit_rate)
    );
    let bought = match (ram_blocks, nvme_blocks) {
        (0, nvme) => format!("{} of NVMe", sized(report, nvme)),
        (ram, 0) => format!("{} of RAM", sized(report, ram)),
        (ram, nvme) => format!("{} of RAM and {} of NVMe", sized(report, ram), sized(report, nvme)),
    };
    let saves =
        saved_per_day.map_or_else(String::new, |saved| format!(", saves {} a day of prefill", money(report, saved)));
    let costs = cost_per_day.map(|cost| format!(" and costs {} a day", money(report, cost)));
    let costs = costs.filter(|_| saved_per_day.is_some() || reason == Reason::Target).unwrap_or_default();
    match reason {
        Reason::Target => format!("Buy {bought}, the cheapest for the target: {hits}{saves}{costs}."),
        Reason::Net => format!("Buy {bought}, the size that pays most: {hits}{saves}{costs}."),
        Reason::Knee => format!("Buy {bought}, the knee: {hits}{saves}."),
        Reason::NinetyPercent => format!("Buy {bought}, for nine tenths of what can be hit: {hits}{saves}."),
        Reason::NothingPays => nothing_pays(report),
    }
}

fn nothing_pays(report: &Report) -> String {
    let prices = &report.prices;
    let why = prices.prefill_per_million.zip(prices.forgone_per_million()).map(|(saved, forgone)| {
        let [saved, forgone] = [saved, forgone].map(|price| format!("{price:.3}"));
        format!(": a million tokens that are hits save {saved} of prefill, and customers pay {forgone} less for them")
    });
    format!("No size pays for itself at these prices{}.", why.unwrap_or_default())
}

/// An amount, with its currency where a book says it.
pub(super) fn money(report: &Report, amount: f64) -> String {
    let currency = report.prices.currency().map_or_else(String::new, |currency| format!(" {currency}"));
    Unit::Money.show(amount) + &currency
}

/// What the trace is.
pub(super) fn trace(report: &Report) -> String {
    let Report { requests, prompt_tokens, distinct_blocks, block_tokens, .. } = report;
    format!(
        "{} requests in {}, {} prompt tokens, {} distinct blocks of {block_tokens} tokens; at most {} can be hit.",
        thousands(*requests),
        span(report.span_ms),
        thousands(*prompt_tokens),
        thousands(*distinct_blocks),
        percent(report.infinite_hit_rate),
    )
}

/// How near the hit rates are, where they were estimated.
pub(super) fn sample(report: &Report) -> Option<String> {
    let sample = report.sample?;
    Some(format!(
        "lru is exact. The others are estimated from {} requests with {} of the blocks; lru, estimated in the same way, is off by {} on \
         average and {} at most; what is less like it may be off by more.",
        thousands(sample.requests),
        percent(sample.rate),
        points(sample.lru_error_mean),
        points(sample.lru_error_max),
    ))
}

/// A difference of two hit rates.
fn points(difference: f64) -> String {
    format!("{:.2} points", difference * 100.0)
}

/// By which prices money was reckoned.
pub(super) fn prices(report: &Report) -> Option<String> {
    let prices = &report.prices;
    let from = match prices.prefill_from {
        Some("fleet") => ", by the fleet's GPUs",
        Some("gpu-hour") => ", by --gpu-hour and --prefill-rate",
        _ => "",
    };
    let prefill =
        prices.prefill_per_million.map(|cost| format!("Computing a million prompt tokens costs {cost:.4}{from}."));
    let book = prices.book.as_ref().map(|book| {
        format!(
            "Customers of {} pay {:.4} {} for a million of hits and {:.4} computed (the mean over the week from {}).",
            book.model, book.hit_per_million, book.currency, book.miss_per_million, book.from
        )
    });
    let storage = (prefill.is_some() || book.is_some() || report.target.is_some())
        .then(|| format!("Storage is {}.", prices.storage_words()));
    let all: Vec<String> = [prefill, book, storage].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// What the target takes, or that nothing reaches it.
pub(super) fn target(report: &Report) -> Option<String> {
    let target = report.target.as_ref()?;
    let Some(mix) = target.mixes.first() else {
        return Some(format!(
            "No size reaches a hit rate of {}: the most that can be reached is {}.",
            percent(target.hit_rate),
            percent(target.most)
        ));
    };
    let tiers = match mix.nvme_blocks {
        0 => "RAM alone, which is cold after a restart".to_owned(),
        nvme => format!("{} of RAM over {} of NVMe", sized(report, mix.ram_blocks), sized(report, nvme)),
    };
    Some(format!(
        "The cheapest is {tiers}. RAM holds the largest prompt at least, {}.",
        sized(report, report.largest_request_blocks)
    ))
}

/// Where the curve bends.
pub(super) fn knee(report: &Report) -> String {
    let knee = report.knee_blocks.map(|blocks| {
        format!("The knee is at {}: more than that brings least for what it takes. ", sized(report, blocks))
    });
    let ninety = format!("Nine tenths of what can be hit takes {}.", sized(report, report.blocks_for_90_percent));
    knee.unwrap_or_default() + &ninety + &next_tb(report).unwrap_or_default()
}

/// The first size beyond the knee.
pub(super) fn beyond_knee(report: &Report) -> Option<&Size> {
    let knee = report.knee_blocks?;
    report.sizes.iter().find(|size| size.blocks > knee)
}

/// What a TB more than the knee is worth.
fn next_tb(report: &Report) -> Option<String> {
    let next = beyond_knee(report)?;
    let [saved, net] = [next.saved_per_tb_day?, next.net_per_tb_day?].map(|amount| money(report, amount));
    Some(format!(" A TB more than the knee saves {saved} a day of prefill; its net is {net} a day."))
}

impl Both {
    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let report = &self.plan;
        let table = |sheet: Sheet| format!("{}\n{}", sheet.title, sheet.text());
        let parts = [
            Some(trace(report)),
            Some(sheets::rates(report).text()),
            Some(knee(report)),
            sample(report),
            sheets::money(report).map(table),
            sheets::mixes(report).map(table),
            target(report),
            prices(report),
            Some(advice(report)),
            self.fleet.as_ref().map(|sheet| format!("\n{}", sheet.text())),
        ];
        parts.into_iter().flatten().collect::<Vec<String>>().join("\n")
    }
}
