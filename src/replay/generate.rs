//! Makes a trace in the Mooncake format: conversations of several turns that share system prompts.
//!
//! Ids stand for whole prefixes, as in the published traces: full blocks of a system prompt are shared by all its
//! conversations, and a follow-up turn keeps every full block of the prompt and output before it. A block that was
//! partial gets another id once more tokens follow, since it is another block then. One seed makes the same bytes on every machine.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};

use super::TraceRequest;
use super::chance::Chance;
use super::mooncake::write_request;
use crate::vocab::limits::{BLOCK_TOKENS_MAX, BLOCK_TOKENS_MIN, REQUEST_BLOCKS_MAX};

/// Milliseconds that an output token takes: when a turn's answer is there, the user starts to think.
const DECODE_MS: u64 = 20;
/// The most of each mean: far beyond any workload, and small enough that no sum overflows.
const MEAN_MAX: u64 = 1 << 32;
/// System prompts are kept in memory as their ids.
const SYSTEM_PROMPTS_MAX: u32 = 1 << 16;

/// What to make. The default resembles a chat service: a few system prompts, four turns a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// The same seed and options make the same bytes.
    pub seed: u64,
    /// Requests in all.
    pub requests: u64,
    /// System prompts, of which number k is chosen with a weight of 1/k.
    pub system_prompts: u32,
    /// Mean tokens of a system prompt; each has half to one and a half of it.
    pub system_tokens: u64,
    /// Conversations that begin each second (Poisson).
    pub conversations_per_second: f64,
    /// Mean turns of a conversation (geometric, at least 1).
    pub turns: f64,
    /// Mean tokens of a user's message (exponential, at least 1).
    pub user_tokens: u64,
    /// Mean tokens of an answer (exponential, at least 1).
    pub output_tokens: u64,
    /// Mean time between an answer and the next turn in milliseconds (exponential).
    pub think_ms: u64,
    /// A conversation ends before its prompt would be longer than this.
    pub input_tokens_max: u64,
    /// Tokens of a block.
    pub block_tokens: u32,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            requests: 1_000,
            system_prompts: 8,
            system_tokens: 2_000,
            conversations_per_second: 1.0,
            turns: 4.0,
            user_tokens: 800,
            output_tokens: 400,
            think_ms: 20_000,
            input_tokens_max: 128_000,
            block_tokens: 512,
        }
    }
}

/// An option that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, it must be {rule}")]
pub struct GenerateError {
    /// Which option.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub rule: String,
}

/// Makes requests one by one, in order of time.
#[derive(Debug)]
pub struct Generator {
    options: GenerateOptions,
    chance: Chance,
    systems: Vec<System>,
    open: BinaryHeap<Reverse<Conversation>>,
    next_conversation_ms: f64,
    conversations: u64,
    ids: u64,
    left: u64,
}

#[derive(Debug)]
struct System {
    tokens: u64,
    ids: Vec<u64>,
}

/// Ordered by when its next turn is due; no two have the same number, so the rest never decides.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Conversation {
    due_ms: u64,
    number: u64,
    system: usize,
    /// Tokens so far, prompt and output.
    tokens: u64,
    turns_left: u64,
    /// Full blocks after those of the system prompt.
    own: Vec<u64>,
}

impl GenerateOptions {
    /// Checks every option.
    ///
    /// # Errors
    /// Names the first that breaks its rule.
    pub fn checked(self) -> Result<Self, GenerateError> {
        let tokens_max = REQUEST_BLOCKS_MAX as u64 * u64::from(self.block_tokens);
        for (field, number, least, most) in [
            ("requests", self.requests, 1, u64::MAX),
            ("system_prompts", u64::from(self.system_prompts), 1, u64::from(SYSTEM_PROMPTS_MAX)),
            ("block_tokens", u64::from(self.block_tokens), u64::from(BLOCK_TOKENS_MIN), u64::from(BLOCK_TOKENS_MAX)),
            ("user_tokens", self.user_tokens, 1, MEAN_MAX),
            ("output_tokens", self.output_tokens, 1, MEAN_MAX),
            ("think_ms", self.think_ms, 0, MEAN_MAX),
            ("input_tokens_max", self.input_tokens_max, 1, tokens_max),
            // The longest system prompt leaves room for a message.
            ("system_tokens", self.system_tokens, 0, self.input_tokens_max.saturating_sub(1) / 2),
        ] {
            if !(least..=most).contains(&number) {
                return Err(GenerateError { field, value: number.to_string(), rule: format!("{least} to {most}") });
            }
        }
        for (field, number, least, most) in
            [("conversations_per_second", self.conversations_per_second, 1e-6, 1e6), ("turns", self.turns, 1.0, 1e6)]
        {
            if !(least..=most).contains(&number) {
                return Err(GenerateError { field, value: number.to_string(), rule: format!("{least} to {most}") });
            }
        }
        Ok(self)
    }
}

