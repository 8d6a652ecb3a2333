//! A record in the usage fields of the providers whose customers read them. Names and sums are the providers' own
//! (`api-docs.deepseek.com`, `OpenAI` chat completions, Anthropic messages, Google `usageMetadata`); beside them stand tenant,
//! billing id, namespace and time, so that a line stands alone.

use serde_json::{Map, Value, json};

use super::super::{Counts, UsageRecord};
use super::{Rules, time};

/// Tokens of a prompt by a provider's rules. `hit` + `rest` = the prompt, and `written` is a part of `rest`. A correction's are
/// exact, since a rule that rounds is one for whole requests: below zero where it takes back.
struct Parts {
    prompt: i64,
    hit: i64,
    rest: i64,
    written: i64,
    output: i64,
}

impl Parts {
    /// Written tokens may be of the output, too: of those only what fits the computed part of the prompt is input.
    fn of(record: &UsageRecord, rules: Rules) -> Self {
        let Counts { prompt, written, output, .. } = record.counts;
        let hit = rules.hit(record);
        let rest = prompt - hit;
        let written = if record.correction.is_some() { written } else { written.min(rest) };
        Self { prompt, hit, rest, written, output }
    }

    fn total(&self) -> i64 {
        self.prompt + self.output
    }
}

pub(super) fn deepseek(record: &UsageRecord, rules: Rules) -> Value {
    let parts = Parts::of(record, rules);
    alone(
        record,
        json!({
            "prompt_tokens": parts.prompt,
            "prompt_cache_hit_tokens": parts.hit,
            "prompt_cache_miss_tokens": parts.rest,
            "completion_tokens": parts.output,
            "total_tokens": parts.total(),
        }),
    )
}

pub(super) fn openai(record: &UsageRecord, rules: Rules) -> Value {
    let parts = Parts::of(record, rules);
    alone(
        record,
        json!({
            "prompt_tokens": parts.prompt,
            "completion_tokens": parts.output,
            "total_tokens": parts.total(),
            "prompt_tokens_details": { "cached_tokens": parts.hit, "cache_write_tokens": parts.written },
        }),
    )
}

/// Input + written + read = the prompt. What was written for an hour is the class `1h`; all else that was written counts as Anthropic's default, five minutes.
pub(super) fn anthropic(record: &UsageRecord, rules: Rules) -> Value {
    let parts = Parts::of(record, rules);
    let classes = record.written_by_class();
    let hour = classes.iter().filter(|(class, _)| class.as_str() == "1h").map(|(_, tokens)| *tokens).sum::<i64>();
    let hour = if record.correction.is_some() { hour } else { hour.min(parts.written) };
    alone(
        record,
        json!({
            "input_tokens": parts.rest - parts.written,
            "cache_creation_input_tokens": parts.written,
            "cache_read_input_tokens": parts.hit,
            "cache_creation": {
                "ephemeral_5m_input_tokens": parts.written - hour,
                "ephemeral_1h_input_tokens": hour,
            },
            "output_tokens": parts.output,
        }),
    )
}

pub(super) fn google(record: &UsageRecord, rules: Rules) -> Value {
    let parts = Parts::of(record, rules);
    alone(
        record,
        json!({
            "usageMetadata": {
                "promptTokenCount": parts.prompt,
                "cachedContentTokenCount": parts.hit,
                "candidatesTokenCount": parts.output,
                "totalTokenCount": parts.total(),
            },
        }),
    )
}

