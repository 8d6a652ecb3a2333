//! Claims about deliveries: each is on one bill, whoever settles it, in what order, and whatever is forgotten in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::sync::oneshot;

use super::delivery::{Delivery, DeliveryKey, Owner};
use super::faults::Write;
use super::sample::{NEW_YEAR, settlement};
use super::{
    Amendment, Delivered, Joined, Ledger, LedgerOptions, ReceiptError, ReceiptFlaw, SettleError, Settled, Settlement,
    Truth, UsageFilter, UsageRecord,
};
use crate::vocab::{BillingId, NodeRole, RequestId, TenantName, Timestamp, TokenCount, UsageDetail};

const DAY: Duration = Duration::from_secs(86_400);

fn open(path: &Path) -> Ledger {
    Ledger::open_with(path, LedgerOptions { retention: 3 * DAY, ..LedgerOptions::default() }).unwrap()
}

/// A settle of request `r`, which was delivered 500 tokens from RAM and 100 from NVMe.
fn of_r(billing_id: &str, cached: u64) -> Settlement {
    Settlement {
        request_id: RequestId::parse("r").ok(),
        cached_tokens: TokenCount(cached),
        ..settlement("acme", billing_id)
    }
}

/// As from a daemon that has forgotten it all.
fn forgotten(settlement: Settlement) -> Settlement {
    Settlement { delivered: Delivered::default(), delivered_since: Timestamp::default(), ..settlement }
}

fn settle(ledger: &Ledger, billing_id: &str, cached: u64) -> Result<UsageRecord, SettleError> {
    ledger.settle(of_r(billing_id, cached)).map(|settled| settled.record)
}

fn correct(ledger: &Ledger, billing_id: &str, corrects: &str, truth: Truth) -> Result<Settled, SettleError> {
    let (reply, answer) = oneshot::channel();
    let amendment = Amendment {
        tenant: TenantName::parse("acme").unwrap(),
        billing_id: BillingId::parse(billing_id).unwrap(),
        corrects: BillingId::parse(corrects).unwrap(),
        reason: "a test".to_owned(),
        truth,
        at: NEW_YEAR,
    };
    ledger.correct(amendment, reply);
    answer.blocking_recv().unwrap()
}

fn cached(tokens: u64) -> Truth {
    Truth { cached: Some(TokenCount(tokens)), ..Truth::default() }
}

/// Whose it is, as a refusal says it.
fn consumed<T>(refused: Result<T, SettleError>) -> (String, u64) {
    match refused.map(drop) {
        Err(SettleError::Consumed(claim)) => (claim.owner.to_string(), claim.sequence),
        other => panic!("{other:?}"),
    }
}

fn hits(ledger: &Ledger) -> i64 {
    ledger.summary(&UsageFilter::default()).unwrap().total.counts.hit()
}

fn clean(ledger: &Ledger) -> Joined {
    let audit = ledger.audit().unwrap();
    assert!(audit.clean(), "{:?}", audit.examples);
    assert!(audit.joined.billed_tokens <= audit.joined.delivered_tokens, "{:?}", audit.joined);
    audit.joined
}

fn told(ledger: &Ledger) -> u64 {
    ledger.records_after(0).unwrap().iter().map(|record| record.delivered.total().get()).sum()
}

