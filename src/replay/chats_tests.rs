//! What chats become: the same prefix the same ids, and each turn's prompt the beginning of the next one's.

use super::*;

/// A word is a token; what has none is `?`.
const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\s(?!\\S)|\\s|[^\\s]+(?=\\s|$)"}, "behavior": "Isolated", "invert": false},
    "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, " ": 1, "\n": 2, "user:": 3, "assistant:": 4, "system:": 5,
        "a": 10, "b": 11, "c": 12, "d": 13}}}"#;

fn chats() -> Chats {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, TOKENIZER).unwrap();
    Chats::new(Some(Words::open(&path).unwrap()), 60_000)
}

fn read(chats: &mut Chats, text: &str, block_tokens: u32) -> Vec<TraceRequest> {
    let mut requests = VecDeque::new();
    chats.parse(text.as_bytes(), block_tokens, &mut requests).unwrap();
    requests.into()
}

fn message(chats: &mut Chats, text: &str) -> String {
    chats.parse(text.as_bytes(), 16, &mut VecDeque::new()).unwrap_err().to_string()
}

#[test]
fn the_same_tokens_have_the_same_ids_up_to_the_block_where_they_differ() {
    let mut chats = Chats::default();
    let mut ids = |tokens: &str| {
        let line = format!(r#"{{"timestamp": 5, "token_ids": {tokens}, "output_length": 3}}"#);
        let request = read(&mut chats, &line, 2).remove(0);
        assert_eq!((request.timestamp_ms, request.output_length), (5, 3));
        (request.input_length, request.hash_ids)
    };
    let (length, one) = ids("[1, 2, 3, 4, 5]");
    assert_eq!((length, one.len()), (5, 3), "a partial last block has an id");
    assert_eq!(ids("[1, 2, 3, 4, 5]"), (5, one.clone()));
    let (_, grown) = ids("[1, 2, 3, 4, 5, 6]");
    assert_eq!((&grown[..2], grown[2] == one[2]), (&one[..2], false), "filled, it is another block");
    let (_, other) = ids("[1, 2, 9, 4, 5]");
    assert_eq!(other[0], one[0]);
    assert!(other[1] != one[1] && other[2] != one[2], "all after the block that differs");
    assert_eq!(ids("[]"), (0, vec![]));
}

#[test]
fn all_names_of_token_ids_are_read() {
    let mut chats = Chats::default();
    let lines = ["token_ids", "input_ids", "prompt_token_ids", "prompt"];
    let found = lines.map(|name| read(&mut chats, &format!(r#"{{"{name}": [7, 8, 9]}}"#), 2)[0].hash_ids.clone());
    assert!(found.iter().all(|ids| *ids == found[0] && ids.len() == 2), "{found:?}");
}

#[test]
fn an_answer_becomes_part_of_the_next_turns_prompt() {
    let mut chats = chats();
    let turns = r#"{"conversations": [{"from": "system", "value": "d"}, {"from": "human", "value": "a b"}, {"from": "gpt", "value": "c c"},
        {"from": "human", "value": "b"}, {"from": "human", "value": "a"}]}"#;
    let requests = read(&mut chats, turns, 1);
    let lengths: Vec<_> = requests.iter().map(|request| (request.input_length, request.output_length)).collect();
    // system: ⏎ d ⏎, user: ⏎ a ␣ b ⏎, assistant: ⏎; the answer is c ␣ c ⏎.
    assert_eq!(lengths, [(4 + 6 + 2, 4), (4 + 6 + 6 + 4 + 2, 0), (4 + 6 + 6 + 4 + 4 + 2, 0)]);
    assert_eq!(requests[1].hash_ids[..12], requests[0].hash_ids);
    assert_eq!(requests[2].hash_ids[..20], requests[1].hash_ids[..20]);
    let times: Vec<u64> = requests.iter().map(|request| request.timestamp_ms).collect();
    assert_eq!(times, [0, 60_000, 120_000]);
    assert_eq!(read(&mut chats, turns, 1)[0].timestamp_ms, 60_000, "chats begin one after the other, too");
}

#[test]
fn messages_are_joined_as_a_conversation_is_and_a_last_answer_is_the_output() {
    let mut chats = chats();
    let turns = r#"{"conversations": [{"from": "human", "value": "a b"}, {"from": "gpt", "value": "c"}]}"#;
    let messages = r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}, {"role": "assistant", "content": "c"}]}"#;
    let (one, other) = (read(&mut chats, turns, 2).remove(0), read(&mut chats, messages, 2).remove(0));
    assert_eq!((one.hash_ids, one.input_length, one.output_length), (other.hash_ids, other.input_length, 2));
    let unanswered = r#"{"messages": [{"role": "user", "content": "a b"}], "output_length": 9}"#;
    assert_eq!(read(&mut chats, unanswered, 2)[0].output_length, 9);
    let called = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null}, {"role": "tool", "content": "b"}]}"#;
    assert_eq!(read(&mut chats, called, 1)[0].input_length, 4 + 3 + 4 + 2);
    assert_eq!(read(&mut chats, r#"{"prompt": "a b"}"#, 1)[0].input_length, 3, "a prompt is taken as it is");
}

#[test]
fn a_bad_line_names_field_value_and_rule() {
    let mut text = chats();
    let cases = [
        (r#"{"prompt": "a", "token_ids": [1]}"#, "the request is not a prompt, it must be exactly one of token_ids"),
        (r#"{"output_length": 3}"#, "the request is not a prompt, it must be exactly one of token_ids"),
        (r#"{"token_ids": [1, -2]}"#, "token_ids[1] is -2, it must be a whole number from 0 to 4294967295"),
        (r#"{"input_ids": "x"}"#, "input_ids is \"x\", it must be a list of token ids"),
        (r#"{"prompt": 3}"#, "prompt is "),
        (r#"{"timestamp": -1, "prompt": "a"}"#, "timestamp is -1, it must be a whole number of milliseconds"),
        (r#"{"messages": [{"content": "a"}]}"#, "messages is missing field `role`"),
        (r#"{"conversations": [{"from": "human"}]}"#, "conversations is missing field `value`"),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#,
            "messages[0].content[0].type is image_url, it must be text",
        ),
        ("[", "the line is the beginning of a list, it must be one chat: `jq -c '.[]' FILE`"),
        ("{", "is not JSON: EOF"),
    ];
    for (line, expected) in cases {
        let found = message(&mut text, line);
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
    let found = message(&mut Chats::default(), r#"{"messages": []}"#);
    assert_eq!(found, "messages is text, it must be token ids, or read with --tokenizer FILE (a tokenizer.json)");
    let mut timed = Chats::default();
    read(&mut timed, r#"{"timestamp": 1, "token_ids": [1]}"#, 16);
    assert_eq!(
        message(&mut timed, r#"{"token_ids": [1]}"#),
        "timestamp is missing, it must be there, as in the first line"
    );
}

#[test]
fn a_file_that_is_no_tokenizer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let absent = Words::open(&path).unwrap_err().to_string();
    assert!(absent.ends_with("tokenizer.json: can't be read: No such file or directory (os error 2)"), "{absent}");
    std::fs::write(&path, "{}").unwrap();
    let found = Words::open(&path).unwrap_err().to_string();
    assert!(found.contains("tokenizer.json: is no tokenizer: "), "{found}");
}
