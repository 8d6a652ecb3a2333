//! Tokens a second into keys (claim: at least 80 million on one core, in 16-token blocks), and engine keys a second.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

#[path = "bodies/hashing.rs"]
mod bodies;

fn main() {
    divan::main();
}

#[divan::bench(args = [4_096, 131_072])]
fn tokens(bencher: Bencher<'_, '_>, tokens: usize) {
    let prompt = bodies::prompt(tokens);
    bencher.counter(ItemsCount::new(tokens)).bench_local(|| bodies::last_key_of_tokens(black_box(&prompt)));
}

#[divan::bench(args = [256, 8_192])]
fn engine_keys(bencher: Bencher<'_, '_>, keys: usize) {
    let packed = bodies::engine_keys(keys);
    bencher.counter(ItemsCount::new(keys)).bench_local(|| bodies::fold_engine_keys(black_box(&packed)));
}