#[test]
fn a_delivery_is_its_who_settles_it_first_and_nobody_elses_after_a_restart_either() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let first = settle(&ledger, "b-1", 600).unwrap();
    assert_eq!(settle(&ledger, "b-1", 600), Ok(first), "the same again");
    for again in [settle(&ledger, "b-2", 600), settle(&ledger, "b-3", 1)] {
        assert_eq!(consumed(again), ("b-1".to_owned(), 1));
    }
    drop(ledger);
    let ledger = open(folder.path());
    assert_eq!(consumed(settle(&ledger, "b-2", 600)).1, 1);
    assert_eq!(consumed(ledger.settle(forgotten(of_r("b-2", 600)))).1, 1, "also where nothing proves a delivery");
    let words = settle(&ledger, "b-2", 600).unwrap_err().to_string();
    assert_eq!(
        words,
        "cached_tokens is 600 tokens, but what was delivered to request_id r of instance engine-1 is billed by b-1 (record 1): \
         one delivery is on one bill; settle with cached_tokens 0, or correct b-1 first. A request_id may come again once the \
         records of its first use are gone"
    );
    let other = Settlement { tenant: TenantName::parse("bolt").unwrap(), ..of_r("b-2", 600) };
    assert!(ledger.settle(other).is_ok(), "what another tenant's request of this name was delivered is its own");
    assert!(ledger.settle(Settlement { cached_tokens: TokenCount(600), ..settlement("acme", "b-4") }).is_ok());
    assert_eq!(hits(&ledger), 1_800);
    let audit = ledger.audit().unwrap();
    let refused = &audit.divergences.overclaimed[&TenantName::parse("acme").unwrap()];
    assert_eq!((refused.requests, refused.tokens), (2, 601), "b-2 and b-3, which had nothing left to claim");
    let joined = clean(&ledger);
    assert_eq!((joined.deliveries, joined.billed, joined.unproven), (3, 3, 0));
    assert_eq!((joined.delivered_tokens, joined.billed_tokens), (1_800, 1_800));
}

#[test]
fn whoever_claims_nothing_is_recorded_and_consumes_nothing_and_the_delivery_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let first = settle(&ledger, "b-0", 0).unwrap();
    assert_eq!(first.delivered.total(), TokenCount(600), "delivered and not claimed");
    assert_eq!(settle(&ledger, "b-1", 0).unwrap().delivered, Delivered::default());
    let owner = settle(&ledger, "b-2", 400).unwrap();
    assert_eq!((owner.hit_tokens(), owner.delivered.total()), (TokenCount(400), TokenCount(400)), "at least the hit");
    let after = settle(&ledger, "b-3", 0).unwrap();
    assert_eq!((after.hit_tokens(), after.delivered), (TokenCount(0), Delivered::default()));
    assert_eq!(consumed(settle(&ledger, "b-4", 100)), ("b-2".to_owned(), 3), "though 200 are left of it");
    assert_eq!(clean(&ledger).delivered_tokens, 600);
}

#[test]
fn what_is_delivered_after_the_settle_is_told_and_not_billed() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    settle(&ledger, "b-1", 600).unwrap();
    let grown = |billing_id: &str, cached: u64| {
        let delivered = Delivered { ram: TokenCount(532), nvme: TokenCount(132) };
        ledger.settle(Settlement { delivered, ..of_r(billing_id, cached) })
    };
    assert_eq!(consumed(grown("b-2", 64)), ("b-1".to_owned(), 1));
    let delivered = grown("b-2", 0).unwrap().record.delivered;
    assert_eq!(delivered, Delivered { ram: TokenCount(32), nvme: TokenCount(32) });
    assert_eq!((told(&ledger), clean(&ledger).delivered_tokens), (664, 664));
    let decode = UsageDetail { role: NodeRole::Decode, ..UsageDetail::default() };
    let more = Delivered { ram: TokenCount(9_000), nvme: TokenCount(0) };
    ledger.settle(Settlement { detail: decode, delivered: more, ..of_r("b-3", 0) }).unwrap();
    assert_eq!((told(&ledger), clean(&ledger).delivered_tokens), (664, 664), "what a decode node loads is no delivery");
}