impl Generator {
    /// Starts with the first conversation at time 0.
    ///
    /// # Errors
    /// When an option breaks its rule.
    pub fn new(options: GenerateOptions) -> Result<Self, GenerateError> {
        let options = options.checked()?;
        let mut chance = Chance::new(options.seed);
        let mut system = || {
            let tokens = options.system_tokens / 2 + chance.below(options.system_tokens + 1);
            System { tokens, ids: Vec::new() }
        };
        let systems = (0..options.system_prompts).map(|_| system()).collect();
        let left = options.requests;
        let open = BinaryHeap::new();
        Ok(Self { options, chance, systems, open, next_conversation_ms: 0.0, conversations: 0, ids: 0, left })
    }

    /// Writes all requests that are left as lines of a trace.
    ///
    /// # Errors
    /// When `out` can't be written.
    pub fn write(self, out: &mut impl Write) -> io::Result<()> {
        for request in self {
            write_request(out, &request.view())?;
        }
        out.flush()
    }

    /// The conversation whose turn is next; new ones begin on the way to it.
    fn next_due(&mut self) -> Conversation {
        loop {
            let begins_ms = self.next_conversation_ms as u64;
            if let Some(Reverse(first)) = self.open.peek()
                && first.due_ms <= begins_ms
                && let Some(Reverse(first)) = self.open.pop()
            {
                return first;
            }
            let conversation = self.begin(begins_ms);
            self.open.push(Reverse(conversation));
            self.next_conversation_ms += self.chance.exponential() * 1_000.0 / self.options.conversations_per_second;
        }
    }

    fn begin(&mut self, due_ms: u64) -> Conversation {
        let system = self.chance.harmonic(self.systems.len());
        let turns_left = self.chance.geometric(self.options.turns);
        let number = self.conversations;
        self.conversations += 1;
        let tokens = self.systems[system].tokens;
        Conversation { due_ms, number, system, tokens, turns_left, own: Vec::new() }
    }

    /// The conversation's next request, and the conversation as it is after the answer.
    fn turn(&mut self, mut conversation: Conversation) -> (TraceRequest, Conversation) {
        let room = self.options.input_tokens_max - conversation.tokens;
        let input_length = conversation.tokens + self.chance.length(self.options.user_tokens).min(room);
        let output_length = self.chance.length(self.options.output_tokens);
        let hash_ids = self.ids_of(&mut conversation, input_length);
        let timestamp_ms = conversation.due_ms;
        let think_ms = (self.chance.exponential() * self.options.think_ms as f64) as u64;
        conversation.tokens = input_length + output_length;
        conversation.turns_left -= 1;
        conversation.due_ms += output_length * DECODE_MS + think_ms;
        (TraceRequest { timestamp_ms, input_length, output_length, hash_ids }, conversation)
    }

    fn ids_of(&mut self, conversation: &mut Conversation, input_length: u64) -> Vec<u64> {
        let block_tokens = u64::from(self.options.block_tokens);
        let mut fresh = self.ids..;
        let system = &mut self.systems[conversation.system];
        let shared = system.tokens / block_tokens;
        grow(&mut system.ids, shared, &mut fresh);
        grow(&mut conversation.own, input_length / block_tokens - shared, &mut fresh);
        let mut ids = [system.ids.as_slice(), &conversation.own].concat();
        grow(&mut ids, input_length.div_ceil(block_tokens), &mut fresh);
        self.ids = fresh.start;
        ids
    }
}

impl Iterator for Generator {
    type Item = TraceRequest;

    fn next(&mut self) -> Option<TraceRequest> {
        self.left = self.left.checked_sub(1)?;
        let due = self.next_due();
        let (request, conversation) = self.turn(due);
        if conversation.turns_left > 0 && conversation.tokens < self.options.input_tokens_max {
            self.open.push(Reverse(conversation));
        }
        Some(request)
    }
}

