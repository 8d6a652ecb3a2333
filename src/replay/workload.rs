//! Kinds of workloads to generate, each near a published trace in how much of it is reused and how often.

use super::GenerateOptions;

/// A kind of workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// People who chat: few turns, long messages, two system prompts. Near Mooncake's `conversation` (ceiling 0.3736, 0.242 of the
    /// blocks reused, 12,035 tokens a prompt).
    Chat,
    /// Coding agents: sixty turns that each add a tool's result, in 64-token blocks. Near kv-cache-tester's sessions with sub-agents as
    /// KVCache.AI replays them (ceiling 0.974).
    Agent,
    /// Tools and agents that call a model once or twice under one of four long system prompts. Near Mooncake's arXiv trace of 23,608
    /// requests (ceiling 0.591, 0.215 reused, 8,590 tokens a prompt).
    Tool,
    /// Questions about documents of which some are asked for often. Near Mooncake's `synthetic` (ceiling 0.6512, 0.416 reused,
    /// 15,325 tokens a prompt).
    Retrieval,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Agent, Self::Tool, Self::Retrieval];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Agent => "agent",
            Self::Tool => "tool",
            Self::Retrieval => "retrieval",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What makes it.
    #[must_use]
    pub fn options(self) -> GenerateOptions {
        let usual = GenerateOptions { input_tokens_max: 128_000, ..GenerateOptions::default() };
        match self {
            Self::Chat => GenerateOptions {
                requests: 12_000,
                system_prompts: 2,
                system_tokens: 1_400,
                conversations_per_second: 2.5,
                turns: 1.42,
                user_tokens: 7_300,
                output_tokens: 343,
                think_ms: 200_000,
                ..usual
            },
            Self::Agent => GenerateOptions {
                requests: 2_000,
                system_prompts: 2,
                system_tokens: 20_000,
                conversations_per_second: 0.02,
                turns: 60.0,
                user_tokens: 1_500,
                output_tokens: 214,
                think_ms: 20_000,
                input_tokens_max: 160_000,
                block_tokens: 64,
                ..usual
            },
            Self::Tool => GenerateOptions {
                requests: 23_600,
                system_prompts: 4,
                system_tokens: 3_300,
                conversations_per_second: 4.8,
                turns: 1.36,
                user_tokens: 3_300,
                output_tokens: 182,
                think_ms: 30_000,
                ..usual
            },
            Self::Retrieval => GenerateOptions {
                requests: 4_000,
                system_prompts: 2_200,
                system_tokens: 10_500,
                conversations_per_second: 2.4,
                turns: 1.5,
                user_tokens: 2_900,
                output_tokens: 149,
                think_ms: 60_000,
                ..usual
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{Generator, Trace, TraceInfo};

    fn info(kind: Workload) -> TraceInfo {
        let options = kind.options();
        TraceInfo::of(&Trace::collect(options.block_tokens, Generator::new(options).unwrap()))
    }

    #[test]
    fn each_kind_is_near_what_it_is_made_after() {
        for (kind, ceiling, reused, prompt) in [
            (Workload::Chat, 0.3736, Some(0.242), 12_035.0),
            (Workload::Agent, 0.974, None, 68_000.0),
            (Workload::Tool, 0.591, Some(0.215), 8_590.0),
            (Workload::Retrieval, 0.6512, Some(0.416), 15_325.0),
        ] {
            let found = info(kind);
            let mean = found.prompt_tokens as f64 / found.requests as f64;
            assert!((found.infinite_hit_rate - ceiling).abs() < 0.03, "{kind:?}: {}", found.infinite_hit_rate);
            assert!(
                reused.is_none_or(|reused| (found.reused_block_share - reused).abs() < 0.06),
                "{kind:?}: {found:?}"
            );
            assert!((mean / prompt - 1.0).abs() < 0.1, "{kind:?}: {mean}");
            assert_eq!(Workload::from_name(kind.name()), Some(kind));
        }
    }
}
