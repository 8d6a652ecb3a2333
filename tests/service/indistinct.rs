//! A tenant can't tell what is another's from what nobody has: neither by what lookups answer nor by how long they take.

use std::collections::BTreeMap;
use std::time::Instant;

use kvtier::proto;

use crate::support::{Server, chain, payload, spec};

const MIB: u64 = 1 << 20;
const BLOCKS: u32 = 32;
/// Lookups of each kind; in turn, so that what else the machine does meets all kinds alike.
const ROUNDS: usize = 1_500;

fn of(tenant: &str, chain: proto::Chain) -> proto::Chain {
    proto::Chain { tenant: tenant.into(), ..chain }
}

/// How likely it is that a time of `a` is shorter than one of `b`: one half where they are of one kind (Mann and Whitney, "On
/// a test of whether one of two random variables is stochastically larger than the other", 1947).
pub(crate) fn shorter(a: &[u128], b: &[u128]) -> f64 {
    let mut all: Vec<(u128, bool)> = a.iter().map(|time| (*time, true)).collect();
    all.extend(b.iter().map(|time| (*time, false)));
    all.sort_unstable();
    let (mut seen, mut pairs) = (0_u64, 0_u64);
    for (_, is_a) in all {
        if is_a { seen += 1 } else { pairs += seen }
    }
    pairs as f64 / (a.len() as f64 * b.len() as f64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_prefix_answers_and_takes_as_long_as_an_unknown_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 8 * MIB, 0).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    // What globex has, acme has not, though it asks for the very same tokens; and what acme has itself.
    let prompt = |seed: u32| chain(&layout, seed, BLOCKS);
    for seed in 0..16 {
        server.put(session, of("globex", prompt(seed)), |block| payload(seed, block)).await;
        server.put(session, of("acme", prompt(1_000 + seed)), |block| payload(1_000 + seed, block)).await;
    }
    let kinds = [("own", 1_000), ("foreign", 0), ("unknown", 2_000)];
    let mut times: BTreeMap<&str, Vec<u128>> = BTreeMap::new();
    for round in 0..ROUNDS {
        for turn in 0..kinds.len() {
            let (kind, first) = kinds[(turn + round) % kinds.len()];
            let asked = of("acme", prompt(first + (round % 16) as u32));
            let started = Instant::now();
            let found = server.lookup(asked).await;
            times.entry(kind).or_default().push(started.elapsed().as_nanos());
            let own = if kind == "own" { BLOCKS } else { 0 };
            assert_eq!((found.blocks_ram, found.blocks_missed), (own, BLOCKS - own), "{kind}");
            assert_eq!(found.hit_tokens + found.miss_tokens, u64::from(16 * BLOCKS));
        }
    }
    let share = shorter(&times["foreign"], &times["unknown"]);
    let median = |kind: &str| {
        let mut sorted = times[kind].clone();
        sorted.sort_unstable();
        sorted[sorted.len() / 2] / 1_000
    };
    eprintln!(
        "lookups: own {} us, foreign {} us, unknown {} us at the median; foreign is the shorter one of {:.3}",
        median("own"),
        median("foreign"),
        median("unknown"),
        share
    );
    // With so many of each, the share of two alike is within 0.01 of one half two times in three; 0.06 is far out, and a
    // lookup that takes a twentieth longer is farther.
    assert!((share - 0.5).abs() < 0.06, "foreign prefixes are told from unknown ones: {share}");
}

#[test]
fn the_comparison_sees_a_small_difference() {
    let times = |longer: u128| -> Vec<u128> { (0..1_000_u128).map(|at| 100 + (at * 7_919) % 60 + longer).collect() };
    assert!((shorter(&times(0), &times(0)) - 0.5).abs() < 0.02);
    assert!(shorter(&times(0), &times(8)) > 0.6 && shorter(&times(8), &times(0)) < 0.4);
}
