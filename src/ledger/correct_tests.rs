//! Claims about corrections on disk: idempotent, in the sums of the hour of what they correct, and proved by the audit.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::sync::oneshot;

use super::correction::Standing;
use super::sample::{NEW_YEAR, settlement};
use super::store::Rows;
use super::{
    Amendment, Counts, Ledger, LedgerOptions, SettleError, Settled, Truth, Usage, UsageFilter, UsageRecord,
    UsageSummary,
};
use crate::vocab::{BillingId, TenantName, Timestamp, TokenCount};

const DAY: u64 = 86_400_000;

fn amendment(billing_id: &str, corrects: &str, truth: Truth) -> Amendment {
    Amendment {
        tenant: TenantName::parse("acme").unwrap(),
        billing_id: BillingId::parse(billing_id).unwrap(),
        corrects: BillingId::parse(corrects).unwrap(),
        reason: "a test".to_owned(),
        truth,
        at: Timestamp(NEW_YEAR.0 + 3 * DAY),
    }
}

fn correct(ledger: &Ledger, amendment: Amendment) -> Result<Settled, SettleError> {
    let (reply, answer) = oneshot::channel();
    ledger.correct(amendment, reply);
    answer.blocking_recv().unwrap()
}

fn output(tokens: u64) -> Truth {
    Truth { output: Some(TokenCount(tokens)), ..Truth::default() }
}

fn summary(ledger: &Ledger) -> UsageSummary {
    ledger.summary(&UsageFilter::default()).unwrap()
}

fn clean(ledger: &Ledger) {
    let audit = ledger.audit().unwrap();
    assert!(audit.clean(), "{:?}", audit.examples);
    assert_eq!((audit.total, ledger.fill().counters.unwrap()), (summary(ledger).total, audit.total));
}

#[test]
fn a_correction_is_a_record_of_its_own_in_the_sums_of_the_hour_that_it_corrects() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let first = ledger.settle(settlement("acme", "b-1")).unwrap().record;
    let made = correct(&ledger, amendment("c-1", "b-1", output(60))).unwrap();
    assert_eq!((made.record.sequence, made.record.counts.output, made.repeated), (2, 10, false));
    let again = Settled { repeated: true, ..made };
    assert_eq!(correct(&ledger, amendment("c-1", "b-1", output(60))), Ok(again.clone()));
    correct(&ledger, amendment("c-2", "b-1", Truth::refund())).unwrap();
    assert_eq!(correct(&ledger, amendment("c-1", "b-1", output(60))), Ok(again.clone()), "though it stands no more");
    let sums = summary(&ledger);
    assert_eq!((sums.rows.len(), sums.rows[0].hour), (1, Some(NEW_YEAR.hour())), "and none in its own hour");
    assert_eq!((sums.total.records, sums.total.corrections, sums.total.counts), (1, 2, Counts::default()));
    assert_eq!(ledger.records_after(0).unwrap()[0], first, "nothing that was recorded changes");
    clean(&ledger);
    drop(ledger);
    let ledger = Ledger::open(folder.path()).unwrap();
    assert_eq!(correct(&ledger, amendment("c-1", "b-1", output(60))), Ok(again));
    assert!(ledger.settle(settlement("acme", "b-1")).unwrap().repeated, "a refund does not open the identity again");
    clean(&ledger);
}

