//! One moment of the database, for reads that belong together: exports, summaries, audits.

use rocksdb::{Direction, IteratorMode, Snapshot};

use super::codec::{DecodeError, Reader};
use super::correction::Standing;
use super::database::database;
use super::delivery::{Delivery, DeliveryKey};
use super::rollup::{RollupKey, Usage};
use super::store::{
    ACKNOWLEDGED_KEY, COUNTERS_KEY, DELETED, DELIVERY, DIVERGENCE, RECORD, ROLLUP, STANDING, identity, identity_key,
    keyed, named_of, row_error, secret_key, sequence_of,
};
use super::{Divergence, LedgerError, UsageRecord};
use crate::vocab::{BillingId, TenantName};

/// The moment.
pub(super) struct View<'a>(Snapshot<'a>);

/// A row without the kind in its key.
pub(super) type Row = (Box<[u8]>, Box<[u8]>);

impl<'s> View<'s> {
    pub(super) fn new(moment: Snapshot<'s>) -> Self {
        Self(moment)
    }

    /// Rows of a kind whose keys start with `prefix`, from `from` on, in order of their keys.
    pub(super) fn rows(
        &self,
        kind: u8,
        prefix: &[u8],
        from: &[u8],
    ) -> impl Iterator<Item = Result<Row, LedgerError>> + use<'s> {
        let prefix = keyed(kind, prefix);
        let start = keyed(kind, from).max(prefix.clone());
        self.0
            .iterator(IteratorMode::From(&start, Direction::Forward))
            .map(|row| row.map_err(|error| database("read", &error)))
            .take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix)))
            .map(|row| row.map(|(key, value)| (key[1..].into(), value)))
    }

    /// Records after a sequence, in order.
    pub(super) fn records(&self, after: u64) -> impl Iterator<Item = Result<UsageRecord, LedgerError>> + use<'s> {
        self.rows(RECORD, &[], &after.saturating_add(1).to_be_bytes()).map(|row| {
            let (key, value) = row?;
            let record = UsageRecord::decode(&value).map_err(|source| row_error("record", &key, source))?;
            if record.sequence.to_be_bytes() != *key {
                return Err(row_error("record", &key, DecodeError { what: "another record's sequence", at: 1 }));
            }
            Ok(record)
        })
    }

    /// Sums whose keys start with `prefix`, in order.
    pub(super) fn rollups(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(RollupKey, Usage), LedgerError>> + use<'s> {
        self.all_sums(ROLLUP, "rollup", prefix)
    }

    /// What was deleted of the sums.
    pub(super) fn deleted(&self) -> impl Iterator<Item = Result<(RollupKey, Usage), LedgerError>> + use<'s> {
        self.all_sums(DELETED, "deleted", &[])
    }

    fn all_sums(
        &self,
        kind: u8,
        name: &'static str,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(RollupKey, Usage), LedgerError>> + use<'s> {
        self.rows(kind, prefix, &[]).map(move |row| {
            let (key, value) = row?;
            let read = || Ok((RollupKey::decode(&key)?, Usage::decode(&value)?));
            read().map_err(|source| row_error(name, &key, source))
        })
    }

    /// Claims that were refused.
    pub(super) fn divergences(&self) -> impl Iterator<Item = Result<Divergence, LedgerError>> + use<'s> {
        self.rows(DIVERGENCE, &[], &[]).map(|row| {
            let (key, value) = row?;
            Divergence::decode(&key, &value).map_err(|source| row_error("divergence", &key, source))
        })
    }

    /// Sequence that an identity names.
    pub(super) fn identity(&self, record: &UsageRecord) -> Result<Option<u64>, LedgerError> {
        let key = identity_key(&record.tenant, &record.billing_id);
        let row = self.0.get(&key).map_err(|error| database("read", &error))?;
        Ok(row.map(|named| named_of(&named, &key)).transpose()?.map(|(sequence, _)| sequence))
    }

    /// The record of an identity of a tenant; nothing where there is none (any more).
    pub(super) fn find(&self, tenant: &TenantName, billing_id: &BillingId) -> Result<Option<UsageRecord>, LedgerError> {
        let key = identity_key(tenant, billing_id);
        let Some(named) = self.0.get(&key).map_err(|error| database("read", &error))? else { return Ok(None) };
        let (sequence, _) = named_of(&named, &key)?;
        self.records(sequence - 1).next().transpose().map(|record| record.filter(|record| record.sequence == sequence))
    }

    /// What a record comes to with its corrections, if it has any.
    pub(super) fn standing(&self, record: &UsageRecord) -> Result<Option<Standing>, LedgerError> {
        let key = identity(STANDING, &record.tenant, &record.billing_id);
        let row = self.0.get(&key).map_err(|error| database("read", &error))?;
        row.map(|row| Standing::decode(&row).map_err(|error| row_error("standing", &key, error))).transpose()
    }

    /// What is known of a delivery.
    pub(super) fn delivery(&self, key: &DeliveryKey) -> Result<Option<Delivery>, LedgerError> {
        let key = keyed(DELIVERY, &key.0);
        let row = self.0.get(&key).map_err(|error| database("read", &error))?;
        row.map(|row| Delivery::decode(&row).map_err(|error| row_error("delivery", &key, error))).transpose()
    }

    /// What is known of all deliveries.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = Result<(DeliveryKey, Delivery), LedgerError>> + use<'s> {
        self.rows(DELIVERY, &[], &[]).map(|row| {
            let (key, value) = row?;
            let wrong = || DecodeError { what: "a digest that is not 16 bytes", at: 1 };
            let read = || Ok((DeliveryKey(key.as_ref().try_into().map_err(|_| wrong())?), Delivery::decode(&value)?));
            read().map_err(|source| row_error("delivery", &key, source))
        })
    }

    /// Up to which sequence exporters have all records.
    pub(super) fn acknowledged(&self) -> Result<u64, LedgerError> {
        let row = self.0.get(ACKNOWLEDGED_KEY).map_err(|error| database("read", &error))?;
        row.map_or(Ok(0), |sequence| sequence_of(&sequence, "acknowledged", ACKNOWLEDGED_KEY))
    }

    /// What all records come to, as it was counted.
    pub(super) fn counters(&self) -> Result<Option<Usage>, LedgerError> {
        let row = self.0.get(COUNTERS_KEY).map_err(|error| database("read", &error))?;
        row.map(|row| Usage::decode(&row).map_err(|error| row_error("counters", COUNTERS_KEY, error))).transpose()
    }

    /// Bytes that are kept under a name.
    pub(super) fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        self.0.get(secret_key(name)).map_err(|error| database("read", &error))
    }

    /// What corrected records come to, by tenant and billing id.
    pub(super) fn standings(
        &self,
    ) -> impl Iterator<Item = Result<(TenantName, BillingId, Standing), LedgerError>> + use<'s> {
        self.rows(STANDING, &[], &[]).map(|row| {
            let (key, value) = row?;
            let read = || {
                let mut words = Reader::new(&key);
                let (tenant, corrects) = (words.terminated(TenantName::parse)?, words.rest(BillingId::parse)?);
                Ok((tenant, corrects, Standing::decode(&value)?))
            };
            read().map_err(|source| row_error("standing", &key, source))
        })
    }
}
