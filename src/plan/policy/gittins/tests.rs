//! What is learnt, seen from outside: streams of requests for one block each, where only one thing tells blocks that come back
//! from those that don't.

use std::collections::BTreeMap;

use super::super::{Facts, Heat, Policy, Use, Visit};
use super::Gittins;
use crate::vocab::{AccountId, Hints, Owner};

/// A tier of so many blocks, each a chain of its own.
struct Tier {
    policy: Gittins,
    capacity: usize,
    resident: BTreeMap<u64, u32>,
    free: Vec<u32>,
}

impl Tier {
    fn new(capacity: u32) -> Self {
        let free = (0..capacity).collect();
        Self { policy: Gittins::default(), capacity: capacity as usize, resident: BTreeMap::new(), free }
    }

    /// Whether a request for a block hits.
    fn request(&mut self, key: u64, account: u16, hints: Hints) -> bool {
        let owner = Owner { account: AccountId(account), ..Owner::default() };
        // Spread, as keys are.
        let facts = |key: u64| Facts { key: key.wrapping_mul(0x9e37_79b9_7f4a_7c15), depth: 0, owner };
        let fresh = u32::from(!self.resident.contains_key(&key) && !self.policy.remembers(facts(key).key));
        let visit = Visit { deepest: 0, fresh, hints };
        self.policy.tick();
        let known = self.resident.get(&key).copied();
        if let Some(block) = known {
            self.policy.touch(0, block, &|| facts(key), Use::Read);
        } else if self.resident.len() == self.capacity {
            if !self.policy.admits(0, &facts(key), &visit) {
                self.policy.pass(&facts(key), &visit);
                return false;
            }
            let victim = self.policy.victim(0, &mut |_| true).unwrap();
            let (gone, _) = self.resident.iter().find(|(_, block)| **block == victim).unwrap();
            let gone = *gone;
            self.resident.remove(&gone);
            self.policy.remove(victim, &|| facts(gone));
            self.free.push(victim);
        }
        let block = known.unwrap_or_else(|| {
            let block = self.free.pop().unwrap();
            self.policy.insert(0, block, Heat::Hot, &|| facts(key), &visit);
            self.resident.insert(key, block);
            block
        });
        self.policy.touch(0, block, &|| facts(key), Use::Stored(visit));
        known.is_some()
    }
}

/// The share of second uses that hit, where every third request is for a block that never comes again, and every third for
/// one that does 300 requests later: of all new blocks 200 come in between, and the tier has room for 120.
fn second_uses(told: impl Fn(bool) -> (u16, Hints)) -> f64 {
    let mut tier = Tier::new(120);
    let (mut hits, mut asked) = (0, 0);
    for step in 0..6_000_u64 {
        let ((once, once_hints), (again, hints)) = (told(false), told(true));
        tier.request(3 * step, once, once_hints);
        tier.request(3 * step + 1, again, hints);
        if let Some(earlier) = step.checked_sub(100) {
            let hit = tier.request(3 * earlier + 1, again, hints);
            (hits, asked) = (hits + u32::from(hit && step > 3_000), asked + u32::from(step > 3_000));
        }
    }
    f64::from(hits) / f64::from(asked)
}

#[test]
fn what_a_tenant_a_length_or_a_gateway_tells_is_learnt() {
    let plain = second_uses(|_| (0, Hints::default()));
    let tenant = second_uses(|again| (u16::from(again), Hints::default()));
    let length = second_uses(|again| (0, Hints { output_tokens: Some(if again { 20 } else { 900 }), again: None }));
    let word = second_uses(|again| (0, Hints { output_tokens: None, again: Some(again) }));
    assert!(plain < 0.7, "as many as there is room for, where nothing tells them apart (LRU hits nothing): {plain}");
    for (what, share) in [("tenant", tenant), ("output's length", length), ("gateway's word", word)] {
        assert!(share > 0.8, "by {what}: {share}, without {plain}");
    }
}

#[test]
fn a_word_that_is_always_wrong_is_worth_as_much() {
    let wrong = second_uses(|again| (0, Hints { output_tokens: None, again: Some(!again) }));
    assert!(wrong > 0.8, "{wrong}");
}
