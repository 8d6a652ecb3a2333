//! Delivery receipts: what this daemon delivered to a request, signed with a key that lives in its ledger, so that a
//! worker can bring it back after a restart has made the daemon forget.
//!
//! Presented twice a receipt is still one delivery: whoever adds deliveries up keeps one per nonce. It is bound to the tenant
//! that it names. The signature is a BLAKE3 keyed hash: it guards against mistakes and forgery by those without the key; it is
//! no public signature.

use std::fmt;

use super::codec::{DecodeError, Reader, Writer};
use super::record::Delivered;
use crate::vocab::{Fingerprint, InstanceId, RequestId, TenantName, Timestamp, TokenCount};

/// Version of a receipt's bytes. Version 1 named no tenant, and nobody knows which of them were billed: it is refused.
const VERSION: u8 = 2;
const KEY_ID_BYTES: usize = 8;
const MAC_BYTES: usize = 32;
/// Version, key id, fingerprint, five numbers, three words with their lengths, MAC.
const RECEIPT_BYTES_MAX: usize = 1 + KEY_ID_BYTES + 32 + 5 * 8 + 3 * 129 + MAC_BYTES;

/// What was delivered to a request up to the end of one fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryReceipt {
    /// Who pays.
    pub tenant: TenantName,
    /// The engine instance that fetched.
    pub instance: InstanceId,
    /// The request as that engine names it.
    pub request_id: RequestId,
    /// Which layout.
    pub fingerprint: Fingerprint,
    /// Tokens that were delivered, by tier.
    pub delivered: Delivered,
    /// When the first of them was delivered.
    pub since: Timestamp,
    /// When it was issued.
    pub issued: Timestamp,
    /// Its identity: see [`DeliveryReceipt::fresh_nonce`].
    pub nonce: u64,
}

/// Why bytes are no receipt of this daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// No receipt is so short or so long.
    #[error("a delivery receipt has at most {RECEIPT_BYTES_MAX} bytes and at least 41, this one has {0}")]
    Length(usize),
    /// Made by another version.
    #[error(
        "the delivery receipt has version {0}, this kvtier knows {VERSION}: leave it out, and settle with cached_tokens 0 what \
         nothing else proves"
    )]
    Version(u8),
    /// Made by a daemon with another ledger.
    #[error("the delivery receipt was issued by another daemon: settle where it was issued")]
    OtherDaemon,
    /// Not what was issued.
    #[error("the delivery receipt was changed after it was issued")]
    Changed,
    /// Issued for another request than the settle's.
    #[error("the delivery receipt was issued for another {0} than the settle names")]
    Of(&'static str),
    /// Signed by us, and still not readable: a mistake of ours.
    #[error("the delivery receipt can't be read: {0}")]
    Malformed(#[from] DecodeError),
}

/// A receipt among those of a settle that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("receipts[{at}]: {why}")]
pub struct ReceiptFlaw {
    /// Which of them.
    pub at: usize,
    /// What is wrong with it.
    pub why: ReceiptError,
}

/// Makes and checks the receipts of one ledger.
#[derive(Clone)]
pub struct ReceiptKey {
    key: [u8; 32],
    id: [u8; KEY_ID_BYTES],
}

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptKey(secret)")
    }
}

impl DeliveryReceipt {
    /// A nonce for a new receipt: random, since a counter would start again with the daemon.
    #[must_use]
    pub fn fresh_nonce() -> u64 {
        rand::random()
    }

    fn encode(&self, key_id: [u8; KEY_ID_BYTES]) -> Vec<u8> {
        Writer::default()
            .u8(VERSION)
            .raw(&key_id)
            .u64(self.nonce)
            .u64(self.since.0)
            .u64(self.issued.0)
            .u64(self.delivered.ram.get())
            .u64(self.delivered.nvme.get())
            .raw(&self.fingerprint.0)
            .word(self.tenant.as_str())
            .word(self.instance.as_str())
            .word(self.request_id.as_str())
            .finish()
    }
}

impl ReceiptKey {
    pub(super) fn new(key: [u8; 32]) -> Self {
        let hash = blake3::derive_key("kvtier 2026 delivery receipt key id", &key);
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&hash[..KEY_ID_BYTES]);
        Self { key, id }
    }

    /// What names the key and tells nothing of it.
    pub(super) fn name(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The receipt as opaque bytes for the worker.
    #[must_use]
    pub fn sign(&self, receipt: &DeliveryReceipt) -> Vec<u8> {
        let mut bytes = receipt.encode(self.id);
        let mac = blake3::keyed_hash(&self.key, &bytes);
        bytes.extend_from_slice(mac.as_bytes());
        bytes
    }

    /// Reads back bytes that [`ReceiptKey::sign`] made.
    ///
    /// # Errors
    /// When they were made by another daemon or version, or changed since.
    pub fn verify(&self, bytes: &[u8]) -> Result<DeliveryReceipt, ReceiptError> {
        let short = 1 + KEY_ID_BYTES + MAC_BYTES;
        if bytes.len() < short || bytes.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptError::Length(bytes.len()));
        }
        let (signed, mac) = bytes.split_at(bytes.len() - MAC_BYTES);
        let mut reader = Reader::new(signed);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(ReceiptError::Version(version));
        }
        if reader.array()? != self.id {
            return Err(ReceiptError::OtherDaemon);
        }
        // `blake3::Hash` compares in constant time.
        if blake3::keyed_hash(&self.key, signed) != *mac {
            return Err(ReceiptError::Changed);
        }
        Ok(read(reader)?)
    }
}