fn grow(ids: &mut Vec<u64>, blocks: u64, fresh: &mut std::ops::RangeFrom<u64>) {
    let missing = blocks.saturating_sub(ids.len() as u64);
    ids.extend(fresh.by_ref().take(usize::try_from(missing).unwrap_or(usize::MAX)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{Trace, TraceInfo, TraceReader};

    fn made(options: &GenerateOptions) -> Vec<u8> {
        let mut bytes = Vec::new();
        Generator::new(options.clone()).unwrap().write(&mut bytes).unwrap();
        bytes
    }

    fn trace(options: &GenerateOptions) -> Trace {
        Trace::collect(options.block_tokens, Generator::new(options.clone()).unwrap())
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes_and_another_seed_does_not() {
        let options = GenerateOptions::default();
        assert_eq!(made(&options), made(&options));
        assert_ne!(made(&options), made(&GenerateOptions { seed: 2, ..options }));
    }

    #[test]
    fn the_bytes_of_a_seed_are_pinned() {
        let digest = blake3::hash(&made(&GenerateOptions::default())).to_hex();
        assert_eq!(&digest.as_str()[..16], "961c80a1f1d659f3");
    }

    #[test]
    fn what_is_made_reads_back_in_order_and_its_ids_stand_for_prefixes() {
        for block_tokens in [16, 64, 512] {
            let options = GenerateOptions { block_tokens, ..GenerateOptions::default() };
            let bytes = made(&options);
            let read: Vec<TraceRequest> =
                TraceReader::new(bytes.as_slice(), block_tokens).collect::<Result<_, _>>().unwrap();
            let generated: Vec<TraceRequest> = Generator::new(options.clone()).unwrap().collect();
            assert_eq!(read, generated);
            assert!(read.is_sorted_by_key(|request| request.timestamp_ms));
            assert_eq!(TraceInfo::of(&trace(&options)).misplaced_references, 0);
        }
    }

    #[test]
    fn a_follow_up_keeps_all_full_blocks_and_replaces_a_partial_one() {
        let options = GenerateOptions {
            requests: 20,
            system_prompts: 1,
            conversations_per_second: 1e-6,
            turns: 1e6,
            user_tokens: 100,
            output_tokens: 100,
            block_tokens: 16,
            ..GenerateOptions::default()
        };
        let requests: Vec<TraceRequest> = Generator::new(options).unwrap().collect();
        for pair in requests.windows(2) {
            let [before, after] = pair else { unreachable!() };
            let full = usize::try_from(before.input_length / 16).unwrap();
            assert_eq!(before.hash_ids[..full], after.hash_ids[..full]);
            assert!(after.hash_ids[full..].iter().all(|id| !before.hash_ids.contains(id)));
            assert!(after.input_length > before.input_length + before.output_length);
        }
        // Blocks of the first answer come with the second turn, and are kept from then on.
        let answered = usize::try_from((requests[0].input_length + requests[0].output_length) / 16).unwrap();
        assert_eq!(requests[1].hash_ids[..answered], requests[19].hash_ids[..answered]);
    }

    #[test]
    fn conversations_share_the_full_blocks_of_their_system_prompt_and_no_more() {
        let options = GenerateOptions { system_prompts: 1, turns: 1.0, requests: 50, ..GenerateOptions::default() };
        let requests: Vec<TraceRequest> = Generator::new(options).unwrap().collect();
        let shared = requests[0].hash_ids.iter().zip(&requests[1].hash_ids).take_while(|(a, b)| a == b).count();
        assert!(shared >= 1, "1000 to 3000 tokens have a full block of 512");
        for pair in requests.windows(2) {
            assert_eq!(pair[0].hash_ids[..shared], pair[1].hash_ids[..shared]);
            assert!(pair[0].hash_ids[shared..].iter().all(|id| !pair[1].hash_ids.contains(id)));
        }
    }

    #[test]
    fn requests_come_as_often_as_asked() {
        let long = GenerateOptions { requests: 20_000, ..GenerateOptions::default() };
        let rate = TraceInfo::of(&trace(&long)).requests_per_second.unwrap();
        assert!((3.5..4.5).contains(&rate), "one conversation of four turns a second, but {rate}");
    }

    #[test]
    fn prompts_never_exceed_their_limit() {
        let options = GenerateOptions { input_tokens_max: 5_000, turns: 100.0, ..GenerateOptions::default() };
        assert!(Generator::new(options).unwrap().all(|request| request.input_length <= 5_000));
    }

    #[test]
    fn a_bad_option_names_itself_its_value_and_its_rule() {
        let bad = |options| Generator::new(options).unwrap_err().to_string();
        let options = GenerateOptions { block_tokens: 8, ..GenerateOptions::default() };
        assert_eq!(bad(options), "block_tokens is 8, it must be 16 to 512");
        let options = GenerateOptions { turns: f64::NAN, ..GenerateOptions::default() };
        assert_eq!(bad(options), "turns is NaN, it must be 1 to 1000000");
        let options = GenerateOptions { input_tokens_max: 0, ..GenerateOptions::default() };
        assert_eq!(bad(options), "input_tokens_max is 0, it must be 1 to 33554432");
    }
}