#[test]
fn what_can_not_be_corrected_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    ledger.settle(settlement("acme", "b-1")).unwrap();
    ledger.settle(settlement("bolt", "b-2")).unwrap();
    correct(&ledger, amendment("c-1", "b-1", output(60))).unwrap();
    let refused = |billing_id: &str, corrects: &str, truth: Truth| {
        correct(&ledger, amendment(billing_id, corrects, truth)).unwrap_err().to_string()
    };
    assert!(refused("c-2", "b-2", output(1)).starts_with("corrects is b-2: nobody has settled it here"), "another's");
    assert!(refused("c-2", "c-1", output(1)).starts_with("corrects is c-1, which is itself a correction"));
    assert!(refused("c-2", "b-1", output(60)).starts_with("the correction changes nothing"));
    assert!(refused("c-1", "b-1", output(61)).starts_with("c-1 was settled before with another content"));
    assert_eq!(
        refused("b-1", "b-1", output(61)),
        "billing_id is b-1, which names a settled request (record 1): a correction needs a billing_id of its own"
    );
    assert_eq!(
        ledger.settle(settlement("acme", "c-1")).unwrap_err().to_string(),
        "billing_id is c-1, which names a correction of b-1 (record 3): a request needs a billing_id of its own"
    );
    assert_eq!(ledger.last_sequence(), Ok(3));
    clean(&ledger);
}

#[test]
fn settles_and_corrections_of_one_batch_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let (mut answers, many) = (Vec::new(), 20_u64);
    for at in 0..many {
        let (reply, answer) = oneshot::channel();
        ledger.submit(settlement("acme", &format!("b-{at}")), reply);
        answers.push(answer);
        for step in 1..=3 {
            let (reply, answer) = oneshot::channel();
            let truth = if step == 3 { Truth::refund() } else { output(50 + step) };
            ledger.correct(amendment(&format!("c-{at}-{step}"), &format!("b-{at}"), truth), reply);
            answers.push(answer);
        }
    }
    answers.into_iter().for_each(|answer| drop(answer.blocking_recv().unwrap().unwrap()));
    let total = summary(&ledger).total;
    assert_eq!((total.records, total.corrections, total.counts), (many, many * 3, Counts::default()));
    clean(&ledger);
}

#[test]
fn once_its_record_is_deleted_a_request_is_not_corrected_and_the_books_still_balance() {
    let folder = tempfile::tempdir().unwrap();
    let options = LedgerOptions { retention: Duration::ZERO, ..LedgerOptions::default() };
    let ledger = Ledger::open_with(folder.path(), options).unwrap();
    ledger.settle(settlement("acme", "b-1")).unwrap();
    correct(&ledger, amendment("c-1", "b-1", output(60))).unwrap();
    correct(&ledger, amendment("c-2", "b-1", output(40))).unwrap();
    let sweep = |through: u64, now: u64| {
        ledger.acknowledge(through).unwrap();
        let (swept, end) = oneshot::channel();
        ledger.sweep(Timestamp(now), swept);
        end.blocking_recv().unwrap()
    };
    assert_eq!(sweep(1, NEW_YEAR.0 + 9 * DAY), 1, "the request's own");
    clean(&ledger);
    assert!(matches!(correct(&ledger, amendment("c-3", "b-1", output(1))), Err(SettleError::NothingToCorrect(_))));
    assert!(correct(&ledger, amendment("c-2", "b-1", output(40))).unwrap().repeated);
    assert_eq!(sweep(3, NEW_YEAR.0 + 9 * DAY), 1, "a correction, too; the last record stays");
    clean(&ledger);
    assert_eq!((summary(&ledger).total.corrections, summary(&ledger).total.counts.output), (2, 40));
}

