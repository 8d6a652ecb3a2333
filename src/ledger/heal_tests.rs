//! Claims about a ledger whose writes fail for a while: what is refused, what is known after it, and that it goes on by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::faults::{Open, Write};
use super::sample::{NEW_YEAR, settlement};
use super::*;
use crate::vocab::{AccountName, ByteCount, NamespaceName, Quota, TenantName, TierQuota};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the ledger takes settles, and nobody settles meanwhile.
fn until_it_heals(ledger: &Ledger) {
    let started = Instant::now();
    while ledger.trouble().is_some() {
        assert!(started.elapsed() < PATIENCE, "{:?}", ledger.trouble());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn settle(ledger: &Ledger, billing_id: &str) -> Result<Settled, SettleError> {
    ledger.settle(settlement("acme", billing_id))
}

fn unavailable(answer: &Result<Settled, SettleError>) -> bool {
    matches!(answer, Err(SettleError::Unavailable(_)))
}

fn quota(bytes: u64) -> Quota {
    let nvme = TierQuota { share: ByteCount(bytes), limit: None };
    Quota { nvme, ..Quota::default() }
}

fn acme() -> AccountName {
    AccountName::Tenant(TenantName::parse("acme").unwrap())
}

// The two ways in which a write fails: nothing of it is on disk, or all of it.
#[test]
fn a_failed_settle_is_refused_and_once_the_ledger_has_healed_it_is_one_record() {
    for (how, is_there) in [(Write::Lost, false), (Write::Kept, true)] {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        settle(&ledger, "b-1").unwrap();
        ledger.store().faults().writes(how);
        assert!(unavailable(&settle(&ledger, "b-2")));
        assert!(unavailable(&settle(&ledger, "b-1")), "a repeat is refused, too: nothing rests on what is not known");
        assert!(ledger.trouble().unwrap().contains("told to fail by a test"));
        ledger.store().faults().writes(Write::Works);
        until_it_heals(&ledger);
        assert_eq!(settle(&ledger, "b-2").unwrap().repeated, is_there);
        assert_eq!(
            settle(&ledger, "b-3").unwrap().record.sequence,
            3,
            "no sequence is used twice, and none is left out"
        );
        assert!(settle(&ledger, "b-1").unwrap().repeated);
        let audit = ledger.audit().unwrap();
        assert!(audit.clean(), "{:?}", audit.examples);
        assert_eq!((audit.total.records, ledger.fill().counters), (3, Some(audit.total)));
        assert_eq!(ledger.fill().refused.unavailable, 2);
    }
}

#[test]
fn it_stays_refused_as_long_as_writes_fail_and_reads_go_on_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    settle(&ledger, "b-1").unwrap();
    ledger.store().faults().writes(Write::Lost);
    assert!(unavailable(&settle(&ledger, "b-2")));
    let started = Instant::now();
    // The writer has tried twice by then, and reads may find the database closed for a moment.
    while started.elapsed() < Duration::from_millis(500) {
        if let Ok(records) = ledger.records_after(0) {
            assert_eq!(records.len(), 1);
        }
        assert!(ledger.trouble().is_some());
    }
    ledger.store().faults().writes(Write::Works);
    until_it_heals(&ledger);
    settle(&ledger, "b-2").unwrap();
}

#[test]
fn one_that_can_not_be_opened_is_still_read_and_heals_later() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    settle(&ledger, "b-1").unwrap();
    ledger.store().faults().opens(Open::Refused);
    ledger.store().faults().writes(Write::Lost);
    assert!(unavailable(&settle(&ledger, "b-2")));
    ledger.store().faults().writes(Write::Works);
    let (started, refused) = (Instant::now(), || ledger.trouble().is_some_and(|why| why.contains("can't be opened")));
    while !(refused() && ledger.last_sequence() == Ok(1)) {
        assert!(started.elapsed() < PATIENCE, "{:?}", ledger.trouble());
    }
    assert!(unavailable(&settle(&ledger, "b-2")));
    ledger.store().faults().opens(Open::Works);
    until_it_heals(&ledger);
    assert_eq!(settle(&ledger, "b-2").unwrap().record.sequence, 2);
}

