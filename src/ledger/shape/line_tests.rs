//! Claims of kvtier's own shape: exact in both directions, and refusals that name the field.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Rules, Shape, shaped};
use super::*;
use crate::ledger::Settlement;
use crate::ledger::sample::settlement;
use crate::vocab::Timestamp;

fn record() -> UsageRecord {
    let class = |name: &str, tokens| (ClassName::parse(name).unwrap(), TokenCount(tokens));
    let detail = UsageDetail {
        user: UserName::parse("ann").ok(),
        api_key: ApiKeyId::parse("key-1").ok(),
        finish: FinishReason::Aborted,
        role: NodeRole::Prefill,
        written_by_class: [class("5m", 32), class("1h", 16)].into(),
        preempted_tokens: TokenCount(48),
    };
    UsageRecord::of(Settlement { detail, request_id: None, ..settlement("acme", "b-1") }, 7).unwrap()
}

fn exported() -> Value {
    shaped(&record(), Shape::Kvtier, Rules::of(Shape::DeepSeek))
}

#[test]
fn the_line_has_exactly_the_promised_fields() {
    let expected = json!({
        "sequence": 7, "tenant": "acme", "billing_id": "b-1", "attempt": 1, "instance": "engine-1",
        "fingerprint": "07".repeat(32), "namespace": "model", "settled_at": "2024-01-01T00:00:00.000Z",
        "prompt_tokens": 1_000, "hit_tokens": 600, "hit_tokens_ram": 500, "hit_tokens_nvme": 100,
        "attested_tokens": 64, "miss_tokens": 336, "written_tokens": 320, "output_tokens": 50,
        "labels": { "class": "batch" },
        "user": "ann", "api_key_id": "key-1", "finish_reason": "aborted", "role": "prefill",
        "written_by_class": { "1h": 16, "5m": 32 }, "preempted_tokens": 48,
        "delivered_tokens_ram": 500, "delivered_tokens_nvme": 100,
        "corrects": "", "corrects_settled_at": "", "correction_reason": "",
    });
    assert_eq!(exported(), expected);
    let text = serde_json::to_string(&Line::of(&record())).unwrap();
    let places = Line::FIELDS.map(|field| text.find(&format!("\"{field}\":")).unwrap());
    assert!(places.is_sorted(), "{text}");
    assert_eq!(expected.as_object().unwrap().len(), Line::FIELDS.len());
}

#[test]
fn an_event_carries_the_line_under_the_identity_of_the_record() {
    let event = shaped(&record(), Shape::CloudEvents, Rules::EXACT);
    assert_eq!(event["data"], exported());
    let head = ["specversion", "id", "source", "type", "subject", "time"].map(|field| event[field].as_str().unwrap());
    assert_eq!(head, ["1.0", "4:acme:b-1", "kvtier", "kvtier.usage", "acme", "2024-01-01T00:00:00.000Z"]);
}

#[test]
fn shapes_are_found_by_their_names() {
    assert!(Shape::ALL.into_iter().all(|shape| Shape::named(shape.name()) == Some(shape)));
    assert_eq!(Shape::named("mistral"), None);
}