fn alone(record: &UsageRecord, usage: Value) -> Value {
    let mut fields = Map::new();
    fields.insert("tenant".to_owned(), record.tenant.as_str().into());
    fields.insert("billing_id".to_owned(), record.billing_id.as_str().into());
    fields.insert("namespace".to_owned(), record.namespace.as_str().into());
    fields.insert("settled_at".to_owned(), time::written(record.settled_at).into());
    if let Some(correction) = &record.correction {
        fields.insert("corrects".to_owned(), correction.corrects.as_str().into());
    }
    if let Value::Object(usage) = usage {
        fields.extend(usage);
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::{Shape, shaped};
    use super::*;
    use crate::ledger::sample::{NEW_YEAR, settlement};
    use crate::ledger::{Correction, Counts, Delivered, Settlement};
    use crate::vocab::{BillingId, ClassName, TokenCount};

    /// 1,600 prompt tokens: 1,000 from RAM, 200 from NVMe, 100 attested, 300 computed; 400 written, 50 out.
    fn record() -> UsageRecord {
        made(1_000, 200, 100, 300, 400)
    }

    fn made(ram: u64, nvme: u64, attested: u64, miss: u64, written: u64) -> UsageRecord {
        let tokens = TokenCount;
        let settlement = Settlement {
            prompt_tokens: tokens(ram + nvme + attested + miss),
            cached_tokens: tokens(ram + nvme),
            attested_tokens: tokens(attested),
            written_tokens: tokens(written),
            delivered: Delivered { ram: tokens(ram), nvme: tokens(nvme) },
            settled_at: NEW_YEAR,
            ..settlement("acme", "b-1")
        };
        UsageRecord::of(settlement, 7).unwrap()
    }

    fn with_head(usage: &Value) -> Value {
        let mut fields = usage.as_object().unwrap().clone();
        for (field, value) in [
            ("tenant", "acme"),
            ("billing_id", "b-1"),
            ("namespace", "model"),
            ("settled_at", "2024-01-01T00:00:00.000Z"),
        ] {
            fields.insert(field.to_owned(), value.into());
        }
        Value::Object(fields)
    }

    #[test]
    fn each_provider_reads_its_own_fields() {
        let of = |shape| shaped(&record(), shape, Rules::of(shape));
        let deepseek = json!({ "prompt_tokens": 1_600, "prompt_cache_hit_tokens": 1_152, "prompt_cache_miss_tokens": 448,
            "completion_tokens": 50, "total_tokens": 1_650 });
        assert_eq!(of(Shape::DeepSeek), with_head(&deepseek));
        let openai = json!({ "prompt_tokens": 1_600, "completion_tokens": 50, "total_tokens": 1_650,
            "prompt_tokens_details": { "cached_tokens": 1_152, "cache_write_tokens": 400 } });
        assert_eq!(of(Shape::OpenAi), with_head(&openai));
        let anthropic = json!({ "input_tokens": 0, "cache_creation_input_tokens": 400, "cache_read_input_tokens": 1_200,
            "cache_creation": { "ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 0 }, "output_tokens": 50 });
        assert_eq!(of(Shape::Anthropic), with_head(&anthropic));
        let mut by_class = record();
        by_class.detail.written_by_class.insert(ClassName::parse("1h").unwrap(), TokenCount(150));
        let creation = &shaped(&by_class, Shape::Anthropic, Rules::of(Shape::Anthropic))["cache_creation"];
        assert_eq!(*creation, json!({ "ephemeral_5m_input_tokens": 250, "ephemeral_1h_input_tokens": 150 }));
        let google = json!({ "usageMetadata": { "promptTokenCount": 1_600, "cachedContentTokenCount": 1_200,
            "candidatesTokenCount": 50, "totalTokenCount": 1_650 } });
        assert_eq!(of(Shape::Google), with_head(&google));
    }

    #[test]
    fn a_short_prompt_has_no_hits_and_attested_tokens_are_hits_only_where_asked() {
        let short = made(512, 0, 0, 511, 0);
        assert_eq!(openai(&short, Rules::of(Shape::OpenAi))["prompt_tokens_details"]["cached_tokens"], 0);
        let long = made(512, 0, 0, 512, 0);
        assert_eq!(openai(&long, Rules::of(Shape::OpenAi))["prompt_tokens_details"]["cached_tokens"], 512);
        let all = Rules { attested_as_hit: true, ..Rules::EXACT };
        assert_eq!(deepseek(&record(), all)["prompt_cache_hit_tokens"], 1_300);
        assert_eq!(deepseek(&record(), Rules::EXACT)["prompt_cache_hit_tokens"], 1_200);
    }

    #[test]
    fn a_correction_is_what_it_adds_exactly_and_names_what_it_corrects() {
        let correction = Correction {
            corrects: BillingId::parse("b-0").unwrap(),
            used_at: NEW_YEAR,
            reason: "r".to_owned(),
            written_by_class: [(ClassName::parse("1h").unwrap(), -16)].into(),
        };
        let counts = Counts::of([0, -30, -5, 0, 35, -16, 0]);
        let record = UsageRecord { counts, correction: Some(correction), ..record() };
        let deepseek = shaped(&record, Shape::DeepSeek, Rules::of(Shape::DeepSeek));
        let cells = ["prompt_tokens", "prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "corrects"];
        assert_eq!(cells.map(|cell| deepseek[cell].clone()), [json!(0), json!(-35), json!(35), json!("b-0")]);
        let anthropic = shaped(&record, Shape::Anthropic, Rules::of(Shape::Anthropic));
        assert_eq!(
            anthropic["cache_creation"],
            json!({ "ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": -16 })
        );
    }

    proptest! {
        #[test]
        fn the_parts_of_every_shape_add_up_and_no_hit_is_invented(
            (ram, nvme, attested) in (0..5_000_u64, 0..5_000_u64, 0..5_000_u64),
            (miss, written) in (0..5_000_u64, 0..20_000_u64),
            (unit, minimum, attested_as_hit) in (0..300_u64, 0..3_000_u64, any::<bool>()),
        ) {
            let record = made(ram, nvme, attested, miss, written);
            let rules = Rules { unit, minimum, attested_as_hit };
            let number = |value: &Value| value.as_i64().unwrap();
            let prompt = record.counts.prompt;
            let deepseek = deepseek(&record, rules);
            let hit = number(&deepseek["prompt_cache_hit_tokens"]);
            prop_assert_eq!(hit + number(&deepseek["prompt_cache_miss_tokens"]), prompt);
            let skipped = (ram + nvme + if attested_as_hit { attested } else { 0 }).cast_signed();
            prop_assert!(hit <= skipped);
            prop_assert!(hit.unsigned_abs().is_multiple_of(unit.max(1)));
            prop_assert!(hit == 0 || prompt.unsigned_abs() >= minimum);
            let openai = openai(&record, rules);
            let details = &openai["prompt_tokens_details"];
            prop_assert_eq!(number(&details["cached_tokens"]), hit);
            prop_assert!(hit + number(&details["cache_write_tokens"]) <= prompt);
            prop_assert_eq!(number(&openai["total_tokens"]), prompt + number(&openai["completion_tokens"]));
            let anthropic = anthropic(&record, rules);
            let parts = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
            prop_assert_eq!(parts.map(|part| number(&anthropic[part])).iter().sum::<i64>(), prompt);
            let by_lifetime = anthropic["cache_creation"].as_object().unwrap().values().map(number).sum::<i64>();
            prop_assert_eq!(number(&anthropic["cache_creation_input_tokens"]), by_lifetime);
            let google = &google(&record, rules)["usageMetadata"];
            prop_assert_eq!(number(&google["cachedContentTokenCount"]), hit);
            prop_assert_eq!(number(&google["promptTokenCount"]), prompt);
        }
    }
}
