//! Chats as text or token ids, a line of JSON each: a prompt, an OpenAI-like list of messages, or a conversation as ShareGPT has it, of
//! which each human turn is a request with all before it as its prompt and the answer as its output.
//!
//! A chat template would be the model's own, so messages are joined plainly: the line `role:`, the content, a line's end; a prompt ends
//! with `assistant:`. Each line and each content is tokenised by itself, as one between special tokens is, so a prompt's tokens begin
//! with those of the turn before it.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::Value;

use super::TraceRequest;
use super::line::{self, Kind};
use super::mooncake::TraceFault;
use super::tokens::{BlockIds, Words};

#[derive(Deserialize)]
struct Line {
    timestamp: Option<u64>,
    #[serde(alias = "input_ids", alias = "prompt_token_ids")]
    token_ids: Option<Vec<u32>>,
    prompt: Option<Prompt>,
    messages: Option<Vec<Message>>,
    conversations: Option<Vec<Turn>>,
    output_length: Option<u64>,
}

/// OpenAI's completions take either.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Turn {
    from: String,
    value: String,
}

/// Who answers, in the joined text.
const ASSISTANT: &str = "assistant";
const USER: &str = "user";

/// Reads lines of chats.
#[derive(Debug, Default)]
pub(super) struct Chats {
    ids: BlockIds,
    words: Option<Words>,
    /// Milliseconds from one chat to the next, and from one of its turns to the next, where lines have no times.
    every_ms: u64,
    chats: u64,
    /// Whether lines have times: the first says.
    timed: Option<bool>,
}

impl Chats {
    pub(super) fn new(words: Option<Words>, every_ms: u64) -> Self {
        Self { words, every_ms, ..Self::default() }
    }

    /// # Errors
    /// Names the first field that breaks its rule.
    pub(super) fn parse(
        &mut self,
        bytes: &[u8],
        block_tokens: u32,
        to: &mut VecDeque<TraceRequest>,
    ) -> Result<(), TraceFault> {
        let line: Line = serde_json::from_slice(bytes).map_err(|error| explain(bytes, &error))?;
        let start_ms = self.start(line.timestamp)?;
        let output = line.output_length.unwrap_or_default();
        let add = |tokens: &[u32], turn: u64, output_length: u64, ids: &BlockIds| -> Result<TraceRequest, TraceFault> {
            let input_length = tokens.len() as u64;
            line::check_lengths(input_length, output_length, block_tokens)?;
            let timestamp_ms = line::check_time(start_ms.saturating_add(turn.saturating_mul(self.every_ms)))?;
            Ok(TraceRequest { timestamp_ms, input_length, output_length, hash_ids: ids.of(tokens, block_tokens) })
        };
        match (line.token_ids, line.prompt, line.messages, line.conversations) {
            (Some(tokens), None, None, None) | (None, Some(Prompt::Tokens(tokens)), None, None) => {
                to.push_back(add(&tokens, 0, output, &self.ids)?);
            }
            (None, Some(Prompt::Text(text)), None, None) => {
                let mut tokens = Vec::new();
                words("prompt", &mut self.words)?.add(&text, &mut tokens).map_err(|why| unknown("prompt", &why))?;
                to.push_back(add(&tokens, 0, output, &self.ids)?);
            }
            (None, None, Some(messages), None) => {
                let mut prompt = Joined::new("messages", words("messages", &mut self.words)?);
                let answers = messages.len().saturating_sub(1);
                let mut answer = None;
                for (at, message) in messages.into_iter().enumerate() {
                    let text = text_of(at, message.content)?;
                    if at == answers && message.role == ASSISTANT {
                        answer = Some(text);
                    } else {
                        prompt.add(at, &message.role, &text)?;
                    }
                }
                let tokens = prompt.asked()?;
                let answered = answer.map_or(Ok(0), |text| prompt.length(answers, &text))?;
                to.push_back(add(&tokens, 0, line.output_length.unwrap_or(answered), &self.ids)?);
            }
            (None, None, None, Some(turns)) => {
                let mut prompt = Joined::new("conversations", words("conversations", &mut self.words)?);
                let mut asked = 0;
                for (at, turn) in turns.iter().enumerate() {
                    prompt.add(at, role(&turn.from), &turn.value)?;
                    if role(&turn.from) == USER {
                        let answer = turns.get(at + 1).filter(|next| role(&next.from) == ASSISTANT);
                        let answered = answer.map_or(Ok(0), |answer| prompt.length(at + 1, &answer.value))?;
                        to.push_back(add(&prompt.asked()?, asked, answered, &self.ids)?);
                        asked += 1;
                    }
                }
            }
            _ => return Err(line::field("the request", &"not a prompt", PROMPT_RULE)),
        }
        Ok(())
    }

