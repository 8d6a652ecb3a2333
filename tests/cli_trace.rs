//! `kvtier trace` as a person types it: chats become blocks, a trace of any size is read as it comes, and a mistake says what to do.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvtier"));
    command.env_remove("KVTIER_SERVER").current_dir(folder).args(args).output().unwrap()
}

fn ok(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(folder: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&ok(folder, args)).unwrap()
}

fn refusal(folder: &Path, args: &[&str], code: i32) -> String {
    let output = run(folder, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": null, "decoder": null, "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2}}}"#;

#[test]
fn chats_of_text_become_blocks_with_a_tokenizer_and_say_so_without() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::write(dir.join("tokenizer.json"), TOKENIZER).unwrap();
    let turn = |from: &str| format!(r#"{{"from": "{from}", "value": "a b a b"}}"#);
    let chat = format!(r#"{{"conversations": [{}, {}, {}]}}"#, turn("human"), turn("gpt"), turn("human"));
    fs::write(dir.join("chats.jsonl"), format!("{chat}\n{chat}\n")).unwrap();
    let said = refusal(dir, &["trace", "info", "chats.jsonl"], 1);
    assert!(
        said.contains("chats.jsonl line 1: conversations is text, it must be token ids, or read with --tokenizer"),
        "{said}"
    );
    let read = ["chats.jsonl", "--tokenizer", "tokenizer.json", "--block-tokens", "4", "--json"];
    let info = json(dir, &[&["trace", "info"][..], &read].concat());
    // A turn is `user : a b a b`, and `assistant :` ends the prompt: 8 tokens, then 20; a second chat is the first again.
    assert_eq!(
        (&info["requests"], &info["prompt_tokens"], &info["distinct_blocks"]),
        (&4.into(), &56.into(), &5.into())
    );
    let report = json(dir, &[&["replay", "--simulate", "--capacity-blocks", "9"][..], &read].concat());
    assert_eq!(report["hit_tokens"], 36);
    let said = refusal(dir, &["trace", "info", "chats.jsonl", "--tokenizer", "chats.jsonl"], 1);
    assert!(said.contains("chats.jsonl: is no tokenizer: "), "{said}");
}

fn line(time: u64, id: u64) -> String {
    format!("{{\"timestamp\": {time}, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [{id}]}}\n")
}

#[test]
fn a_trace_far_out_of_order_is_refused_with_its_line_and_put_in_order_by_convert() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut text: String = (1..=66_000).map(|time| line(time, time)).collect();
    write!(text, "{}", line(0, 7)).unwrap();
    fs::write(dir.join("t.jsonl"), text).unwrap();
    let simulate = ["replay", "t.jsonl", "--simulate", "--capacity-blocks", "9", "--json"];
    for command in
        [&["trace", "info", "t.jsonl"][..], &simulate, &["trace", "convert", "t.jsonl", "--to", "bailian", "-o", "b"]]
    {
        let said = refusal(dir, command, 1);
        assert!(said.contains("t.jsonl line 66001: timestamp is 0, "), "{said}");
        assert!(said.contains("`kvtier trace convert --sort`"), "{said}");
    }
    assert!(!dir.join("b").exists(), "half of a trace is none");
    // Into itself.
    ok(dir, &["trace", "convert", "t.jsonl", "--to", "mooncake", "--sort", "-o", "t.jsonl"]);
    assert_eq!(json(dir, &["trace", "info", "t.jsonl", "--json"])["requests"], 66_001);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn any_format_that_holds_a_trace_can_be_written_and_chats_can_not() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    ok(dir, &["trace", "generate", "--requests", "50", "--block-tokens", "64", "-o", "t.jsonl"]);
    let info = json(dir, &["trace", "info", "t.jsonl", "--block-tokens", "64", "--json"]);
    ok(dir, &["trace", "convert", "t.jsonl", "--block-tokens", "64", "--to", "kvtier", "-o", "t.zst"]);
    let mut recorded = json(dir, &["trace", "info", "t.zst", "--json"]);
    assert_eq!(recorded.as_object_mut().unwrap().remove("recorded").unwrap()["ram_tokens"], 0);
    assert_eq!(recorded, info);
    ok(dir, &["trace", "convert", "t.zst", "--to", "sessions", "-o", "s.json"]);
    assert_eq!(json(dir, &["trace", "info", "s.json", "--json"]), info);
    let said = refusal(dir, &["trace", "convert", "t.zst", "--to", "chats", "-o", "t.jsonl"], 2);
    assert!(
        said.contains("--to is chats, it must be mooncake, bailian, sessions or kvtier: tokens can't be made"),
        "{said}"
    );
    assert_eq!(
        json(dir, &["trace", "info", "t.jsonl", "--block-tokens", "64", "--json"]),
        info,
        "it was left as it was"
    );
}