#[test]
fn a_refund_frees_the_delivery_and_what_another_has_taken_since_is_not_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    settle(&ledger, "b-1", 600).unwrap();
    correct(&ledger, "c-1", "b-1", cached(1)).unwrap();
    assert_eq!(consumed(settle(&ledger, "b-2", 600)).0, "b-1", "one token of it is billed");
    correct(&ledger, "c-2", "b-1", Truth::refund()).unwrap();
    assert_eq!(clean(&ledger).billed, 0);
    drop(ledger);
    let ledger = open(folder.path());
    // The daemon has forgotten; what the first record tells of proves the delivery.
    let second = ledger.settle(forgotten(of_r("b-2", 500))).unwrap().record;
    assert_eq!((second.hit_tokens(), second.sequence), (TokenCount(500), 4));
    let prompt = Truth { prompt: Some(TokenCount(1_000)), ..cached(600) };
    let refused = correct(&ledger, "c-3", "b-1", prompt.clone());
    assert_eq!(consumed(refused), ("b-2".to_owned(), 4));
    let without = Truth { prompt: Some(TokenCount(1_000)), ..Truth::default() };
    assert!(correct(&ledger, "c-4", "b-1", without).is_ok(), "it may be corrected in what is no hit");
    correct(&ledger, "c-5", "b-2", cached(0)).unwrap();
    let back = correct(&ledger, "c-6", "b-1", prompt).unwrap().record;
    assert_eq!(back.counts.hit(), 600, "free again, the first may have it again");
    assert_eq!(consumed(settle(&ledger, "b-3", 1)), ("b-1".to_owned(), 1));
    assert_eq!((hits(&ledger), clean(&ledger).billed_tokens), (600, 600));
    assert_eq!(settle(&ledger, "b-1", 600).unwrap().sequence, 1, "its identity is what it was");
}

#[test]
fn a_correction_says_no_more_than_was_delivered_and_leaves_the_tiers_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    settle(&ledger, "b-0", 0).unwrap();
    settle(&ledger, "b-1", 60).unwrap();
    let claims = |billing_id: &str, tokens| correct(&ledger, billing_id, "b-1", cached(tokens)).map(|it| it.record);
    assert!(matches!(claims("c-1", 601), Err(SettleError::ClaimsMore { delivered: TokenCount(600), .. })));
    let raised = claims("c-2", 600).unwrap();
    assert_eq!((raised.counts.hit_ram, raised.counts.hit_nvme), (450, 90), "the delivery's own, 500 and 100 in all");
    assert!(claims("c-3", 601).is_err());
    let output = Truth { output: Some(TokenCount(1)), ..Truth::default() };
    let record = correct(&ledger, "c-4", "b-1", output).unwrap().record;
    assert_eq!((record.counts.hit_ram, record.counts.hit_nvme), (0, 0));
    assert_eq!(clean(&ledger).billed_tokens, 600);
    // One that did not claim takes the delivery by its correction, where nobody has it.
    assert_eq!(consumed(correct(&ledger, "c-5", "b-0", cached(1))), ("b-1".to_owned(), 2));
}

// Tiers have prices of their own.
#[test]
fn what_is_delivered_later_from_another_tier_does_not_move_hits_of_a_record_that_is_corrected() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let first = settle(&ledger, "b-1", 300).unwrap();
    let grown = Delivered { ram: TokenCount(500), nvme: TokenCount(500) };
    ledger.settle(Settlement { delivered: grown, ..of_r("b-2", 0) }).unwrap();
    let output = Truth { output: Some(TokenCount(1)), ..Truth::default() };
    let record = correct(&ledger, "c-1", "b-1", output).unwrap().record;
    assert_eq!((first.counts.hit_ram, first.counts.hit_nvme), (250, 50));
    assert_eq!((record.counts.hit_ram, record.counts.hit_nvme), (0, 0));
    clean(&ledger);
}

#[test]
fn settles_of_one_batch_see_each_other_and_of_those_that_race_one_is_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let mut answers = Vec::new();
    for at in 0..500 {
        let (reply, answer) = oneshot::channel();
        let request_id = RequestId::parse(&format!("r-{}", at % 50)).ok();
        ledger.submit(Settlement { request_id, ..of_r(&format!("b-{at}"), 600) }, reply);
        answers.push(answer);
    }
    let settled: Vec<bool> = answers.into_iter().map(|answer| answer.blocking_recv().unwrap().is_ok()).collect();
    assert!(settled[..50].iter().all(|settled| *settled) && !settled[50..].contains(&true));
    let joined = clean(&ledger);
    assert_eq!((joined.billed, joined.billed_tokens), (50, 50 * 600));
}

#[test]
fn a_write_that_failed_has_consumed_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    ledger.store().faults().writes(Write::Lost);
    assert!(matches!(settle(&ledger, "b-1", 600), Err(SettleError::Unavailable(_))));
    ledger.store().faults().writes(Write::Works);
    drop(ledger);
    let ledger = open(folder.path());
    assert_eq!(settle(&ledger, "b-2", 600).unwrap().sequence, 1);
    assert_eq!(consumed(settle(&ledger, "b-1", 600)).0, "b-2");
}