    /// When a line's chat begins.
    fn start(&mut self, timestamp: Option<u64>) -> Result<u64, TraceFault> {
        self.chats += 1;
        match (timestamp, *self.timed.get_or_insert(timestamp.is_some())) {
            (Some(ms), true) => line::check_time(ms),
            (None, false) => line::check_time((self.chats - 1).saturating_mul(self.every_ms)),
            (Some(ms), false) => Err(line::field("timestamp", &ms, "absent, as in the first line")),
            (None, true) => Err(line::field("timestamp", &"missing", "there, as in the first line")),
        }
    }
}

const PROMPT_RULE: &str =
    "exactly one of token_ids (or input_ids, prompt_token_ids), prompt, messages and conversations";

fn words<'a>(field: &str, words: &'a mut Option<Words>) -> Result<&'a mut Words, TraceFault> {
    words
        .as_mut()
        .ok_or_else(|| line::field(field, &"text", "token ids, or read with --tokenizer FILE (a tokenizer.json)"))
}

fn unknown(field: &str, why: &str) -> TraceFault {
    line::field(field, &"text that can't be tokenised", &format!("of tokens that the tokenizer has: {why}"))
}

/// ShareGPT's speakers by their usual names.
fn role(from: &str) -> &str {
    match from {
        "human" | USER => USER,
        "gpt" | "chatgpt" | "bing" | "bard" | "model" | ASSISTANT => ASSISTANT,
        other => other,
    }
}

fn text_of(at: usize, content: Option<Content>) -> Result<String, TraceFault> {
    match content {
        None => Ok(String::new()),
        Some(Content::Text(text)) => Ok(text),
        Some(Content::Parts(parts)) => {
            if let Some((part, other)) = parts.iter().enumerate().find(|(_, part)| part.kind != "text") {
                let name = format!("messages[{at}].content[{part}].type");
                return Err(line::field(&name, &other.kind, "text: what else there is has no tokens here"));
            }
            Ok(parts.into_iter().map(|part| part.text).collect())
        }
    }
}

/// Messages, joined.
struct Joined<'a> {
    field: &'static str,
    words: &'a mut Words,
    tokens: Vec<u32>,
}

impl<'a> Joined<'a> {
    fn new(field: &'static str, words: &'a mut Words) -> Self {
        Self { field, words, tokens: Vec::new() }
    }

    fn add(&mut self, at: usize, role: &str, text: &str) -> Result<(), TraceFault> {
        let refused = |why: String| unknown(&format!("{}[{at}]", self.field), &why);
        self.words.add_marker(role, &mut self.tokens).map_err(refused)?;
        self.words.add(&format!("{text}\n"), &mut self.tokens).map_err(refused)
    }

    /// All so far, and whose turn it is.
    fn asked(&mut self) -> Result<Vec<u32>, TraceFault> {
        let mut tokens = self.tokens.clone();
        self.words.add_marker(ASSISTANT, &mut tokens).map_err(|why| unknown(self.field, &why))?;
        Ok(tokens)
    }

    /// Tokens of an answer.
    fn length(&self, at: usize, text: &str) -> Result<u64, TraceFault> {
        let mut tokens = Vec::new();
        let refused = |why: String| unknown(&format!("{}[{at}]", self.field), &why);
        self.words.add(&format!("{text}\n"), &mut tokens).map_err(refused)?;
        Ok(tokens.len() as u64)
    }
}

/// What is wrong with a line that the derive refused.
fn explain(bytes: &[u8], error: &serde_json::Error) -> TraceFault {
    if bytes.starts_with(b"[") {
        return line::field(
            "the line",
            &"the beginning of a list",
            "one chat: `jq -c '.[]' FILE` makes lines of a list",
        );
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) else { return line::explain(bytes, error, &[]) };
    for name in ["token_ids", "input_ids", "prompt_token_ids"] {
        let Some(found) = fields.get(name) else { continue };
        let Value::Array(ids) = found else { return line::field(name, found, "a list of token ids") };
        let bad = |(_, id): &(usize, &Value)| id.as_u64().is_none_or(|id| id > u64::from(u32::MAX));
        if let Some((at, id)) = ids.iter().enumerate().find(bad) {
            return line::field(&format!("{name}[{at}]"), id, "a whole number from 0 to 4294967295");
        }
    }
    let rules = [
        ("prompt", "a text, or a list of token ids"),
        ("messages", "a list of messages, each with a role and a content of text"),
        ("conversations", "a list of turns, each with from and value, both text"),
    ];
    let times = [("timestamp", Kind::MillisecondsOrNone), ("output_length", Kind::TokensOrNone)];
    match line::explain(bytes, error, &times) {
        TraceFault::Syntax(why) => match rules.iter().find(|(name, _)| fields.contains_key(*name)) {
            Some((name, rule)) => line::field(name, &why, rule),
            None => TraceFault::Syntax(why),
        },
        fault => fault,
    }
}

#[cfg(test)]
#[path = "chats_tests.rs"]
mod tests;
