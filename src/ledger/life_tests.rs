//! Claims about how long the ledger keeps what, and how much it takes: deletion, the window of repeats, the bound.

use std::path::Path;

use super::sample::{NEW_YEAR, settlement};
use super::*;
use crate::vocab::limits::{LEDGER_SWEEP_RECORDS, LEDGER_WINDOW};
use crate::vocab::{ByteCount, TokenCount};
use std::time::Duration;
use tokio::sync::oneshot;

const DAY: Duration = Duration::from_secs(86_400);

fn open(path: &Path, bytes_max: u64, retention: Duration) -> Ledger {
    Ledger::open_with(path, LedgerOptions { bytes_max: ByteCount(bytes_max), retention }).unwrap()
}

fn settle(ledger: &Ledger, at: u64) -> Result<Settled, SettleError> {
    let tenant = ["acme", "bolt"][usize::from(at.is_multiple_of(3))];
    ledger.settle(Settlement {
        // One a minute.
        settled_at: NEW_YEAR + Duration::from_secs(60 * at),
        prompt_tokens: TokenCount(1_000 + at),
        ..settlement(tenant, &format!("b-{at}"))
    })
}

/// Delivered and settled when the other records of a test are old.
fn of_today(tenant: &str, billing_id: &str) -> Settlement {
    let today = NEW_YEAR + 10 * DAY;
    Settlement { delivered_since: today, settled_at: today, ..settlement(tenant, billing_id) }
}

fn sweep(ledger: &Ledger, now: crate::vocab::Timestamp) -> u64 {
    let (swept, end) = oneshot::channel();
    ledger.sweep(now, swept);
    end.blocking_recv().unwrap()
}

fn sequences(ledger: &Ledger, after: u64) -> Vec<u64> {
    ledger.records_after(after).unwrap().into_iter().map(|record| record.sequence).collect()
}

#[test]
fn records_go_once_they_are_acknowledged_and_old_and_their_sums_stay() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), u64::MAX, 3 * DAY);
    (0..100).for_each(|at| drop(settle(&ledger, at).unwrap()));
    let before = ledger.summary(&UsageFilter::default()).unwrap();
    let after_fifty = NEW_YEAR + 3 * DAY + Duration::from_secs(60 * 49);
    assert_eq!(sweep(&ledger, after_fifty), 0, "nobody has them");
    ledger.acknowledge(40).unwrap();
    assert_eq!(sweep(&ledger, NEW_YEAR + 2 * DAY), 0, "they are young");
    assert_eq!(sweep(&ledger, after_fifty), 40, "as far as they are acknowledged");
    ledger.acknowledge(100).unwrap();
    assert_eq!(sweep(&ledger, after_fifty), 10, "as far as they are old");
    assert_eq!(sequences(&ledger, 50), (51..=100).collect::<Vec<_>>());
    let check = |ledger: &Ledger, deleted| {
        let audit = ledger.audit().unwrap();
        assert!(audit.clean(), "{:?}", audit.examples);
        assert_eq!((audit.deleted, audit.identities, audit.total.records), (deleted, 100 - deleted, 100));
        assert_eq!(ledger.summary(&UsageFilter::default()).unwrap(), before);
    };
    check(&ledger, 50);
    drop(ledger);
    let ledger = open(folder.path(), u64::MAX, 3 * DAY);
    check(&ledger, 50);
    assert_eq!(sweep(&ledger, NEW_YEAR + 100 * DAY), 49, "the last one says which sequence is the next");
    check(&ledger, 99);
    drop(ledger);
    let ledger = open(folder.path(), u64::MAX, 3 * DAY);
    assert_eq!(ledger.settle(of_today("acme", "new")).unwrap().record.sequence, 101);
}

#[test]
fn a_cursor_before_what_was_deleted_is_told_where_to_begin() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), u64::MAX, 3 * DAY);
    (0..10).for_each(|at| drop(settle(&ledger, at).unwrap()));
    ledger.acknowledge(4).unwrap();
    sweep(&ledger, NEW_YEAR + 4 * DAY);
    assert_eq!(sequences(&ledger, 4), [5, 6, 7, 8, 9, 10]);
    for after in [0, 3] {
        let error = ledger.records_after(after).unwrap_err();
        assert_eq!(error, LedgerError::Deleted { after, through: 4 });
        assert!(error.to_string().starts_with(&format!("after is {after}, it must be at least 4: ")), "{error}");
    }
}

