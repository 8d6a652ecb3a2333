//! An LRU of one tier as anyone would write it, to compare the planner with in tests. It shares no line with the
//! planner, and is slow where being obvious costs something.

use std::collections::{BTreeMap, HashMap};

use super::Trace;

/// The token-weighted hit rate of `trace` on an LRU of `capacity` blocks, from cold, by the replay rule: a request's
/// hit is the unbroken run of resident blocks from its first; then its blocks become resident, touched from tail to
/// head so that the head is the most recent, and the least recent go until the rest fits.
#[must_use]
pub fn lru_hit_rate(trace: &Trace, capacity: usize) -> f64 {
    let (hit, prompt) = lru_tokens(trace, capacity);
    if prompt == 0 { 0.0 } else { hit as f64 / prompt as f64 }
}

/// The same as tokens: those hit, and those of all prompts.
#[must_use]
pub fn lru_tokens(trace: &Trace, capacity: usize) -> (u64, u64) {
    let mut touched_at: HashMap<u64, u64> = HashMap::new();
    let mut by_touch: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut now, mut hit, mut prompt) = (0, 0, 0);
    for request in trace.requests() {
        let run = request.hash_ids.iter().take_while(|id| touched_at.contains_key(*id)).count();
        hit += request.hit_tokens(run as u64, trace.block_tokens());
        prompt += request.input_length;
        for id in request.hash_ids.iter().rev() {
            now += 1;
            if let Some(before) = touched_at.insert(*id, now) {
                by_touch.remove(&before);
            }
            by_touch.insert(now, *id);
        }
        while by_touch.len() > capacity {
            if let Some((_, oldest)) = by_touch.pop_first() {
                touched_at.remove(&oldest);
            }
        }
    }
    (hit, prompt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{TraceRequest, shared};

    #[test]
    fn every_golden_lru_figure_is_met_to_four_digits() {
        let Some(path) = shared::find("reference/golden/lru_hit_rates.json") else { return };
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut compared = 0;
        for (name, figures) in golden["traces"].as_object().unwrap() {
            let Some(trace) = shared::mooncake(name) else { return };
            for point in figures["points"].as_array().unwrap() {
                let capacity = usize::try_from(point["capacity_blocks"].as_u64().unwrap()).unwrap();
                let rate = lru_hit_rate(&trace, capacity);
                assert_eq!(format!("{rate:.4}"), format!("{:.4}", point["lru"].as_f64().unwrap()), "{name} {capacity}");
                compared += 1;
            }
        }
        assert_eq!(compared, 13);
    }

    #[test]
    fn a_request_larger_than_the_cache_keeps_its_head() {
        let request = TraceRequest { input_length: 30, hash_ids: vec![0, 1, 2], ..TraceRequest::default() };
        let trace = Trace::collect(10, [request.clone(), request]);
        assert_eq!(lru_tokens(&trace, 2), (20, 60));
    }
}
