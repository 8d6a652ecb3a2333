//! The gate's benches at a small size, so that they never rot. They assert what they move, not how fast.

#[path = "../../benches/bodies/gate.rs"]
mod gate;
#[path = "../../benches/bodies/limits.rs"]
mod limits;
#[path = "../../benches/bodies/settle.rs"]
mod settle;

use kvtier::vocab::limits::EXPORT_PAGE_RECORDS_MAX;

#[test]
fn the_gates_benches_find_and_bring_what_they_should() {
    for over in [gate::Over::Unix, gate::Over::Tcp] {
        let mut gate = gate::Gate::with_prompt(over, 40, 10_000);
        gate.lookup();
        gate.miss();
        assert_eq!(gate.fetch(), 400_000);
        assert_eq!(gate.fetch(), 400_000);
        assert_eq!(gate.put(), 400_000);
        assert_eq!(gate.put(), 400_000);
    }
}

#[test]
fn the_settle_bench_settles_each_request_once() {
    let mut meter = settle::Meter::start();
    // More than a page of an export has.
    let records = EXPORT_PAGE_RECORDS_MAX as u64 + 100;
    meter.settle(256, records - 303);
    meter.deliver(300);
    meter.settle(64, 300);
    meter.settle(1, 3);
    meter.sync(2);
    assert!(meter.export().into_iter().eq(1..=records));
    assert_eq!(meter.stop(), (records, records));
}

#[test]
fn the_limits_beside_them_move_what_they_say() {
    let (from, mut to) = (vec![7; 3_000], vec![0; 3_000]);
    limits::copy(&from, &mut to);
    assert_eq!(from, to);
    assert_eq!(limits::unix((1 << 20) + 5), (1 << 20) + 5);
    assert_eq!(limits::tcp((1 << 20) + 5), (1 << 20) + 5);
}
