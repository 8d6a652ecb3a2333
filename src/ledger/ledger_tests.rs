//! Claims of the door: settled once whoever asks and however often, and read back as it was.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::super::sample::{NEW_YEAR, settlement};
use super::*;
use crate::vocab::{NamespaceName, TenantName, TokenCount};

const HOUR: u64 = 3_600_000;

/// Identity of a record, and what is billed for it.
type Bill = BTreeMap<(String, String), UsageRecord>;

/// One of 400 requests of three tenants, always with the same numbers; it comes many times.
fn request(at: u64) -> Settlement {
    let sample = settlement(["acme", "bolt", "crow"][usize::try_from(at % 3).unwrap()], &format!("b-{at}"));
    Settlement { prompt_tokens: TokenCount(1_000 + at), settled_at: Timestamp(NEW_YEAR.0 + at % 5 * HOUR), ..sample }
}

/// Settles at random, as clients that lose answers and try again do, and keeps what was acknowledged.
fn settle_at_random(ledger: &Ledger, seed: u64, settles: u64) -> Bill {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut acknowledged = Bill::new();
    for _ in 0..settles {
        let settlement = request(random.random_range(0..400));
        match ledger.settle(settlement.clone()) {
            Ok(settled) => {
                let identity = (settled.record.tenant.to_string(), settled.record.billing_id.to_string());
                let before = acknowledged.insert(identity, settled.record.clone());
                assert!(before.is_none_or(|before| before == settled.record), "the first record stands");
                assert_eq!(settled.record.difference(&settlement), None, "an answer to this settle");
            }
            Err(SettleError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }
    acknowledged
}

fn merged(bills: Vec<Bill>) -> Bill {
    let mut all = Bill::new();
    for (identity, record) in bills.into_iter().flatten() {
        let before = all.insert(identity, record.clone());
        assert!(before.is_none_or(|before| before == record), "all askers hear of the same record");
    }
    all
}

fn billed(ledger: &Ledger) -> Bill {
    let records = ledger.records_after(0).unwrap();
    let count = records.len();
    let bill: Bill = records
        .into_iter()
        .map(|record| ((record.tenant.to_string(), record.billing_id.to_string()), record))
        .collect();
    assert_eq!(bill.len(), count, "no identity has two records");
    bill
}

#[test]
fn sixty_four_askers_that_repeat_and_race_are_billed_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for round in 0..3_u64 {
        let ledger = Ledger::open(folder.path()).unwrap();
        let settle = |seed: u64| settle_at_random(&ledger, round * 1_000 + seed, 20);
        let bills = thread::scope(|scope| {
            let askers: Vec<_> = (0..64).map(|seed| scope.spawn(move || settle(seed))).collect();
            askers.into_iter().map(|asker| asker.join().unwrap()).collect()
        });
        all.push(merged(bills));
        let acknowledged = merged(all.clone());
        assert_eq!(billed(&ledger), acknowledged);
        let audit = ledger.audit().unwrap();
        assert!(audit.clean(), "{:?}", audit.examples);
        let prompt_tokens = acknowledged.values().map(|record| record.counts.prompt).sum();
        let summary = ledger.summary(&UsageFilter::default()).unwrap();
        assert_eq!((summary.total.counts.prompt, summary.total), (prompt_tokens, audit.total));
        assert_eq!(summary.rows.iter().map(|row| row.usage.records).sum::<u64>(), acknowledged.len() as u64);
    }
}

/// A copy of the folder while settles go on is what a kill at that moment leaves.
#[test]
fn what_was_acknowledged_before_a_kill_is_billed_after_it() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = Ledger::open(folder.path()).unwrap();
    let before = settle_at_random(&ledger, 1, 50);
    thread::scope(|scope| {
        let ledger = &ledger;
        (2..10).for_each(|seed| drop(scope.spawn(move || settle_at_random(ledger, seed, 50))));
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    });
    let after = Ledger::open(copy.path()).unwrap();
    let audit = after.audit().unwrap();
    assert!(audit.clean(), "{:?}", audit.examples);
    let after = billed(&after);
    assert!(before.iter().all(|(identity, record)| after.get(identity) == Some(record)));
    let whole = billed(&ledger);
    assert!(after.iter().all(|(identity, record)| whole.get(identity) == Some(record)));
}

#[test]
fn sequences_go_on_after_a_reopen_and_the_receipt_key_stays() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let first = ledger.settle(settlement("acme", "b-1")).unwrap();
    assert_eq!((first.record.sequence, first.repeated), (1, false));
    let receipt = super::super::DeliveryReceipt {
        tenant: first.record.tenant.clone(),
        instance: first.record.instance.clone(),
        request_id: crate::vocab::RequestId::parse("r-1").unwrap(),
        fingerprint: first.record.fingerprint,
        delivered: first.record.delivered,
        since: NEW_YEAR,
        issued: NEW_YEAR,
        nonce: super::super::DeliveryReceipt::fresh_nonce(),
    };
    let signed = ledger.receipt_key().sign(&receipt);
    drop(ledger);
    let ledger = Ledger::open(folder.path()).unwrap();
    let again = ledger.settle(settlement("acme", "b-1")).unwrap();
    assert_eq!((again.record, again.repeated), (first.record, true));
    assert_eq!(ledger.settle(settlement("acme", "b-2")).unwrap().record.sequence, 2);
    assert_eq!(ledger.receipt_key().verify(&signed), Ok(receipt));
}