#[test]
fn a_bad_line_names_field_value_and_rule() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut line = exported();
        change(&mut line);
        let parsed = Line::parse(line.to_string().as_bytes());
        parsed.and_then(|line| line.record()).unwrap_err().to_string()
    };
    let set = |field: &'static str, value: Value| refused(&|line| line[field] = value.clone());
    let cases = [
        (set("miss_tokens", json!(-1)), "miss_tokens is -1, it must be at least 0: it is no correction"),
        (set("hit_tokens_ram", json!(1.5)), "hit_tokens_ram is 1.5, it must be a whole number of tokens"),
        (set("hit_tokens", json!(601)), "hit_tokens is 601, it must be the sum of its tiers, 600"),
        (set("miss_tokens", json!(337)), "prompt_tokens is 1000, it must be the sum of hit, attested and miss, 1001"),
        (set("output_tokens", json!(1_u64 << 33)), "output_tokens is 8589934592, it must be at most 4294967296"),
        (
            set("output_tokens", json!(u64::MAX)),
            "output_tokens is 18446744073709551615, it must be a whole number of tokens",
        ),
        (set("preempted_tokens", json!(-1)), "preempted_tokens is -1, it must be a whole number of tokens"),
        (set("attempt", json!(1_u64 << 32)), "attempt is 4294967296, it must be a whole number of 32 bits"),
        (set("tenant", json!("a b")), "tenant is a b, it must be printable ASCII without spaces"),
        (set("fingerprint", json!("07")), "fingerprint is 07, it must be 64 hex digits"),
        (
            set("settled_at", json!("1969-12-31T23:59:59Z")),
            "settled_at is 1969-12-31T23:59:59Z, it must be RFC 3339 from 1970 on, in milliseconds",
        ),
        (
            set("settled_at", json!("2024-01-01")),
            "settled_at is 2024-01-01, it must be RFC 3339 from 1970 on, in milliseconds",
        ),
        (set("labels", json!({ "class": 1 })), "labels is {\"class\":1}, it must be an object of strings"),
        (
            set("finish_reason", json!("bored")),
            "finish_reason is bored, it must be stop, length, aborted, preempted, failed or empty",
        ),
        (set("role", json!("king")), "role is king, it must be unified, prefill or decode"),
        (set("user", json!("a b")), "user is a b, it must be printable ASCII without spaces"),
        (
            set("written_by_class", json!({ "1h": -1 })),
            "written_by_class is -1, it must be at least 0: it is no correction",
        ),
        (
            set("written_by_class", json!({ "1h": 321 })),
            "written_by_class is 321, it must be at most 320 in all, the written_tokens",
        ),
        (set("gift", json!(1)), "gift is 1, it must be absent: this version of kvtier does not know it"),
        (
            refused(&|line| drop(line.as_object_mut().unwrap().remove("miss_tokens"))),
            "miss_tokens is missing, it must be present",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
    assert!(Line::parse(b"{").unwrap_err().to_string().starts_with("the line is no JSON object ("));
}

#[test]
fn a_line_of_an_older_version_is_a_record_without_detail() {
    let mut line = exported();
    for field in &Line::FIELDS[Line::REQUIRED..] {
        line.as_object_mut().unwrap().remove(*field).unwrap();
    }
    let read = Line::parse(line.to_string().as_bytes()).unwrap().record();
    let unnamed = Settlement { request_id: None, ..settlement("acme", "b-1") };
    assert_eq!(read, UsageRecord::of(unnamed, 7).map_err(|_| unreachable!()));
}

#[test]
fn a_moment_of_another_offset_is_the_same_moment() {
    let line = Line { settled_at: "2024-01-01T08:00:00+08:00".to_owned(), ..Line::of(&record()) };
    assert_eq!(line.record(), Ok(record()));
}

proptest! {
    #[test]
    fn a_line_reads_back_as_the_record_it_was_made_of(
        words in prop::array::uniform4("[!-~]{1,128}"),
        labels in prop::collection::btree_map(".{1,32}", ".{0,32}", 0..16),
        (ram, nvme, attested, miss) in (0..1_u64 << 29, 0..1_u64 << 29, 0..1_u64 << 29, 0..1_u64 << 29),
        (written, output) in (0..=SETTLE_TOKENS_MAX, 0..=SETTLE_TOKENS_MAX),
        (sequence, attempt, digest) in any::<(u64, u32, [u8; 32])>(),
        settled_at in 0..=253_402_207_200_999_u64,
    ) {
        let record = UsageRecord {
            sequence,
            tenant: TenantName::parse(&words[0]).unwrap(),
            billing_id: BillingId::parse(&words[1]).unwrap(),
            attempt,
            instance: InstanceId::parse(&words[2]).unwrap(),
            request_id: None,
            fingerprint: Fingerprint(digest),
            namespace: NamespaceName::parse(&words[3]).unwrap(),
            settled_at: Timestamp(settled_at),
            counts: Counts::of([ram + nvme + attested + miss, ram, nvme, attested, miss, written, output].map(u64::cast_signed)),
            labels,
            detail: UsageDetail {
                user: UserName::parse(&words[1]).ok(),
                finish: FinishReason::of_code(u8::try_from(attempt % 6).unwrap()).unwrap(),
                role: NodeRole::of_code(u8::try_from(attempt % 3).unwrap()).unwrap(),
                written_by_class: [(ClassName::parse(&words[2]).unwrap(), TokenCount(written))].into(),
                ..UsageDetail::default()
            },
            delivered: Delivered { ram: TokenCount(ram + 1), nvme: TokenCount(nvme + 2) },
            correction: None,
        };
        let correction = Correction {
            corrects: BillingId::parse(&words[2]).unwrap(),
            used_at: Timestamp(settled_at / 2),
            reason: words[3].clone(),
            written_by_class: [(ClassName::parse(&words[0]).unwrap(), -written.cast_signed())].into(),
        };
        let detail = UsageDetail { written_by_class: Default::default(), ..record.detail.clone() };
        let corrected = UsageRecord {
            counts: -record.counts,
            delivered: Delivered::default(),
            detail,
            correction: Some(correction),
            ..record.clone()
        };
        let text = serde_json::to_vec(&Line::of(&corrected)).unwrap();
        prop_assert_eq!(Line::parse(&text).unwrap().record(), Ok(corrected));
        let text = serde_json::to_vec(&Line::of(&record)).unwrap();
        prop_assert_eq!(Line::parse(&text).unwrap().record(), Ok(record));
    }
}
