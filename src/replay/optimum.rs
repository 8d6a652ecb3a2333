//! The offline optimum of one tier, for reference: it knows the future (Belady, "A study of replacement algorithms for a
//! virtual-storage computer", IBM Systems Journal 5(2), 1966), so no daemon can have it.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::{ReplayReport, Tally, Trace};
use crate::vocab::TierCounts;

/// Its name on the command line and in reports.
pub const OPTIMUM: &str = "belady";
/// Stands for a next use that never comes.
const NEVER: u32 = u32::MAX;

/// Replays a trace on a tier of so many blocks that always lets the block go whose next use lies farthest ahead: those that are
/// never used again first, among equals the deepest, and a request's own blocks too. `progress` is called after each request
/// with how many are done.
#[must_use]
pub fn optimum(trace: &Trace, capacity_blocks: u64, mut progress: impl FnMut(u64, &Tally)) -> ReplayReport {
    let next_uses = next_uses(trace);
    let mut next_uses = next_uses.iter();
    let mut tally = Tally::default();
    // When each is used next and how deep it lies; and the same in order: what goes first is the last of them.
    let mut resident: HashMap<u64, (u32, u32)> = HashMap::new();
    let mut order: BTreeSet<(u32, u32, u64)> = BTreeSet::new();
    for (done, request) in (1..).zip(trace.requests()) {
        let run = request.hash_ids.iter().take_while(|id| resident.contains_key(*id)).count() as u64;
        let count = |blocks: u64| u32::try_from(blocks).unwrap_or(u32::MAX);
        let counts = TierCounts { ram: count(run), missed: count(request.blocks() - run), ..TierCounts::default() };
        tally.add(&request, counts, trace.block_tokens());
        for (depth, id) in (0..).zip(request.hash_ids) {
            let next = next_uses.next().copied().unwrap_or(NEVER);
            if let Some((before, depth)) = resident.insert(*id, (next, depth)) {
                order.remove(&(before, depth, *id));
            }
            order.insert((next, depth, *id));
        }
        while resident.len() as u64 > capacity_blocks {
            let Some((.., id)) = order.pop_last() else { break };
            resident.remove(&id);
        }
        progress(done, &tally);
    }
    tally.report(OPTIMUM, capacity_blocks)
}

/// Of each reference of the trace, the number of the next request with the same block.
fn next_uses(trace: &Trace) -> Vec<u32> {
    let mut next: HashMap<u64, u32> = HashMap::new();
    let mut uses = vec![NEVER; trace.block_references()];
    let mut at = uses.len();
    for (number, request) in trace.requests().enumerate().rev() {
        at -= request.hash_ids.len();
        for (use_of, id) in uses[at..].iter_mut().zip(request.hash_ids) {
            let number = u32::try_from(number).unwrap_or(NEVER);
            *use_of = next.insert(*id, number).unwrap_or(NEVER);
        }
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::super::{TraceRequest, reference, shared};
    use super::*;

    fn request(timestamp_ms: u64, hash_ids: &[u64]) -> TraceRequest {
        let input_length = hash_ids.len() as u64 * 10;
        TraceRequest { timestamp_ms, input_length, output_length: 1, hash_ids: hash_ids.to_vec() }
    }

    fn hit_rate(trace: &Trace, capacity: u64) -> f64 {
        optimum(trace, capacity, |_, _| {}).hit_rate
    }

    #[test]
    fn what_is_used_latest_goes_and_of_what_is_never_used_again_the_deepest() {
        // With room for three: of 0 1 2, 2 is never used again; then 3 comes late, and goes before 0.
        let trace =
            Trace::collect(10, [request(0, &[0, 1, 2]), request(1, &[0, 3]), request(2, &[0, 1]), request(3, &[0, 3])]);
        let report = optimum(&trace, 3, |_, _| {});
        assert_eq!((report.blocks_hit, report.blocks_asked), (1 + 2 + 2, 9));
        let report = optimum(&trace, 2, |_, _| {});
        assert_eq!(report.blocks_hit, 1 + 2 + 1);
        assert_eq!((hit_rate(&trace, 0), report.policy.as_str()), (0.0, "belady"));
    }

    #[test]
    fn every_golden_figure_of_the_optimum_is_met_to_four_digits() {
        let Some(path) = shared::find("reference/golden/lru_hit_rates.json") else { return };
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for (name, figures) in golden["traces"].as_object().unwrap() {
            let Some(trace) = shared::mooncake(name) else { return };
            for point in figures["points"].as_array().unwrap() {
                let capacity = point["capacity_blocks"].as_u64().unwrap();
                let (found, expected) = (hit_rate(&trace, capacity), point["belady"].as_f64().unwrap());
                assert_eq!(format!("{found:.4}"), format!("{expected:.4}"), "{name} {capacity}");
                let lru = reference::lru_hit_rate(&trace, usize::try_from(capacity).unwrap());
                assert!(lru <= found, "{name} {capacity}");
            }
        }
    }
}
