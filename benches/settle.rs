//! Settles a second, each on the drive before it is acknowledged, through gRPC on a Unix socket (claim: at least 5 thousand
//! with 64 in flight), and the same of requests that bill what they were delivered; beside them the syncs of the drive that
//! holds the ledger.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that can't run should stop; its figures are its output"
)]

#[path = "bodies/settle.rs"]
mod bodies;

use std::time::Instant;

use bodies::Meter;

fn main() {
    let mut meter = Meter::start();
    meter.settle(64, 2_000);
    for round in 1..4 {
        let syncs = 500.0 / meter.sync(500).as_secs_f64();
        println!("round {round}: the drive syncs {syncs:.0} times a second");
        for (in_flight, count) in [(1, 500), (64, 20_000), (256, 20_000)] {
            let a_second = count as f64 / meter.settle(in_flight, count).as_secs_f64();
            println!("  {in_flight:3} in flight: {a_second:6.0} settles a second, {:.1} a sync", a_second / syncs);
        }
        for in_flight in [64, 256] {
            meter.deliver(20_000);
            let a_second = 20_000.0 / meter.settle(in_flight, 20_000).as_secs_f64();
            println!(
                "  {in_flight:3} in flight: {a_second:6.0} settles of hits a second, {:.1} a sync",
                a_second / syncs
            );
        }
    }
    let began = Instant::now();
    let exported = meter.export().len();
    println!("{:.0} records a second are exported", exported as f64 / began.elapsed().as_secs_f64());
    let (summed, audited) = meter.stop();
    println!("{summed} records, all of them there and summed: {}", summed == audited);
}