// The model: what each request comes to is what the last accepted truth says.
#[test]
fn whatever_is_settled_and_corrected_the_sums_are_what_was_said_last() {
    for seed in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut model: BTreeMap<u64, Counts> = BTreeMap::new();
        for step in 0..120 {
            let at = random.random_range(0..12_u64);
            let id = format!("b-{at}");
            if random.random_ratio(1, 3) {
                let record = ledger.settle(settlement("acme", &id)).unwrap().record;
                model.entry(at).or_insert(record.counts);
            } else {
                let cached = random.random_range(0..700_u64);
                let truth = Truth { cached: Some(TokenCount(cached)), ..output(random.random_range(0..3)) };
                let refund = random.random_ratio(1, 5);
                let truth = if refund { Truth::refund() } else { truth };
                if let Ok(Settled { record, .. }) = correct(&ledger, amendment(&format!("c-{step}"), &id, truth)) {
                    let counts = model.get_mut(&at).unwrap();
                    *counts += record.counts;
                    assert!(counts.is_of_usage() && counts.adds_up());
                    assert_eq!(counts.hit(), if refund { 0 } else { cached.cast_signed() });
                    assert!(cached <= 600 || refund, "no more than was delivered");
                }
            }
            if random.random_ratio(1, 40) {
                drop(ledger);
                ledger = Ledger::open(folder.path()).unwrap();
            }
        }
        let total = summary(&ledger).total;
        assert_eq!(total.records, model.len() as u64);
        assert!(total.corrections > 10);
        assert_eq!(total.counts, model.into_values().fold(Counts::default(), |sum, counts| sum + counts));
        clean(&ledger);
    }
}

#[test]
fn an_audit_finds_what_a_correction_does_not_add_up_to() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let first = ledger.settle(settlement("acme", "b-1")).unwrap().record;
    let made = correct(&ledger, amendment("c-1", "b-1", output(60))).unwrap().record;
    let found = |change: &dyn Fn(&mut Rows)| {
        let mut rows = Rows::default();
        change(&mut rows);
        ledger.store().write(rows).unwrap();
        ledger.audit().unwrap().examples
    };
    let (tenant, corrects) = (&first.tenant, &first.billing_id);
    let stands = Standing { counts: first.counts, ..Standing::of(&first) };
    let wrong = found(&|rows| rows.standing(tenant, corrects, &stands));
    assert!(wrong[0].starts_with("acme b-1 stands at"), "{wrong:?}");
    let mut right = Standing::of(&first);
    right.add(&made);
    assert_eq!(found(&|rows| rows.standing(tenant, corrects, &right)), [""; 0]);
    let uncounted = found(&|rows| rows.counters(&Usage::from(&first)));
    assert!(uncounted[0].starts_with("the counters say"), "{uncounted:?}");
    let absent = found(&|rows| rows.forget_counters());
    assert!(absent[0].starts_with("the counters say None"), "{absent:?}");
    let mut both = Usage::from(&first);
    both.add(&Usage::from(&made));
    assert_eq!(found(&|rows| rows.counters(&both)), [""; 0]);
    assert_eq!(ledger.fill().counters, Some(both));
    let more = UsageRecord { counts: made.counts + made.counts, ..made.clone() };
    let changed = found(&|rows| rows.record(&more, None));
    assert!(changed.iter().any(|words| words.starts_with("rollup ")), "{changed:?}");
    assert!(changed.iter().any(|words| words.starts_with("acme b-1 stands at")), "{changed:?}");
    let below = UsageRecord { counts: -first.counts, ..first.clone() };
    let below = found(&|rows| rows.record(&below, None));
    assert!(below.iter().any(|words| words.starts_with("record 1 is no correction, and counts less")), "{below:?}");
    assert!(below.iter().any(|words| words.starts_with("more was taken back from rollup")), "{below:?}");
}

/// As one of a version that did not count: what it has settled is told from the start, not from its next settle on.
#[test]
fn a_ledger_without_counters_counts_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    let mut sum = Usage::from(&ledger.settle(settlement("acme", "b-1")).unwrap().record);
    let mut rows = Rows::default();
    rows.forget_counters();
    ledger.store().write(rows).unwrap();
    assert_eq!(ledger.fill().counters, None);
    drop(ledger);
    let ledger = Ledger::open(folder.path()).unwrap();
    assert_eq!(ledger.fill().counters, Some(sum));
    sum.add(&Usage::from(&ledger.settle(settlement("acme", "b-2")).unwrap().record));
    assert_eq!(ledger.fill().counters, Some(sum));
    assert_eq!(ledger.audit().unwrap().examples, [""; 0]);
}