// An operator may be putting a copy in its place: opening it would delete what the copy does not name yet.
#[test]
fn a_damaged_one_stays_refused_and_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    settle(&ledger, "b-1").unwrap();
    ledger.store().faults().opens(Open::Damaged);
    ledger.store().faults().writes(Write::Lost);
    assert!(unavailable(&settle(&ledger, "b-2")));
    let started = Instant::now();
    while !ledger.trouble().is_some_and(|why| why.contains("unreadable")) {
        assert!(started.elapsed() < PATIENCE, "{:?}", ledger.trouble());
    }
    ledger.store().faults().writes(Write::Works);
    ledger.store().faults().opens(Open::Works);
    std::thread::sleep(Duration::from_secs(1));
    assert!(unavailable(&settle(&ledger, "b-2")), "it is not tried again");
    assert!(ledger.last_sequence().is_err());
    drop(ledger);
    let ledger = Ledger::open(folder.path()).unwrap();
    assert_eq!(ledger.last_sequence(), Ok(1), "what is there was left as it is");
}

#[test]
fn a_quota_that_could_not_be_kept_is_what_it_was_also_where_it_is_on_disk() {
    for how in [Write::Lost, Write::Kept] {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        ledger.set_quota(&acme(), quota(1)).unwrap();
        ledger.store().faults().writes(how);
        // Nobody settles: the writer hears of it all the same.
        assert!(ledger.set_quota(&acme(), quota(2)).is_err());
        ledger.store().faults().writes(Write::Works);
        until_it_heals(&ledger);
        assert_eq!(ledger.quotas().unwrap(), [(acme(), quota(1))]);
        ledger.set_quota(&acme(), quota(3)).unwrap();
        assert_eq!(ledger.quotas().unwrap(), [(acme(), quota(3))]);
    }
}

#[test]
fn acknowledgements_secrets_and_sweeps_that_fail_work_again_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    (0..5).for_each(|at| drop(settle(&ledger, &format!("b-{at}")).unwrap()));
    let heals = |ledger: &Ledger| {
        assert!(ledger.trouble().is_some());
        ledger.store().faults().writes(Write::Works);
        until_it_heals(ledger);
    };
    ledger.store().faults().writes(Write::Kept);
    assert!(ledger.acknowledge(3).is_err());
    heals(&ledger);
    assert_eq!(ledger.acknowledge(5).unwrap().through, 5);
    ledger.store().faults().writes(Write::Lost);
    assert!(ledger.kept_secret("a", || vec![1]).is_err());
    heals(&ledger);
    assert_eq!(ledger.kept_secret("a", || vec![2]).unwrap(), [2]);
    let sweep = |ledger: &Ledger| {
        let (swept, end) = oneshot::channel();
        ledger.sweep(NEW_YEAR + Duration::from_secs(400 * 86_400), swept);
        end.blocking_recv()
    };
    ledger.store().faults().writes(Write::Kept);
    assert!(sweep(&ledger).is_err(), "given up");
    heals(&ledger);
    assert_eq!(sweep(&ledger), Ok(0), "they are gone already, and their sums are kept once");
    let audit = ledger.audit().unwrap();
    assert!(audit.clean(), "{:?}", audit.examples);
    assert_eq!((audit.deleted, audit.total.records), (4, 5));
}

// What came in between two failed samples was not held since the last one that was counted.
#[test]
fn storage_is_never_charged_for_a_time_in_which_it_could_not_be_metered() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let key = || StorageKey { account: acme(), namespace: NamespaceName::parse("m").unwrap(), guaranteed: false };
    let sample = |minute: u64, tokens| {
        ledger.meter_storage(NEW_YEAR + Duration::from_secs(60 * minute), BTreeMap::from([(key(), tokens)]))
    };
    let sum = || ledger.storage(0..u32::MAX).unwrap().iter().map(|row| row.token_ms).sum::<u128>();
    assert_eq!((sample(0, 1), sample(1, 1)), (Ok(0), Ok(60_000)));
    ledger.store().faults().writes(Write::Lost);
    assert!(sample(2, 1_000).is_err());
    ledger.store().faults().writes(Write::Works);
    until_it_heals(&ledger);
    sample(3, 1_000).unwrap();
    assert!(sum() <= 60_000 + 60_000 * 1_000, "{}: 1,000 tokens were there from minute 2 on", sum());
    assert_eq!(sample(4, 1_000), Ok(60_000), "it goes on");
}

#[test]
fn a_full_one_says_so_and_is_no_trouble_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let options = LedgerOptions { bytes_max: ByteCount(1), ..LedgerOptions::default() };
    let ledger = Ledger::open_with(folder.path(), options).unwrap();
    assert!(matches!(settle(&ledger, "b-1"), Err(SettleError::Full { .. })));
    assert!(ledger.trouble().unwrap().contains("at most 1"));
    assert_eq!((ledger.fill().refused.full, ledger.fill().refused.unavailable), (1, 0));
}
