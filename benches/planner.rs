//! Block accesses a second through the planner (claim: at least 2 million on one core), and the planner's recency list
//! beside the crate `lru`.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

#[path = "bodies/planner.rs"]
mod bodies;

use bodies::Workload;
use kvtier::plan::PolicyKind;

fn main() {
    divan::main();
}

#[divan::bench(args = [1_000, 20_000], sample_count = 5, sample_size = 1)]
fn two_tiers(bencher: Bencher<'_, '_>, requests: u64) {
    let workload = Workload::generate(requests);
    let run = || black_box(workload.through_the_planner(PolicyKind::Lru)).0;
    bencher.counter(ItemsCount::new(workload.accesses())).bench_local(run);
}

#[divan::bench(args = [1_000, 20_000], sample_count = 5, sample_size = 1)]
fn two_tiers_by_the_default_policy(bencher: Bencher<'_, '_>, requests: u64) {
    let workload = Workload::generate(requests);
    let run = || black_box(workload.through_the_planner(PolicyKind::default())).0;
    bencher.counter(ItemsCount::new(workload.accesses())).bench_local(run);
}

#[divan::bench(args = [1_000, 20_000], sample_count = 5, sample_size = 1)]
fn one_tier(bencher: Bencher<'_, '_>, requests: u64) {
    let workload = Workload::generate(requests);
    bencher.counter(ItemsCount::new(workload.accesses())).bench_local(|| workload.through_one_tier());
}

#[divan::bench(args = [1_000, 20_000], sample_count = 5, sample_size = 1)]
fn lru_at_every_capacity(bencher: Bencher<'_, '_>, requests: u64) {
    let workload = Workload::generate(requests);
    bencher.counter(ItemsCount::new(workload.accesses())).bench_local(|| workload.through_the_stack());
}

#[divan::bench(args = [1_000, 20_000], sample_count = 5, sample_size = 1)]
fn list_of_numbers(bencher: Bencher<'_, '_>, requests: u64) {
    let workload = Workload::generate(requests);
    let capacity = workload.distinct() as usize / 4;
    bencher.counter(ItemsCount::new(workload.accesses())).bench_local(|| workload.through_our_list(capacity));
}

#[divan::bench(args = [1_000, 20_000], sample_count = 5, sample_size = 1)]
fn lru_crate(bencher: Bencher<'_, '_>, requests: u64) {
    let workload = Workload::generate(requests);
    let capacity = workload.distinct() as usize / 4;
    bencher.counter(ItemsCount::new(workload.accesses())).bench_local(|| workload.through_the_lru_crate(capacity));
}