fn sweep(ledger: &Ledger, through: u64, now: Timestamp) -> u64 {
    ledger.acknowledge(through).unwrap();
    let (swept, end) = oneshot::channel();
    ledger.sweep(now, swept);
    end.blocking_recv().unwrap()
}

// The knowledge whose a delivery is ends only when nothing can claim it any more, whatever proves it and however the clock goes.
#[test]
fn a_delivery_whose_records_are_gone_is_billed_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    let at = |days: u32, hours: u32| NEW_YEAR + days * DAY + hours * DAY / 24;
    settle(&ledger, "b-1", 600).unwrap();
    let later = Settlement { settled_at: at(1, 0), ..of_r("b-2", 0) };
    ledger.settle(Settlement { delivered: Delivered { ram: TokenCount(700), nvme: TokenCount(0) }, ..later }).unwrap();
    ledger.settle(Settlement { settled_at: at(2, 0), ..settlement("acme", "other") }).unwrap();
    assert_eq!(ledger.forgotten(), None);
    assert_eq!(sweep(&ledger, 1, at(4, 12)), 1, "the owner's record");
    assert_eq!(
        (ledger.forgotten(), clean(&ledger).deliveries),
        (Some(NEW_YEAR), 2),
        "another still tells of the delivery"
    );
    let claim = |ledger: &Ledger, billing_id: &str, since: Timestamp, now: Timestamp| {
        ledger.settle(Settlement { delivered_since: since, settled_at: now, ..of_r(billing_id, 600) })
    };
    assert_eq!(consumed(claim(&ledger, "b-3", NEW_YEAR, at(4, 12))).0, "b-1");
    assert_eq!(consumed(claim(&ledger, "b-1", NEW_YEAR, at(4, 12))).0, "b-1", "also by its own name");
    assert_eq!(sweep(&ledger, 2, at(4, 12)), 1);
    assert_eq!((ledger.forgotten(), clean(&ledger).deliveries), (Some(at(1, 0)), 1));
    for reopened in [false, true] {
        if reopened {
            drop(ledger);
            ledger = open(folder.path());
        }
        for since in [Timestamp(0), NEW_YEAR, at(1, 0), at(1, 1)] {
            for now in [at(4, 12), at(0, 0), at(400, 0)] {
                let refused = claim(&ledger, "b-4", since, now).unwrap_err();
                assert!(
                    matches!(refused, SettleError::Forgotten { .. } | SettleError::Ahead { .. }),
                    "since {since:?}, at {now:?}: {refused}"
                );
            }
        }
    }
    let zero = Settlement { settled_at: at(4, 12), ..of_r("b-4", 0) };
    assert_eq!(ledger.settle(zero).unwrap().record.delivered, Delivered::default(), "nor is it told again");
    let young = claim(&ledger, "b-5", at(1, 1) + Duration::from_millis(1), at(4, 12));
    assert_eq!(young.unwrap().record.hit_tokens(), TokenCount(600), "a second use of the name");
    clean(&ledger);
}

#[test]
fn a_delivery_that_is_dated_long_after_its_settle_is_not_billed() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let claim = |billing_id: &str, seconds| {
        let since = NEW_YEAR + Duration::from_secs(seconds);
        ledger.settle(Settlement { delivered_since: since, ..of_r(billing_id, 600) })
    };
    assert_eq!(claim("b-1", 3_601), Err(SettleError::Ahead { claimed: TokenCount(600) }));
    assert!(claim("b-1", 3_600).is_ok(), "a clock that is set is no reason");
}

