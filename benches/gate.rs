//! The gate: lookups of a 4,096-block prompt, and 1 MiB blocks fetched from RAM and stored, over one connection.

#![expect(clippy::expect_used, reason = "a bench that can't run should stop")]

use divan::Bencher;
use divan::counter::BytesCount;
use gate::Over;
use tikv_jemallocator::Jemalloc;

#[path = "bodies/gate.rs"]
mod gate;
#[path = "bodies/limits.rs"]
mod limits;

/// As in the program.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() {
    divan::main();
}

#[divan::bench(sample_count = 200)]
fn lookup_4096_resident(bencher: Bencher<'_, '_>) {
    let gate = gate::Gate::with_prompt(Over::Unix, 4096, 4096);
    bencher.bench_local(|| gate.lookup());
}

/// The limit of a lookup: the same call for one block.
#[divan::bench(sample_count = 200)]
fn lookup_1_resident(bencher: Bencher<'_, '_>) {
    let gate = gate::Gate::with_prompt(Over::Unix, 1, 4096);
    bencher.bench_local(|| gate.lookup());
}

#[divan::bench(sample_count = 200)]
fn lookup_4096_unknown(bencher: Bencher<'_, '_>) {
    let gate = gate::Gate::with_prompt(Over::Unix, 4096, 4096);
    bencher.bench_local(|| gate.miss());
}

#[divan::bench(sample_count = 10)]
fn fetch_256_mib(bencher: Bencher<'_, '_>) {
    fetch(bencher, Over::Unix);
}

#[divan::bench(sample_count = 10)]
fn fetch_256_mib_tcp(bencher: Bencher<'_, '_>) {
    fetch(bencher, Over::Tcp);
}

#[divan::bench(sample_count = 10)]
fn put_256_mib(bencher: Bencher<'_, '_>) {
    put(bencher, Over::Unix);
}

#[divan::bench(sample_count = 10)]
fn put_256_mib_tcp(bencher: Bencher<'_, '_>) {
    put(bencher, Over::Tcp);
}

fn fetch(bencher: Bencher<'_, '_>, over: Over) {
    let mut gate = gate::Gate::with_prompt(over, 256, 1 << 20);
    bencher.counter(BytesCount::new(256_u64 << 20)).bench_local(|| gate.fetch());
}

fn put(bencher: Bencher<'_, '_>, over: Over) {
    let mut gate = gate::Gate::with_prompt(over, 256, 1 << 20);
    bencher.counter(BytesCount::new(256_u64 << 20)).bench_local(|| gate.put());
}

/// A limit of both: memory.
#[divan::bench(sample_count = 10)]
fn limit_copy_256_mib(bencher: Bencher<'_, '_>) {
    let (from, mut to) = (vec![7_u8; 256 << 20], vec![0_u8; 256 << 20]);
    bencher.counter(BytesCount::new(256_u64 << 20)).bench_local(|| limits::copy(&from, &mut to));
}

/// A limit of both: a bare Unix socket.
#[divan::bench(sample_count = 10)]
fn limit_socket_256_mib(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::new(256_u64 << 20)).bench_local(|| limits::unix(256 << 20));
}

/// A limit of both: a bare TCP connection on the loopback.
#[divan::bench(sample_count = 10)]
fn limit_socket_256_mib_tcp(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::new(256_u64 << 20)).bench_local(|| limits::tcp(256 << 20));
}
