//! The bytes of a record. Version 1 ends with the labels; version 2 goes on with what a settle says beside its counts;
//! version 3, which only corrections have, with what makes it one. Versions 4 (a settle's) and 5 (a correction's) are 2 and
//! 3 with the engine's name of the request after the detail.

use std::collections::BTreeMap;

use super::codec::{DecodeError, Reader, Writer};
use super::counts::count;
use super::{Correction, Counts, Delivered, UsageRecord};
use crate::vocab::{
    ApiKeyId, BillingId, ClassName, Fingerprint, FinishReason, InstanceId, NamespaceName, NodeRole, RequestId,
    TenantName, Timestamp, TokenCount, UsageDetail, UserName, WordError,
};

/// Version of a correction's bytes.
const CORRECTION: u8 = 5;
/// Version of a settle's bytes.
const SETTLE: u8 = 4;
/// The ones before, of which rows are kept and read: without the engine's name of the request, and without detail.
const OLD_CORRECTION: u8 = 3;
const OLD_SETTLE: u8 = 2;
const WITHOUT_DETAIL: u8 = 1;

impl UsageRecord {
    /// The bytes of its row. The sequence is in the row's key and here, so that an exported row stands alone.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = Writer::default()
            .u8(match (&self.request_id, &self.correction) {
                (Some(_), None) => SETTLE,
                (Some(_), Some(_)) => CORRECTION,
                (None, None) => OLD_SETTLE,
                (None, Some(_)) => OLD_CORRECTION,
            })
            .u64(self.sequence)
            .u64(self.settled_at.0)
            .u32(self.attempt)
            .raw(&self.fingerprint.0);
        for word in [self.tenant.as_str(), self.billing_id.as_str(), self.instance.as_str(), self.namespace.as_str()] {
            row = row.word(word);
        }
        row = self.counts.encode(row);
        row = row.u8(length(self.labels.len()));
        for (label, value) in &self.labels {
            row = row.word(label).word(value);
        }
        let mut row = self.encode_detail(row);
        if let Some(request_id) = &self.request_id {
            row = row.word(request_id.as_str());
        }
        match &self.correction {
            Some(correction) => correction.encode(row),
            None => row,
        }
        .finish()
    }

    fn encode_detail(&self, row: Writer) -> Writer {
        let UsageDetail { user, api_key, finish, role, written_by_class, preempted_tokens } = &self.detail;
        let mut row = row
            .word(user.as_ref().map_or("", UserName::as_str))
            .word(api_key.as_ref().map_or("", ApiKeyId::as_str))
            .u8(finish.code())
            .u8(role.code())
            .u64(preempted_tokens.get())
            .u64(self.delivered.ram.get())
            .u64(self.delivered.nvme.get())
            .u8(length(written_by_class.len()));
        for (class, tokens) in written_by_class {
            row = row.word(class.as_str()).u64(tokens.get());
        }
        row
    }

    /// Reads a row.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut row = Reader::new(bytes);
        let version = row.u8()?;
        if !(WITHOUT_DETAIL..=CORRECTION).contains(&version) {
            return Err(DecodeError { what: "a record version that this kvtier does not know", at: 0 });
        }
        let mut record = Self::decode_counts(&mut row)?;
        if version > WITHOUT_DETAIL {
            record.decode_detail(&mut row)?;
        }
        if version >= SETTLE {
            record.request_id = Some(row.parsed(RequestId::parse)?);
        }
        if matches!(version, OLD_CORRECTION | CORRECTION) {
            record.correction = Some(Correction::decode(&mut row)?);
        }
        row.end()?;
        Ok(record)
    }

    fn decode_counts(row: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (sequence, settled_at, attempt) = (row.u64()?, Timestamp(row.u64()?), row.u32()?);
        let fingerprint = Fingerprint(row.array()?);
        let tenant = row.parsed(TenantName::parse)?;
        let billing_id = row.parsed(BillingId::parse)?;
        let instance = row.parsed(InstanceId::parse)?;
        let namespace = row.parsed(NamespaceName::parse)?;
        let counts = Counts::decode(row)?;
        let mut labels = BTreeMap::new();
        for _ in 0..row.u8()? {
            labels.insert(row.word()?.to_owned(), row.word()?.to_owned());
        }
        Ok(Self {
            sequence,
            tenant,
            billing_id,
            attempt,
            instance,
            request_id: None,
            fingerprint,
            namespace,
            settled_at,
            counts,
            labels,
            detail: UsageDetail::default(),
            // What was delivered beyond the hit was not kept then.
            delivered: Delivered { ram: count(counts.hit_ram), nvme: count(counts.hit_nvme) },
            correction: None,
        })
    }

    fn decode_detail(&mut self, row: &mut Reader<'_>) -> Result<(), DecodeError> {
        let (user, api_key) = (optional(row, UserName::parse)?, optional(row, ApiKeyId::parse)?);
        let finish = FinishReason::of_code(row.u8()?).ok_or_else(|| row.fail("an unknown finish reason"))?;
        let role = NodeRole::of_code(row.u8()?).ok_or_else(|| row.fail("an unknown role"))?;
        let preempted_tokens = TokenCount(row.u64()?);
        self.delivered = Delivered { ram: TokenCount(row.u64()?), nvme: TokenCount(row.u64()?) };
        let mut written_by_class = BTreeMap::new();
        for _ in 0..row.u8()? {
            written_by_class.insert(row.parsed(ClassName::parse)?, TokenCount(row.u64()?));
        }
        self.detail = UsageDetail { user, api_key, finish, role, written_by_class, preempted_tokens };
        Ok(())
    }
}

