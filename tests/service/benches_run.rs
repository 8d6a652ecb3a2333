//! The gate's benches at a small size, so that they never rot. They assert what they move, not how fast.

#[path = "../../benches/bodies/gate.rs"]
mod gate;

#[test]
fn the_gates_benches_find_and_bring_what_they_should() {
    let mut gate = gate::Gate::with_prompt(40, 10_000);
    gate.lookup();
    gate.miss();
    assert_eq!(gate.fetch(), 400_000);
    assert_eq!(gate.fetch(), 400_000);
}
