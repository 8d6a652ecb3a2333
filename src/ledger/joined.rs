//! Is any delivery on two bills, or on one that is larger than it was? An audit's join of records and deliveries, both ways.
//!
//! A delivery has one owner at most, and what that request comes to is at most what was delivered: so no more tokens are billed
//! as hits of a delivery than it had. Neither way needs more memory than a row.

use super::counts::count;
use super::delivery::{Delivery, DeliveryKey};
use super::view::View;
use super::{Audit, LedgerError, UsageRecord};
use crate::vocab::TokenCount;

/// What the join of records and deliveries found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Deliveries (of an instance's request) that are known: those that records tell of which are not all deleted.
    pub deliveries: u64,
    /// Of these, such as a billing id has the hits of.
    pub billed: u64,
    /// Tokens that were delivered.
    pub delivered_tokens: u64,
    /// Tokens that are billed as hits of them, with corrections. Never more; without those whose record is deleted.
    pub billed_tokens: u64,
    /// Records with hits that do not say of which request: they are of a version that did not keep it, and whether their
    /// deliveries were billed twice can't be proven.
    pub unproven: u64,
    /// Tokens of those.
    pub unproven_tokens: u64,
}

impl Audit {
    /// A settled request is the owner of its delivery exactly if it has hits.
    pub(super) fn join(&mut self, view: &View<'_>, record: &UsageRecord) -> Result<(), LedgerError> {
        if record.correction.is_some() {
            return Ok(());
        }
        let hits = hits(view, record)?;
        let Some(key) = DeliveryKey::recorded(record) else {
            self.joined.unproven += u64::from(hits > TokenCount::ZERO);
            self.joined.unproven_tokens += hits.get();
            return Ok(());
        };
        let known = view.delivery(&key)?;
        let is_owner = known.as_ref().is_some_and(|known| owns(known, record));
        if hits > TokenCount::ZERO {
            self.joined.billed_tokens += hits.get();
            match known {
                Some(known) if is_owner && hits > known.told.total() => {
                    self.difference(|| {
                        format!("{} bills {hits} of a delivery of {}", named(record), known.told.total())
                    });
                }
                Some(_) if is_owner => {}
                Some(Delivery { owner: Some(owner), .. }) => self.difference(|| {
                    format!("{} bills {hits} of a delivery that is billed by record {}", named(record), owner.sequence)
                }),
                _ => self.difference(|| format!("{} bills {hits} of a delivery that nobody knows", named(record))),
            }
        } else if is_owner {
            self.difference(|| format!("{} has a delivery, and bills nothing of it", named(record)));
        }
        Ok(())
    }

    /// Every owner is a record that says so, as long as it is not deleted.
    pub(super) fn read_deliveries(&mut self, view: &View<'_>) -> Result<(), LedgerError> {
        let last = self.total.sequences();
        for row in view.deliveries() {
            let (key, delivery) = row?;
            self.joined.deliveries += 1;
            self.joined.delivered_tokens += delivery.told.total().get();
            let digest = || key.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            if delivery.last <= self.deleted || delivery.last > last {
                self.difference(|| format!("delivery {} is of record {}, which is not there", digest(), delivery.last));
            }
            let Some(owner) = &delivery.owner else { continue };
            self.joined.billed += 1;
            if owner.sequence <= self.deleted {
                continue;
            }
            let record = view.records(owner.sequence - 1).next().transpose()?;
            let is_its = |record: &UsageRecord| {
                DeliveryKey::recorded(record) == Some(key) && owns(&delivery, record) && record.correction.is_none()
            };
            if !record.as_ref().is_some_and(is_its) {
                self.difference(|| {
                    format!(
                        "delivery {} is billed by {} (record {}), which says nothing of it",
                        digest(),
                        owner.billing_id,
                        owner.sequence
                    )
                });
            }
        }
        Ok(())
    }
}

fn owns(known: &Delivery, record: &UsageRecord) -> bool {
    let is_it =
        |owner: &super::delivery::Owner| owner.sequence == record.sequence && owner.billing_id == record.billing_id;
    known.owner.as_ref().is_some_and(is_it)
}

/// With corrections.
fn hits(view: &View<'_>, record: &UsageRecord) -> Result<TokenCount, LedgerError> {
    let standing = view.standing(record)?;
    Ok(standing.map_or(record.hit_tokens(), |standing| count(standing.counts.hit())))
}

fn named(record: &UsageRecord) -> String {
    format!("record {} ({} {})", record.sequence, record.tenant, record.billing_id)
}
