//! One line of Alibaba's usage traces (<https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon>): chats of one Qwen instance,
//! `timestamp` in seconds, `hash_ids` of 16-token blocks, a chat's next turn named by `parent_chat_id`.

use serde::Deserialize;

use super::TraceRequest;
use super::chained::chain;
use super::line::{self, Kind};
use super::mooncake::TraceFault;

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: u64,
    output_length: u64,
    hash_ids: Vec<u64>,
}

/// What is looked at in a line that is wrong.
const FIELDS: [(&str, Kind); 4] = [
    ("timestamp", Kind::Seconds),
    ("input_length", Kind::Tokens),
    ("output_length", Kind::Tokens),
    ("hash_ids", Kind::Ids),
];

/// One request from one line. Ids are made to stand for whole prefixes, whatever they were made of.
///
/// # Errors
/// Names the first field that breaks its rule.
pub(super) fn parse(bytes: &[u8], block_tokens: u32) -> Result<TraceRequest, TraceFault> {
    let line: Line = serde_json::from_slice(bytes).map_err(|error| line::explain(bytes, &error, &FIELDS))?;
    let timestamp_ms = line::milliseconds("timestamp", line.timestamp)?;
    let mut hash_ids = line.hash_ids;
    line::check_lengths(line.input_length, line.output_length, block_tokens)?;
    line::check_ids("hash_ids", hash_ids.len(), line.input_length, block_tokens)?;
    chain(0, &mut hash_ids);
    Ok(TraceRequest { timestamp_ms, input_length: line.input_length, output_length: line.output_length, hash_ids })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(text.as_bytes(), 16).unwrap_err().to_string()
    }

    const GOOD: &str = r#"{"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 33, "output_length": 132, "type": "text", "turn": 2, "hash_ids": [1089, 1090]}"#;

    #[test]
    fn a_line_is_read_with_or_without_the_id_of_its_partial_block() {
        let two = parse(GOOD.as_bytes(), 16).unwrap();
        assert_eq!((two.timestamp_ms, two.input_length, two.hash_ids.len()), (61_114, 33, 2));
        let three = parse(GOOD.replace("1090]", "1090, 7]").as_bytes(), 16).unwrap();
        assert_eq!((&three.hash_ids[..2], three.hash_ids.len()), (&two.hash_ids[..], 3));
        let other = parse(GOOD.replace("1089", "1088").as_bytes(), 16).unwrap();
        assert_ne!(other.hash_ids[1], two.hash_ids[1], "the same block after another is another prefix");
    }

    #[test]
    fn a_bad_line_names_field_value_and_rule() {
        let cases = [
            (GOOD.replace("61.114", "-1"), "timestamp is -1, it must be seconds from 0 to 9007199254740"),
            (GOOD.replace("61.114", "\"x\""), "timestamp is \"x\", it must be a number of seconds, at least 0"),
            (GOOD.replace("33", "-3"), "input_length is -3, it must be a whole number of tokens, at least 0"),
            (
                GOOD.replace("1090]", "1090, 7, 8]"),
                "hash_ids is 4 ids, it must be 2 or 3 ids: 33 tokens in blocks of 16",
            ),
            (GOOD.replace("\"hash_ids\"", "\"ids\""), "hash_ids is missing, it must be a list of block ids"),
        ];
        for (line, expected) in cases {
            let found = message(&line);
            assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
        }
    }
}