// Whatever was asked for, a settle can be repeated for 48 hours, and for as long as its record is not acknowledged.
#[test]
fn the_window_of_repeats_never_shrinks() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), u64::MAX, Duration::ZERO);
    (0..3).for_each(|at| drop(settle(&ledger, at).unwrap()));
    ledger.acknowledge(1).unwrap();
    assert_eq!(sweep(&ledger, NEW_YEAR + (LEDGER_WINDOW - Duration::from_secs(1))), 0);
    assert!(settle(&ledger, 0).unwrap().repeated);
    assert_eq!(sweep(&ledger, NEW_YEAR + 100 * DAY), 1);
    assert!(settle(&ledger, 1).unwrap().repeated, "it is not acknowledged");
    assert_eq!(sweep(&ledger, crate::vocab::Timestamp(0)), 0, "a clock that goes backwards makes nothing old");
}

/// Settles `b-0` to the one before `b-many`, a batch at a time; the last sequence.
fn settle_many(ledger: &Ledger, many: u64) -> u64 {
    for at in 0..many {
        let (reply, answer) = oneshot::channel();
        ledger.submit(settlement("acme", &format!("b-{at}")), reply);
        if at % 256 == 0 {
            answer.blocking_recv().unwrap().unwrap();
        }
    }
    ledger.settle(settlement("acme", "last")).unwrap().record.sequence
}

#[test]
fn a_full_ledger_gets_the_room_of_what_goes_back_and_takes_settles_again() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), u64::MAX, DAY);
    let last = settle_many(&ledger, 20_000);
    ledger.acknowledge(last).unwrap();
    drop(ledger);
    // Opened anew, all is in tables and nothing in the log.
    let before = open(folder.path(), u64::MAX, DAY).fill().bytes;
    let ledger = open(folder.path(), before / 2, DAY);
    assert!(matches!(ledger.settle(settlement("bolt", "b-1")), Err(SettleError::Full { .. })));
    assert_eq!(sweep(&ledger, NEW_YEAR + 10 * DAY), last - 1);
    // Closing waits for the compaction.
    drop(ledger);
    let ledger = open(folder.path(), before / 2, DAY);
    let after = ledger.fill().bytes;
    assert!(after < before / 2, "{after} of {before} bytes are left");
    assert_eq!(ledger.settle(of_today("bolt", "b-1")).unwrap().record.sequence, last + 1);
}

#[test]
fn a_long_sweep_goes_on_in_steps_between_settles() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), u64::MAX, DAY);
    let many = LEDGER_SWEEP_RECORDS as u64 * 2 + 7;
    let last = settle_many(&ledger, many);
    ledger.acknowledge(last).unwrap();
    let (swept, end) = oneshot::channel();
    ledger.sweep(NEW_YEAR + 10 * DAY, swept);
    for at in 0..20 {
        ledger.settle(of_today("bolt", &format!("b-{at}"))).unwrap();
    }
    assert_eq!(end.blocking_recv(), Ok(last), "all that were acknowledged; one that is newer says what follows");
    let audit = ledger.audit().unwrap();
    assert!(audit.clean(), "{:?}", audit.examples);
    assert_eq!((audit.deleted, audit.identities), (last, 20));
}

#[test]
fn at_its_bound_new_settles_are_refused_and_repeats_get_their_first_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let first = settle(&open(folder.path(), u64::MAX, DAY), 1).unwrap();
    let ledger = open(folder.path(), 1, DAY);
    assert_eq!(ledger.fill().bytes_max, 1);
    let error = settle(&ledger, 2).unwrap_err();
    assert!(matches!(error, SettleError::Full { bound: 1, .. }), "{error}");
    assert!(error.to_string().contains("new settles are refused until records are exported"), "{error}");
    assert_eq!(settle(&ledger, 1), Ok(Settled { repeated: true, ..first.clone() }));
    let other = Settlement { output_tokens: TokenCount(51), ..settlement("acme", "b-1") };
    assert!(matches!(ledger.settle(other), Err(SettleError::Conflict { .. })));
    drop(ledger);
    assert_eq!(settle(&open(folder.path(), u64::MAX, DAY), 2).unwrap().record.sequence, first.record.sequence + 1);
}

