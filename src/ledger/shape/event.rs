//! A record as an event for metering systems: `CloudEvents` 1.0 in JSON, with the fields that `OpenMeter` reads.

use serde_json::{Value, json};

use super::super::UsageRecord;
use super::{line, time};

/// The type of the event, by which meters choose it.
const TYPE: &str = "kvtier.usage";

/// The id is the record's identity, so that a metering system that drops repeated ids (as `OpenMeter` does, by source and
/// id) counts a record once, however often and from wherever it is sent.
pub(super) fn cloud_event(record: &UsageRecord) -> Value {
    json!({
        "specversion": "1.0",
        "id": format!("{}:{}:{}", record.tenant.as_str().len(), record.tenant, record.billing_id),
        "source": "kvtier",
        "type": TYPE,
        "subject": record.tenant.as_str(),
        "time": time::written(record.settled_at),
        "datacontenttype": "application/json",
        "data": line::value(record),
    })
}
