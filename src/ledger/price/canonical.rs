//! What a book says, in one way of saying it: the name of a book is the hash of these bytes.

use serde_json::{Value, json};

use super::book::{Kind, Period, Prices};

/// The hash in hex. Every price stands for itself (`hit` for both tiers, `attested` where it was left out), in millionths. What was
/// added to books later is not written where a book does not say it, so that older books keep their names.
pub(super) fn hash(currency: &str, time_zone: &str, periods: &[Period]) -> String {
    let periods: Vec<Value> = periods.iter().map(period).collect();
    let book = json!({ "currency": currency, "time_zone": time_zone, "price": periods });
    let digest = blake3::derive_key("kvtier 2026 price book 1", book.to_string().as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn period(period: &Period) -> Value {
    let peak = period.peak.as_ref().map(|peak| {
        let hours: Vec<Value> =
            peak.hours.iter().map(|window| json!([window.days, window.from, window.until])).collect();
        json!({ "hours": hours, "prices": prices(&peak.prices) })
    });
    json!({
        "namespace": period.namespace.as_ref().map(ToString::to_string),
        "labels": period.labels,
        "from": period.days.from.map(|day| day.to_string()),
        "until": period.days.until.map(|day| day.to_string()),
        "prices": prices(&period.prices),
        "peak": peak,
    })
}

fn prices(prices: &Prices) -> Value {
    let kinds = [Kind::HitRam, Kind::HitNvme, Kind::Miss, Kind::Attested, Kind::Written(None), Kind::Output];
    let tokens: Vec<Value> =
        kinds.iter().map(|kind| json!([kind.name(), prices.of(kind).map(|price| price.0)])).collect();
    let storage = match prices.storage_hour {
        Some([one, other]) if one != other => json!([one.0, other.0]),
        same => json!(same.map(|[price, _]| price.0)),
    };
    let mut written = vec![json!(tokens), storage];
    if !prices.written_by_class.is_empty() {
        let classes = prices.written_by_class.iter().map(|(class, price)| (class.to_string(), json!(price.0)));
        written.push(Value::Object(classes.collect()));
    }
    Value::Array(written)
}
