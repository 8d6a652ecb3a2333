//! The report of a replay for people.

use super::size;
use super::table::{bar, micros, numbers, pair, percent, signed, thousands};
use crate::replay::live_report::{Latency, LiveFigures, OpenLoop, ServerFigures};
use crate::replay::predict::Predicted;
use crate::replay::report::ReplayReport;
use crate::vocab::ByteCount;

/// The end of a replay: where the prompt tokens came from, the figures of the run, and what a simulation says.
pub(super) fn text(report: &ReplayReport) -> String {
    let tiers = [
        ("ram", report.by_tier.ram),
        ("nvme", report.by_tier.nvme),
        ("miss", report.miss_tokens),
        ("all", report.prompt_tokens),
    ];
    let rows = tiers.map(|(name, tokens)| {
        let share = if report.prompt_tokens == 0 { 0.0 } else { tokens as f64 / report.prompt_tokens as f64 };
        let bar = if name == "all" { String::new() } else { bar(share) };
        [name.to_owned(), thousands(tokens), percent(share), bar]
    });
    let mut tiers = numbers(["tier", "tokens", "share", ""], rows);
    if let Some(bars) = tiers.column_mut(3) {
        bars.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    let mut rows = vec![
        pair("hit rate", percent(report.hit_rate)),
        pair("requests", thousands(report.requests)),
        pair("blocks asked", thousands(report.blocks_asked)),
        pair("blocks hit", thousands(report.blocks_hit)),
        pair("policy", report.policy.clone()),
        pair("capacity, blocks", thousands(report.capacity_blocks)),
    ];
    rows.extend(report.ram_blocks.map(|blocks| pair("  ram, blocks", thousands(blocks))));
    rows.extend(report.nvme_blocks.map(|blocks| pair("  nvme, blocks", thousands(blocks))));
    rows.extend(report.blocks_written.map(|blocks| pair("blocks written to nvme", thousands(blocks))));
    if let Some(crash) = &report.crash {
        let after = format!("the {} requests after the crash", thousands(crash.next_requests));
        rows.push(pair("blocks recovered by the start after it", thousands(crash.blocks_recovered)));
        rows.push(pair(&after, format!("hit rate {}", percent(crash.next_hit_rate))));
    }
    rows.extend(report.live.iter().flat_map(live));
    let mut text = format!("{tiers}\n{}", numbers(["replay", ""], rows));
    text.extend(report.live.iter().map(|live| format!("\n{}", latencies(live))));
    text.extend(report.predicted.iter().map(|predicted| format!("\n{}", beside(report, predicted))));
    text.extend(report.not_predicted.iter().map(|why| format!("\nnot compared with a simulation: {why}")));
    text
}

fn live(live: &LiveFigures) -> Vec<[String; 2]> {
    let bytes = |bytes| size::human(ByteCount(bytes));
    let mut rows = vec![
        pair("mismatched blocks", thousands(live.mismatched_blocks)),
        pair("loaded", bytes(live.bytes_loaded)),
        pair("stored", bytes(live.bytes_stored)),
        pair("blocks dropped", thousands(live.blocks_dropped)),
        pair("time", micros((live.seconds * 1e6) as u64)),
        pair("requests a second", format!("{:.1}", live.requests_per_second)),
        pair("loaded a second", per_second(live.bytes_loaded, live.seconds)),
    ];
    rows.extend(live.open_loop.iter().flat_map(open_loop));
    rows.extend(live.server.iter().flat_map(|server| costs(server, live.seconds)));
    rows
}

/// How well the trace's times were kept.
fn open_loop(open: &OpenLoop) -> Vec<[String; 2]> {
    let OpenLoop { speed, in_flight_max, in_flight_peak, late_starts, held_starts, .. } = open;
    vec![
        pair("the trace's times", format!("divided by {speed}")),
        pair("  intended, requests a second", format!("{:.1}", open.intended_per_second)),
        pair("  started over 10 ms late", thousands(*late_starts)),
        pair(&format!("  waited for one of {in_flight_max} under way"), thousands(*held_starts)),
        pair("  under way, at most", thousands(*in_flight_peak)),
    ]
}

/// What the run cost the server.
fn costs(server: &ServerFigures, seconds: f64) -> Vec<[String; 2]> {
    let bytes = |bytes: u64| size::human(ByteCount(bytes));
    let of_both = [server.process_cpu_seconds, server.server_cpu_seconds];
    let memory = [server.process_resident_bytes_max, server.server_resident_bytes_max];
    let whose = ["server and replay", "server"];
    let mut rows = Vec::new();
    for ((cpu, memory), whose) in of_both.into_iter().zip(memory).zip(whose) {
        let cores = |cpu: f64| if seconds > 0.0 { cpu / seconds } else { 0.0 };
        rows.extend(
            cpu.map(|cpu| pair(&format!("processors, {whose}"), format!("{cpu:.1} s, {:.2} cores", cores(cpu)))),
        );
        rows.extend(memory.map(|memory| pair(&format!("memory at most, {whose}"), bytes(memory))));
    }
    rows.push(pair("read from drives", bytes(server.drive_read_bytes)));
    rows.push(pair("written to drives", bytes(server.drive_written_bytes)));
    if server.blocks_before > 0 {
        rows.push(pair("blocks there before", thousands(server.blocks_before)));
    }
    rows
}

/// Each kind of call, and in an open loop the same from when its request was due.
fn latencies(live: &LiveFigures) -> String {
    let mut rows =
        vec![("lookup", live.lookup_us), ("load", live.load_us), ("put", live.put_us), ("request", live.request_us)];
    if let Some(open) = &live.open_loop {
        rows.extend([
            ("start after it was due", open.lag_us),
            ("lookup, from when it was due", open.lookup_from_due_us),
            ("load, from when it was due", open.load_from_due_us),
            ("request, from when it was due", open.request_from_due_us),
        ]);
    }
    let rows = rows.into_iter().map(|(name, Latency { p50, p90, p99, p999, max, count })| {
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(micros);
        [name.to_owned(), p50, p90, p99, p999, max, thousands(count)]
    });
    numbers(["time of a", "p50", "p90", "p99", "p99.9", "max", "count"], rows).to_string()
}

/// Hits by tier, live and simulated.
fn beside(report: &ReplayReport, predicted: &Predicted) -> String {
    let points = predicted.by_tier_difference_points;
    let rows = [
        ("ram", report.by_tier.ram, predicted.by_tier.ram, points.ram),
        ("nvme", report.by_tier.nvme, predicted.by_tier.nvme, points.nvme),
        ("both", report.hit_tokens, predicted.hit_tokens, predicted.difference_points),
    ];
    let rows = rows.map(|(tier, live, simulated, points)| {
        let difference = i64::try_from(i128::from(live) - i128::from(simulated)).unwrap_or_default();
        let points = if difference == 0 { "equal".to_owned() } else { format!("{points:+.4} points") };
        [tier.to_owned(), thousands(live), thousands(simulated), signed(difference), points]
    });
    let warm = report.live.iter().filter_map(|live| live.server.as_ref()).any(|server| server.blocks_before > 0);
    let note = if warm { "\nthe simulation starts empty, and this server did not" } else { "" };
    format!("{}{note}", numbers(["tokens hit in", "live", "simulated", "difference", ""], rows))
}

fn per_second(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 {
        format!("{}/s", size::human(ByteCount((bytes as f64 / seconds) as u64)))
    } else {
        "-".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Tally;
    use crate::replay::predict::TierPoints;
    use crate::replay::report::TierTokens;

    fn report() -> ReplayReport {
        ReplayReport {
            requests: 12_031,
            prompt_tokens: 1_000_000,
            hit_tokens: 373_600,
            miss_tokens: 626_400,
            hit_rate: 0.3736,
            blocks_asked: 2_000,
            blocks_hit: 730,
            by_tier: TierTokens { ram: 250_000, nvme: 123_600 },
            ..Tally::default().report("lru", 10_000)
        }
    }

    #[test]
    fn a_simulated_replay_looks_like_this() {
        let expected = "\
╭──────┬───────────┬─────────┬─────────────────╮
│ tier ┆    tokens ┆   share ┆                 │
╞══════╪═══════════╪═════════╪═════════════════╡
│ ram  ┆   250,000 ┆  25.0 % ┆ ██████          │
│ nvme ┆   123,600 ┆  12.4 % ┆ ███             │
│ miss ┆   626,400 ┆  62.6 % ┆ ███████████████ │
│ all  ┆ 1,000,000 ┆ 100.0 % ┆                 │
╰──────┴───────────┴─────────┴─────────────────╯
╭──────────────────┬────────╮
│ replay           ┆        │
╞══════════════════╪════════╡
│ hit rate         ┆ 37.4 % │
│ requests         ┆ 12,031 │
│ blocks asked     ┆  2,000 │
│ blocks hit       ┆    730 │
│ policy           ┆    lru │
│ capacity, blocks ┆ 10,000 │
╰──────────────────┴────────╯";
        assert_eq!(text(&report()), expected, "{}", text(&report()));
    }

    #[test]
    fn a_live_replay_shows_what_was_wrong_and_how_fast_it_was() {
        let live = LiveFigures {
            mismatched_blocks: 3,
            bytes_loaded: 5 << 30,
            seconds: 2.5,
            lookup_us: Latency { p50: 150, p99: 1_200, count: 77, ..Latency::default() },
            server: Some(ServerFigures {
                server_cpu_seconds: Some(5.0),
                server_resident_bytes_max: Some(3 << 30),
                ..ServerFigures::default()
            }),
            ..LiveFigures::default()
        };
        let text = text(&ReplayReport { live: Some(live), nvme_blocks: Some(10_000), ..report() });
        for shown in [
            "│ mismatched blocks ",
            " 5 GiB │",
            " 2 GiB/s │",
            "│ lookup    ┆ 150 µs ┆ 0 µs ┆ 1.2 ms ┆  0 µs ┆ 0 µs ┆    77 │",
            "2.50 s",
            "│   nvme, blocks ",
            "│ processors, server     ┆ 5.0 s, 2.00 cores │",
            "│ memory at most, server ┆             3 GiB │",
        ] {
            assert!(text.contains(shown), "{shown} is not in\n{text}");
        }
        assert!(!text.contains("due") && !text.contains("simulated"), "{text}");
    }

    #[test]
    fn a_live_replay_stands_beside_its_simulation_and_says_where_it_did_not_start_alike() {
        let predicted = Predicted {
            hit_tokens: 374_600,
            by_tier: TierTokens { ram: 250_000, nvme: 124_600 },
            difference_points: -0.1,
            by_tier_difference_points: TierPoints { ram: 0.0, nvme: -0.1 },
            ..Predicted::default()
        };
        let said = beside(&report(), &predicted);
        let expected = "\
╭───────────────┬─────────┬───────────┬────────────┬────────────────╮
│ tokens hit in ┆    live ┆ simulated ┆ difference ┆                │
╞═══════════════╪═════════╪═══════════╪════════════╪════════════════╡
│ ram           ┆ 250,000 ┆   250,000 ┆          0 ┆          equal │
│ nvme          ┆ 123,600 ┆   124,600 ┆     -1,000 ┆ -0.1000 points │
│ both          ┆ 373,600 ┆   374,600 ┆     -1,000 ┆ -0.1000 points │
╰───────────────┴─────────┴───────────┴────────────┴────────────────╯";
        assert_eq!(said, expected, "{said}");
        let server = Some(ServerFigures { blocks_before: 9, ..ServerFigures::default() });
        let live = Some(LiveFigures { server, ..LiveFigures::default() });
        let warm = ReplayReport { live, predicted: Some(predicted), ..report() };
        assert!(text(&warm).contains("the simulation starts empty, and this server did not"));
        let why = ReplayReport { not_predicted: Some("it says no policy".to_owned()), ..report() };
        assert!(text(&why).contains("not compared with a simulation: it says no policy"));
    }

    #[test]
    fn an_open_loop_shows_what_was_late_and_its_times_from_when_requests_were_due() {
        let late = Latency { p99: 2_000_000, ..Latency::default() };
        let open = OpenLoop {
            speed: 60.0,
            in_flight_max: 8,
            held_starts: 5,
            late_starts: 6,
            request_from_due_us: late,
            ..OpenLoop::default()
        };
        let live = LiveFigures { open_loop: Some(open), ..LiveFigures::default() };
        let text = text(&ReplayReport { live: Some(live), ..report() });
        for shown in ["divided by 60 ", "waited for one of 8 under way ┆ ", " 5 │", "10 ms late", " 6 │", " 2.00 s ┆"]
        {
            assert!(text.contains(shown), "{shown} is not in\n{text}");
        }
        assert!(text.contains("│ request, from when it was due ┆"), "{text}");
    }
}
