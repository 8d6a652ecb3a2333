//! Why a line can't be used: field, value, rule.

use std::fmt::Display;

use serde_json::{Map, Value};

use super::Line;
use crate::ledger::Counts;

/// A line that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, it must be {rule}")]
pub struct LineError {
    /// Which field.
    pub field: String,
    /// What it held, shortened.
    pub value: String,
    /// What it must be.
    pub rule: String,
}

impl LineError {
    pub(super) fn new(field: impl Into<String>, value: impl Display, rule: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.to_string().chars().take(80).collect(), rule: rule.into() }
    }
}

/// Finds the field that serde's words do not name.
pub(super) fn explain(text: &[u8], error: &serde_json::Error) -> LineError {
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(text) else {
        let why = error.to_string();
        return LineError::new(
            "the line",
            format!("no JSON object ({why})"),
            "one record of `usage export --shape kvtier`",
        );
    };
    if let Some((name, value)) = fields.iter().find(|(name, _)| !Line::FIELDS.contains(&name.as_str())) {
        return LineError::new(name.as_str(), value, "absent: this version of kvtier does not know it");
    }
    for (at, name) in Line::FIELDS.into_iter().enumerate() {
        let Some(value) = fields.get(name) else {
            if at < Line::REQUIRED {
                return LineError::new(name, "missing", "present");
            }
            continue;
        };
        let (is_good, rule) = match name {
            "labels" => (is_words(value), "an object of strings"),
            "written_by_class" => (is_counts(value), "an object of whole numbers of tokens"),
            "attempt" => {
                (value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()), "a whole number of 32 bits")
            }
            "sequence" => (value.is_u64(), "a whole number of 64 bits"),
            _ if name == "hit_tokens" || Counts::NAMES.contains(&name) => (value.is_i64(), "a whole number of tokens"),
            _ if name.contains("_tokens") => (value.is_u64(), "a whole number of tokens"),
            _ => (value.is_string(), "a string"),
        };
        if !is_good {
            return LineError::new(name, value, rule);
        }
    }
    LineError::new("the line", error, "one record, each field once")
}

fn is_words(value: &Value) -> bool {
    value.as_object().is_some_and(|words| words.values().all(Value::is_string))
}

fn is_counts(value: &Value) -> bool {
    value.as_object().is_some_and(|counts| counts.values().all(Value::is_i64))
}