/// Lists of this room are checked to be short before they get here.
fn length(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

/// A word that may be absent.
fn optional<T>(row: &mut Reader<'_>, parse: fn(&str) -> Result<T, WordError>) -> Result<Option<T>, DecodeError> {
    row.parsed(|word| if word.is_empty() { Ok(None) } else { parse(word).map(Some) })
}

#[cfg(test)]
mod tests {
    use super::super::Settlement;
    use super::super::sample::settlement;
    use super::*;

    const HEAD: &str = "090000000000000000f451c28c01000001000000";
    const WORDS: &str = "0461636d6503622d3108656e67696e652d31056d6f64656c";
    const NUMBERS: &str = "e803000000000000f40100000000000064000000000000004000000000000000\
        500100000000000040010000000000003200000000000000";
    const LABELS: &str = "0105636c617373056261746368";
    const DETAIL: &str = "0175036b6579030130000000000000\
        00f401000000000000640000000000000002023168100000000000000002356d2000000000000000";

    fn detailed() -> UsageRecord {
        let class = |name: &str, tokens| (ClassName::parse(name).unwrap(), TokenCount(tokens));
        let detail = UsageDetail {
            user: UserName::parse("u").ok(),
            api_key: ApiKeyId::parse("key").ok(),
            finish: FinishReason::Aborted,
            role: NodeRole::Prefill,
            written_by_class: [class("1h", 16), class("5m", 32)].into(),
            preempted_tokens: TokenCount(48),
        };
        UsageRecord::of(Settlement { detail, ..settlement("acme", "b-1") }, 9).unwrap()
    }

    fn unhex(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    // The bytes of records are read by every later version: they may change only with the version.
    #[test]
    fn the_bytes_of_a_record_are_pinned() {
        let hex: String = detailed().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let request = "05722d622d31";
        assert_eq!(hex, ["04", HEAD, &"07".repeat(32), WORDS, NUMBERS, LABELS, DETAIL, request].concat());
    }

    // An audit compares what was exported with what is there, by bytes.
    #[test]
    fn a_record_of_the_second_version_reads_as_one_of_an_unnamed_request_and_keeps_its_bytes() {
        let bytes = unhex(&["02", HEAD, &"07".repeat(32), WORDS, NUMBERS, LABELS, DETAIL].concat());
        let expected = UsageRecord { request_id: None, ..detailed() };
        assert_eq!(UsageRecord::decode(&bytes), Ok(expected.clone()));
        assert_eq!(expected.encode(), bytes);
    }

    #[test]
    fn a_record_of_the_first_version_reads_as_one_without_detail() {
        let bytes = unhex(&["01", HEAD, &"07".repeat(32), WORDS, NUMBERS, LABELS].concat());
        let expected = UsageRecord::of(settlement("acme", "b-1"), 9).unwrap();
        assert_eq!(UsageRecord::decode(&bytes), Ok(UsageRecord { request_id: None, ..expected }));
    }

    #[test]
    fn the_bytes_of_a_correction_are_pinned() {
        let correction = Correction {
            corrects: BillingId::parse("b-0").unwrap(),
            used_at: Timestamp(5),
            reason: "twice".to_owned(),
            written_by_class: [(ClassName::parse("1h").unwrap(), -16)].into(),
        };
        let record = UsageRecord { counts: -detailed().counts, correction: Some(correction), ..detailed() };
        let bytes = record.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(hex.starts_with(&["05", HEAD].concat()));
        assert!(
            hex.ends_with("03622d300500000000000000057477696365010231 68f0ffffffffffffff".replace(' ', "").as_str())
        );
        assert_eq!(UsageRecord::decode(&bytes).as_ref(), Ok(&record));
        assert!(UsageRecord::decode(&bytes[..bytes.len() - 1]).is_err());
        let unnamed = UsageRecord { request_id: None, ..record };
        assert_eq!(unnamed.encode()[0], 3);
        assert_eq!(UsageRecord::decode(&unnamed.encode()), Ok(unnamed));
    }

    #[test]
    fn a_row_of_an_unknown_version_or_code_is_an_error() {
        let bytes = detailed().encode();
        for (at, byte) in [(0, 0), (0, 6), (at_of_codes(&bytes), 6), (at_of_codes(&bytes) + 1, 3)] {
            let mut changed = bytes.clone();
            changed[at] = byte;
            assert!(UsageRecord::decode(&changed).is_err(), "byte {at} is {byte}");
        }
        assert_eq!(UsageRecord::decode(&bytes), Ok(detailed()));
    }

    fn at_of_codes(bytes: &[u8]) -> usize {
        bytes.windows(3).position(|window| window == b"key").unwrap() + 3
    }
}
