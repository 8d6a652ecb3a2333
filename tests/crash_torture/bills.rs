//! Every settle that was acknowledged, and whether the ledger says the same after a crash: there, once, with its numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kvtier::client::{Client, FetchEnd, Settle, UsageFilter, UsageRecord};
use kvtier::ledger::Ledger;
use kvtier::vocab::{BillingId, InstanceId, RequestId, TenantName};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::prompts::Prompt;

/// Settles of earlier rounds that are sent again in each round.
const OLD_ONES: usize = 8;

/// An acknowledged settle.
#[derive(Clone, Debug)]
pub(crate) struct Bill {
    pub(crate) settle: Settle,
    pub(crate) record: UsageRecord,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Bills {
    pub(crate) all: Vec<Bill>,
}

/// What a fetch is billed as. Its receipt proves the delivery to a daemon that has forgotten it.
pub(crate) fn settle(
    prompt: &Prompt,
    tenant: &TenantName,
    instance: &str,
    request: &RequestId,
    end: &FetchEnd,
) -> Settle {
    Settle {
        tenant: tenant.clone(),
        billing_id: BillingId::parse(&format!("{instance}-{}", request.as_str())).unwrap(),
        attempt: 0,
        instance: InstanceId::parse(instance).unwrap(),
        request_id: request.clone(),
        fingerprint: prompt.fingerprint,
        prompt_tokens: prompt.tokens(),
        cached_tokens: end.tokens,
        attested_tokens: 0,
        written_tokens: 0,
        output_tokens: 7,
        receipts: vec![end.receipt.clone()],
        labels: BTreeMap::new(),
        detail: kvtier::vocab::UsageDetail::default(),
    }
}

impl Bills {
    /// Sends the settles of the round that ended, and some older ones, again: those acknowledged give their first record;
    /// those that the kill left in doubt were written or are now, and count from here on.
    pub(crate) async fn present_again(
        &mut self,
        client: &Client,
        settled: Vec<Bill>,
        in_doubt: Vec<Settle>,
        random: &mut SmallRng,
    ) {
        let old = (0..OLD_ONES.min(self.all.len())).map(|_| random.random_range(0..self.all.len()));
        let old: Vec<Bill> = old.map(|at| self.all[at].clone()).collect();
        for Bill { settle, record } in settled.iter().chain(&old) {
            let again = client.settle(settle).await.expect("what was settled can be settled again");
            assert!(again.repeated, "acknowledged and not there: {record:?}, now {:?}", again.record);
            assert_eq!(again.record, *record, "another record under the same billing id");
        }
        self.all.extend(settled);
        for settle in in_doubt {
            let first = client.settle(&settle).await.expect("in doubt, and can be settled").record;
            let again = client.settle(&settle).await.expect("settled, and can be settled again");
            assert!(again.repeated && again.record == first, "{first:?}, then {again:?}");
            self.all.push(Bill { settle, record: first });
        }
    }

    /// The daemon's sums are those of the acknowledged records: none is missing, none is there twice.
    pub(crate) async fn compare_sums(&self, client: &Client) {
        let total = client.summarize_usage(&UsageFilter::default()).await.unwrap().total.unwrap_or_default();
        let sum = |tokens: fn(&UsageRecord) -> i64| {
            self.all.iter().map(|bill| tokens(&bill.record)).sum::<i64>().unsigned_abs()
        };
        let expected = (
            self.all.len() as u64,
            sum(|record| record.prompt_tokens),
            sum(|record| record.hit_tokens),
            sum(|record| record.miss_tokens),
        );
        let found = (total.records, total.prompt_tokens, total.hit_tokens, total.miss_tokens);
        assert_eq!(found, expected, "records, prompt, hit and miss tokens");
    }

    /// Reads the ledger itself: each acknowledged settle is one record, there is no other, and it agrees with itself.
    pub(crate) fn compare_records(&self, ledger: &Path) {
        let ledger = Ledger::open(ledger).unwrap();
        let audit = ledger.audit().unwrap();
        assert!(audit.clean(), "{audit:?}");
        let (mut found, mut sequence) = (BTreeSet::new(), 0);
        loop {
            let page = ledger.records_after(sequence).unwrap();
            let Some(last) = page.last() else { break };
            sequence = last.sequence;
            for record in page {
                let identity = (record.tenant.to_string(), record.billing_id.to_string());
                assert!(found.insert(identity), "settled twice: {record:?}");
            }
        }
        let identity = |bill: &Bill| (bill.record.tenant.clone(), bill.record.billing_id.clone());
        let expected: BTreeSet<_> = self.all.iter().map(identity).collect();
        assert!(found == expected, "{} records, {} acknowledged", found.len(), expected.len());
    }
}