#[test]
fn records_that_do_not_name_their_request_are_kept_corrected_and_told_as_unproven() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let before = Settlement { request_id: None, ..of_r("b-1", 500) };
    let record = ledger.settle(before.clone()).unwrap().record;
    assert_eq!((record.request_id, ledger.settle(before).unwrap().repeated), (None, true));
    let raised = correct(&ledger, "c-1", "b-1", cached(600)).unwrap().record;
    assert_eq!((raised.counts.hit(), raised.request_id), (100, None));
    assert!(correct(&ledger, "c-2", "b-1", cached(601)).is_err());
    ledger.settle(Settlement { request_id: None, ..of_r("b-2", 0) }).unwrap();
    settle(&ledger, "b-3", 600).unwrap();
    let joined = clean(&ledger);
    assert_eq!((joined.unproven, joined.unproven_tokens, joined.billed_tokens), (1, 600, 600));
    correct(&ledger, "c-3", "b-1", Truth::refund()).unwrap();
    assert_eq!(clean(&ledger).unproven, 0, "what bills nothing bills nothing twice");
}

#[test]
fn another_attempt_under_the_same_billing_id_is_refused_in_either_direction() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let attempt = |attempt| ledger.settle(Settlement { attempt, ..of_r("b-1", 600) });
    attempt(2).unwrap();
    assert!(attempt(2).unwrap().repeated);
    let said = |refused: Result<Settled, SettleError>| refused.unwrap_err().to_string();
    assert_eq!(
        said(attempt(1)),
        "attempt is 1, but b-1 was settled with attempt 2 (record 1), which stands: an attempt that was given up is not billed \
         under the request's billing_id"
    );
    let forward = said(attempt(3));
    assert!(
        forward.starts_with("attempt is 3, but b-1 was settled with attempt 2 (record 1), which stands: "),
        "{forward}"
    );
    assert!(forward.contains("refund this one (CorrectUsage)"), "{forward}");
    let other = Settlement { attempt: 1, output_tokens: TokenCount(9), ..of_r("b-1", 600) };
    assert!(
        said(ledger.settle(other)).starts_with("attempt is 1, but"),
        "other numbers are no news of another attempt"
    );
    assert_eq!((ledger.last_sequence(), clean(&ledger).billed), (Ok(1), 1));
}

#[test]
fn a_receipt_that_proves_nothing_refuses_a_new_settle_and_no_repeated_one() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let flawed = |billing_id: &str, cached| {
        let flaw = Some(ReceiptFlaw { at: 1, why: ReceiptError::Changed });
        ledger.settle(Settlement { flaw, namespace: None, ..of_r(billing_id, cached) })
    };
    settle(&ledger, "b-1", 600).unwrap();
    assert!(flawed("b-1", 600).unwrap().repeated, "nor does a layout that is unknown by now");
    let said = |refused: Result<Settled, SettleError>| refused.unwrap_err().to_string();
    for cached in [600, 0] {
        assert_eq!(said(flawed("b-2", cached)), "receipts[1]: the delivery receipt was changed after it was issued");
    }
    let unknown = said(ledger.settle(Settlement { namespace: None, ..of_r("b-2", 0) }));
    assert!(unknown.ends_with(" is not registered: call RegisterNamespace first"), "{unknown}");
    assert_eq!(ledger.last_sequence(), Ok(1));
}

#[test]
fn an_audit_finds_a_delivery_on_two_bills_on_none_and_on_too_large_a_one() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    let first = settle(&ledger, "b-1", 600).unwrap();
    settle(&ledger, "b-2", 0).unwrap();
    let key = DeliveryKey::recorded(&first).unwrap();
    let right = ledger.store().delivery(&key).unwrap().unwrap();
    let found = |changed: Option<Delivery>| {
        let mut rows = super::store::Rows::default();
        match changed {
            Some(delivery) => rows.delivery(&key, &delivery),
            None => rows.forget(&[key], Timestamp(0)),
        }
        ledger.store().write(rows).unwrap();
        ledger.audit().unwrap().examples
    };
    let owner = |sequence, name: &str| Some(Owner { sequence, billing_id: BillingId::parse(name).unwrap() });
    let digest: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let told = Delivered { ram: TokenCount(500), nvme: TokenCount(99) };
    let bills = "record 1 (acme b-1) bills 600 tokens of a delivery";
    assert_eq!(found(Some(Delivery { told, ..right.clone() })), [format!("{bills} of 599 tokens")]);
    assert_eq!(found(None), [format!("{bills} that nobody knows")]);
    assert_eq!(found(Some(Delivery { owner: None, ..right })), [format!("{bills} that nobody knows")]);
    assert_eq!(
        found(Some(Delivery { owner: owner(2, "b-2"), ..right })),
        [
            format!("{bills} that is billed by record 2"),
            "record 2 (acme b-2) has a delivery, and bills nothing of it".into()
        ]
    );
    assert_eq!(
        found(Some(Delivery { owner: owner(1, "b-9"), ..right }))[1],
        format!("delivery {digest} is billed by b-9 (record 1), which says nothing of it")
    );
    assert_eq!(
        found(Some(Delivery { last: 3, ..right.clone() })),
        [format!("delivery {digest} is of record 3, which is not there")]
    );
    assert_eq!(found(Some(right)), [""; 0]);
}