impl DeliveryReceipt {
    /// Whether it is of this request. Of whom it is else is nobody's business who holds it.
    ///
    /// # Errors
    /// Names the first that differs.
    pub fn check(
        &self,
        tenant: &TenantName,
        (instance, request_id): (&InstanceId, &RequestId),
        fingerprint: &Fingerprint,
    ) -> Result<(), ReceiptError> {
        [
            ("tenant", self.tenant == *tenant),
            ("instance", self.instance == *instance),
            ("request_id", self.request_id == *request_id),
            ("fingerprint", self.fingerprint == *fingerprint),
        ]
        .into_iter()
        .try_for_each(|(field, same)| if same { Ok(()) } else { Err(ReceiptError::Of(field)) })
    }
}

/// The part after version and key id.
fn read(mut reader: Reader<'_>) -> Result<DeliveryReceipt, DecodeError> {
    let (nonce, since, issued) = (reader.u64()?, Timestamp(reader.u64()?), Timestamp(reader.u64()?));
    let delivered = Delivered { ram: TokenCount(reader.u64()?), nvme: TokenCount(reader.u64()?) };
    let fingerprint = Fingerprint(reader.array()?);
    let tenant = reader.parsed(TenantName::parse)?;
    let instance = reader.parsed(InstanceId::parse)?;
    let request_id = reader.parsed(RequestId::parse)?;
    reader.end()?;
    Ok(DeliveryReceipt { tenant, instance, request_id, fingerprint, delivered, since, issued, nonce })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> DeliveryReceipt {
        DeliveryReceipt {
            tenant: TenantName::parse("acme").unwrap(),
            instance: InstanceId::parse("engine-1").unwrap(),
            request_id: RequestId::parse("request-1").unwrap(),
            fingerprint: Fingerprint([3; 32]),
            delivered: Delivered { ram: TokenCount(64), nvme: TokenCount(128) },
            since: Timestamp(1_700_000_000_000),
            issued: Timestamp(1_700_000_000_500),
            nonce: 0x0123_4567_89ab_cdef,
        }
    }

    #[test]
    fn a_receipt_comes_back_as_it_was_issued() {
        let key = ReceiptKey::new([1; 32]);
        assert_eq!(key.verify(&key.sign(&receipt())), Ok(receipt()));
    }

    #[test]
    fn the_longest_receipt_is_within_the_limit() {
        let long = "x".repeat(128);
        let (instance, request_id) = (InstanceId::parse(&long).unwrap(), RequestId::parse(&long).unwrap());
        let tenant = TenantName::parse(&long).unwrap();
        let (key, longest) = (ReceiptKey::new([1; 32]), DeliveryReceipt { tenant, instance, request_id, ..receipt() });
        assert_eq!(key.sign(&longest).len(), RECEIPT_BYTES_MAX);
        assert_eq!(key.verify(&key.sign(&longest)), Ok(longest));
    }

    #[test]
    fn a_change_of_any_bit_and_a_cut_at_any_length_are_refused() {
        let key = ReceiptKey::new([1; 32]);
        let bytes = key.sign(&receipt());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.verify(&changed).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(key.verify(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn an_error_says_whether_daemon_version_or_content_is_wrong() {
        let (ours, other) = (ReceiptKey::new([1; 32]), ReceiptKey::new([2; 32]));
        assert_eq!(ours.verify(&other.sign(&receipt())), Err(ReceiptError::OtherDaemon));
        let mut bytes = ours.sign(&receipt());
        bytes[0] = 9;
        assert_eq!(ours.verify(&bytes), Err(ReceiptError::Version(9)));
        bytes[0] = VERSION;
        bytes[30] ^= 1;
        assert_eq!(ours.verify(&bytes), Err(ReceiptError::Changed));
        assert_eq!(ours.verify(b"short"), Err(ReceiptError::Length(5)));
        assert_eq!(ours.verify(&[VERSION; 4096]), Err(ReceiptError::Length(4096)));
    }

    // Receipts outlive a restart and thus an upgrade: their bytes may change only with the version.
    #[test]
    fn the_bytes_are_pinned() {
        let bytes = ReceiptKey::new([1; 32]).sign(&receipt());
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "c84ddd64ffd7aaabcf8fe6c0e27502da5cd006014a910aac2e74f92a516969ae"
        );
    }

    #[test]
    fn a_receipt_is_its_tenants_its_instances_and_its_requests() {
        let check = |tenant: &str, instance: &str, request: &str, fingerprint| {
            let of = (&InstanceId::parse(instance).unwrap(), &RequestId::parse(request).unwrap());
            receipt().check(&TenantName::parse(tenant).unwrap(), of, &Fingerprint([fingerprint; 32]))
        };
        assert_eq!(check("acme", "engine-1", "request-1", 3), Ok(()));
        assert_eq!(check("bolt", "engine-1", "request-1", 3), Err(ReceiptError::Of("tenant")));
        assert_eq!(check("acme", "engine-2", "request-1", 3), Err(ReceiptError::Of("instance")));
        assert_eq!(check("acme", "engine-1", "request-2", 3), Err(ReceiptError::Of("request_id")));
        let error = check("acme", "engine-1", "request-1", 4).unwrap_err();
        assert_eq!(error.to_string(), "the delivery receipt was issued for another fingerprint than the settle names");
    }

    // It names no tenant, and a ledger of its days does not say which request was billed.
    #[test]
    fn a_receipt_of_the_first_version_proves_nothing_and_says_what_to_do() {
        let (key, first) = (ReceiptKey::new([1; 32]), include_bytes!("../../tests/fixtures/format-1.receipt"));
        let error = key.verify(first).unwrap_err();
        assert_eq!(error, ReceiptError::Version(1));
        assert_eq!(
            error.to_string(),
            "the delivery receipt has version 1, this kvtier knows 2: leave it out, and settle with cached_tokens 0 what \
             nothing else proves"
        );
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", ReceiptKey::new([1; 32])), "ReceiptKey(secret)");
    }
}