#[test]
fn a_claim_of_more_than_was_delivered_is_refused_and_told_by_the_audit() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), u64::MAX, DAY);
    let claims = |tenant: &str, billing_id: &str, claimed| {
        let settled =
            ledger.settle(Settlement { cached_tokens: TokenCount(claimed), ..settlement(tenant, billing_id) });
        settled.map(|settled| settled.record.hit_tokens().get())
    };
    assert!(claims("acme", "b-1", 650).is_err());
    assert!(claims("acme", "b-1", 650).is_err(), "tried again, it is one");
    assert!(claims("acme", "b-2", 601).is_err());
    assert_eq!(claims("acme", "b-1", 600), Ok(600), "settled in the end");
    assert_eq!(claims("bolt", "b-1", 100), Ok(100));
    let check = |ledger: &Ledger| {
        let audit = ledger.audit().unwrap();
        assert!(audit.clean(), "{:?}", audit.examples);
        let found = audit.divergences;
        let sums = |of: &std::collections::BTreeMap<crate::vocab::TenantName, Diverging>| {
            of.iter().map(|(tenant, of)| (tenant.to_string(), of.requests, of.tokens)).collect::<Vec<_>>()
        };
        assert_eq!(sums(&found.overclaimed), [("acme".to_owned(), 2, 51)]);
        assert_eq!(sums(&found.unclaimed), [("bolt".to_owned(), 1, 500)]);
        assert_eq!(found.largest.iter().map(Divergence::tokens).collect::<Vec<_>>(), [500, 50, 1]);
        assert_eq!((audit.total.records, audit.total.counts.hit()), (2, 700));
    };
    check(&ledger);
    drop(ledger);
    check(&open(folder.path(), u64::MAX, DAY));
}

#[test]
fn what_was_deleted_is_proved_by_what_was_exported() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), u64::MAX, 3 * DAY);
    (0..100).for_each(|at| drop(settle(&ledger, at).unwrap()));
    let exported = ledger.records_after(0).unwrap();
    ledger.acknowledge(100).unwrap();
    assert_eq!(sweep(&ledger, NEW_YEAR + 3 * DAY + Duration::from_secs(60 * 39)), 40);
    let compared = |records: &[UsageRecord]| {
        let mut exports = ledger.compare_exports().unwrap();
        let deleted = records.iter().filter(|record| exports.add(record).unwrap()).count();
        (deleted, exports.finish().unwrap())
    };
    let (deleted, found) = compared(&exported);
    assert_eq!((deleted, found.same, found.deleted, found.missing, found.differences), (40, 60, 40, 0, 0));
    let twice = compared(&[&exported[..], &exported[..]].concat()).1;
    assert_eq!((twice.repeated, twice.differences), (100, 0));
    let (_, short) = compared(&exported[3..]);
    assert_eq!(short.missing, 3, "{:?}", short.examples);
    assert!(short.differences > 0 && short.examples[0].contains("was deleted, and"), "{:?}", short.examples);
    let mut changed = exported.clone();
    changed[50].counts.output += 1;
    changed[10].counts.output += 1;
    let found = compared(&changed).1;
    assert_eq!((found.missing, found.differences), (0, 2), "{:?}", found.examples);
    assert!(found.examples[0].starts_with("record 51 (acme b-50) was exported with"), "{:?}", found.examples);
    let more = UsageRecord { sequence: 200, ..exported[50].clone() };
    let found = compared(&[&exported[..], &[more]].concat()).1;
    assert_eq!(found.examples, ["record 200 was exported, and the ledger has none of it"]);
}

#[test]
fn an_audit_finds_cursors_and_storage_where_they_can_not_be() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path(), u64::MAX, DAY);
    (0..3).for_each(|at| drop(settle(&ledger, at).unwrap()));
    let found = |change: &dyn Fn(&mut store::Rows)| {
        let mut rows = store::Rows::default();
        change(&mut rows);
        ledger.store().write(rows).unwrap();
        ledger.audit().unwrap().examples
    };
    assert_eq!(found(&|rows| rows.acknowledged(3)), [""; 0]);
    assert_eq!(found(&|rows| rows.acknowledged(4)), ["records up to 4 are acknowledged, the last is 3"]);
    assert_eq!(found(&|rows| rows.acknowledged(3)), [""; 0]);
    let held = || {
        let account = crate::vocab::AccountName::Tenant(crate::vocab::TenantName::parse("acme").unwrap());
        let namespace = crate::vocab::NamespaceName::parse("m").unwrap();
        [(StorageKey { account, namespace, guaranteed: false }, 10)].into()
    };
    ledger.meter_storage(NEW_YEAR, held()).unwrap();
    ledger.meter_storage(NEW_YEAR + Duration::from_secs(60), held()).unwrap();
    let audit = ledger.audit().unwrap();
    assert_eq!((audit.differences, audit.storage_hours), (0, 1));
    let ahead = found(&|rows| rows.secret("storage until", &NEW_YEAR.0.to_le_bytes()));
    assert!(ahead[0].starts_with("storage is counted up to 1704067200000 ms, and there is"), "{ahead:?}");
}