#[test]
fn the_bytes_of_a_delivery_are_pinned() {
    let told = Delivered { ram: TokenCount(1), nvme: TokenCount(2) };
    let owner = Owner { sequence: 4, billing_id: BillingId::parse("b").unwrap() };
    let delivery = Delivery { told, last: 3, owner: Some(owner) };
    let number = |byte: u8| [byte, 0, 0, 0, 0, 0, 0, 0];
    let bytes = [&[1][..], &number(1), &number(2), &number(3), &number(4), b"\x01b"].concat();
    assert_eq!(delivery.encode(), bytes);
    let free = Delivery { owner: None, ..delivery };
    for delivery in [delivery, free] {
        assert_eq!(Delivery::decode(&delivery.encode()), Ok(delivery));
    }
    assert!(Delivery::decode(&bytes[..bytes.len() - 1]).is_err());
    let key = DeliveryKey::recorded(&UsageRecord::of(of_r("b-1", 0), 1).unwrap()).unwrap();
    let another = Settlement { request_id: RequestId::parse("1r").ok(), ..of_r("b-1", 0) };
    assert_ne!(DeliveryKey::settled(&another), Some(key));
}

// The model: of each delivery, what each billing id has of it. Random settles, corrections and reopenings.
#[test]
fn whatever_is_settled_and_corrected_no_delivery_is_billed_beyond_what_it_was() {
    for seed in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = open(folder.path());
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut bills: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let (mut refused, mut corrections) = (0, 0);
        for step in 0..400 {
            let (request, id) = (random.random_range(0..12_u64), random.random_range(0..4_u64));
            let name = format!("b-{request}-{id}");
            let tokens = [0, 600, random.random_range(0..=600)][random.random_range(0..3)];
            let rest: u64 =
                bills.iter().filter(|((of, by), _)| *of == request && *by != id).map(|(_, hits)| hits).sum();
            let answer = if random.random_ratio(2, 3) && !bills.contains_key(&(request, id)) {
                let request_id = RequestId::parse(&format!("r-{request}")).ok();
                let settlement = Settlement { request_id, ..of_r(&name, tokens) };
                let forgets = random.random_ratio(1, 3);
                ledger.settle(if forgets { forgotten(settlement) } else { settlement })
            } else {
                corrections += 1;
                correct(&ledger, &format!("c-{step}"), &name, cached(tokens))
            };
            match answer {
                Ok(_) => {
                    assert!(tokens == 0 || rest == 0, "{name} has {tokens}, others {rest}");
                    bills.insert((request, id), tokens);
                }
                Err(SettleError::Consumed(_)) => {
                    assert!(tokens > 0 && rest > 0, "{name} is refused {tokens}, and others have {rest}");
                    refused += 1;
                }
                Err(_) => {}
            }
            if random.random_ratio(1, 60) {
                drop(ledger);
                ledger = open(folder.path());
            }
        }
        assert!(refused > 20 && corrections > 50, "{refused} refused, {corrections} corrections");
        let joined = clean(&ledger);
        assert_eq!(joined.billed_tokens, bills.values().sum::<u64>());
        assert_eq!(hits(&ledger).unsigned_abs(), joined.billed_tokens);
        assert_eq!(joined.billed, bills.values().filter(|hits| **hits > 0).count() as u64);
    }
}