#[test]
fn a_repeat_needs_no_delivery_that_the_daemon_still_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let first = ledger.settle(settlement("acme", "b-1")).unwrap();
    let forgotten = Settlement { delivered: Default::default(), ..settlement("acme", "b-1") };
    assert_eq!(ledger.settle(forgotten), Ok(Settled { repeated: true, ..first }));
}

#[test]
fn other_numbers_for_the_same_identity_are_a_conflict_that_shows_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let first = ledger.settle(settlement("acme", "b-1")).unwrap().record;
    let other = Settlement { prompt_tokens: TokenCount(2_000), ..settlement("acme", "b-1") };
    let error = ledger.settle(other).unwrap_err();
    assert_eq!(
        error.to_string(),
        "b-1 was settled before with another prompt_tokens: the first record, sequence 1, stands"
    );
    assert_eq!(error, SettleError::Conflict { field: "prompt_tokens", first: Box::new(first) });
    assert_eq!(ledger.audit().unwrap().total.counts.prompt, 1_000);
}

#[test]
fn a_summary_narrows_by_tenant_namespace_and_hour() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    (0..30).for_each(|at| drop(ledger.settle(request(at)).unwrap()));
    let from = NEW_YEAR.hour();
    let records = |filter: UsageFilter| {
        let summary = ledger.summary(&filter).unwrap();
        (summary.total.records, summary.rows.len())
    };
    let acme = || TenantName::parse("acme").ok();
    assert_eq!(records(UsageFilter::default()), (30, 15));
    assert_eq!(records(UsageFilter { tenant: acme(), ..Default::default() }), (10, 5));
    assert_eq!(records(UsageFilter { from_hour: Some(from + 4), ..Default::default() }), (6, 3));
    assert_eq!(records(UsageFilter { tenant: acme(), until_hour: Some(from + 2), ..Default::default() }), (4, 2));
    let other = NamespaceName::parse("other").ok();
    assert_eq!(records(UsageFilter { namespace: other, ..Default::default() }), (0, 0));
    let hours: Vec<_> = ledger.summary(&UsageFilter::default()).unwrap().rows;
    assert!(hours.is_sorted_by_key(|row| (row.tenant.clone(), row.namespace.clone(), row.hour)));
}

#[test]
fn pages_of_records_follow_their_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    (0..5).for_each(|at| drop(ledger.settle(request(at)).unwrap()));
    let sequences =
        |after| -> Vec<_> { ledger.records_after(after).unwrap().into_iter().map(|record| record.sequence).collect() };
    assert_eq!(sequences(0), [1, 2, 3, 4, 5]);
    assert_eq!(sequences(3), [4, 5]);
    assert_eq!(sequences(5), [0; 0]);
    assert_eq!(sequences(u64::MAX), [0; 0]);
}

#[test]
fn what_exporters_acknowledge_only_grows_and_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    (0..5).for_each(|at| drop(ledger.settle(request(at)).unwrap()));
    assert_eq!(ledger.acknowledge(3), Ok(Acknowledged { through: 3, last: 5 }));
    assert_eq!(ledger.acknowledge(2), Ok(Acknowledged { through: 3, last: 5 }));
    assert_eq!(
        ledger.acknowledge(6).unwrap_err().to_string(),
        "through is 6, the last record is 5: acknowledge what was exported"
    );
    drop(ledger);
    assert_eq!(Ledger::open(folder.path()).unwrap().acknowledged(), 3);
}

#[test]
fn a_full_inbox_says_busy_at_once() {
    let (sender, receiver) = sync_channel(1);
    let inbox = Inbox(Some(sender), Arc::default());
    let offer = || {
        let (reply, mut answer) = oneshot::channel();
        inbox.offer(Job::Record(Box::new(Ask::Settle(settlement("acme", "b-1"))), reply));
        answer.try_recv()
    };
    assert!(offer().is_err(), "the first waits");
    assert_eq!(offer(), Ok(Err(SettleError::Busy)));
    drop(receiver);
    assert_eq!(offer(), Ok(Err(stopped())));
}

#[test]
fn what_waits_is_committed_before_the_ledger_closes() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    for at in 0..100 {
        let (reply, _asker_is_gone) = oneshot::channel();
        ledger.submit(request(at), reply);
    }
    drop(ledger);
    assert_eq!(billed(&Ledger::open(folder.path()).unwrap()).len(), 100);
}
