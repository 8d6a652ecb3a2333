//! How many bytes the KV cache of a token takes, for the common open models: layers × what a layer keeps, as the `config.json` of the
//! model's repository on Hugging Face says (`source`). Without an engine's padding.
//!
//! Some models have layers that keep a window of tokens only, or a state by sequence. These are not counted: what a prefix costs
//! to keep grows by the layers that keep every token, and the others take a bounded amount a sequence beside them.

/// What a layer keeps of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Keys and values of grouped-query attention: `num_key_value_heads`, `head_dim`.
    Heads(u64, u64),
    /// The compressed vector of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) and its rotary part: `kv_lora_rank`,
    /// `qk_rope_head_dim`.
    Latent(u64, u64),
}

/// A model's KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name on the command line.
    pub name: &'static str,
    /// The repository whose `config.json` has the figures.
    pub source: &'static str,
    /// Layers that keep every token.
    layers: u64,
    /// Layers that keep a window of tokens, or a state: not counted.
    others: u64,
    kept: Kept,
    /// Bytes of an element: 2 of bf16, 1 of fp8.
    element_bytes: u64,
}

const BF16: u64 = 2;
const FP8: u64 = 1;
/// What a name ends in whose elements take a byte.
const FP8_SUFFIX: &str = "-fp8";

const fn model(name: &'static str, source: &'static str, layers: u64, kept: Kept) -> Model {
    Model { name, source, layers, others: 0, kept, element_bytes: BF16 }
}

const fn hybrid(name: &'static str, source: &'static str, (layers, others): (u64, u64), kept: Kept) -> Model {
    Model { others, ..model(name, source, layers, kept) }
}

/// All that are known, by family and size, with 16-bit elements. Each has a second name that ends in `-fp8`.
pub const MODELS: [Model; 43] = [
    model("deepseek-v3", "deepseek-ai/DeepSeek-V3", 61, Kept::Latent(512, 64)),
    model("deepseek-r1", "deepseek-ai/DeepSeek-R1", 61, Kept::Latent(512, 64)),
    model("deepseek-v2", "deepseek-ai/DeepSeek-V2", 60, Kept::Latent(512, 64)),
    model("deepseek-v2-lite", "deepseek-ai/DeepSeek-V2-Lite", 27, Kept::Latent(512, 64)),
    model("kimi-k2", "moonshotai/Kimi-K2-Instruct", 61, Kept::Latent(512, 64)),
    model("glm-4.5", "zai-org/GLM-4.5", 92, Kept::Heads(8, 128)),
    model("glm-4.5-air", "zai-org/GLM-4.5-Air", 46, Kept::Heads(8, 128)),
    // Every second layer has a window of 128 tokens.
    hybrid("gpt-oss-20b", "openai/gpt-oss-20b", (12, 12), Kept::Heads(8, 64)),
    hybrid("gpt-oss-120b", "openai/gpt-oss-120b", (18, 18), Kept::Heads(8, 64)),
    model("llama-3.1-8b", "meta-llama/Llama-3.1-8B", 32, Kept::Heads(8, 128)),
    model("llama-3.1-70b", "meta-llama/Llama-3.1-70B", 80, Kept::Heads(8, 128)),
    model("llama-3.1-405b", "meta-llama/Llama-3.1-405B", 126, Kept::Heads(8, 128)),
    model("llama-3.2-1b", "meta-llama/Llama-3.2-1B", 16, Kept::Heads(8, 64)),
    model("llama-3.2-3b", "meta-llama/Llama-3.2-3B", 28, Kept::Heads(8, 128)),
    model("llama-3.3-70b", "meta-llama/Llama-3.3-70B-Instruct", 80, Kept::Heads(8, 128)),
    model("mistral-7b", "mistralai/Mistral-7B-v0.3", 32, Kept::Heads(8, 128)),
    model("mistral-nemo", "mistralai/Mistral-Nemo-Instruct-2407", 40, Kept::Heads(8, 128)),
    model("mistral-small-24b", "mistralai/Mistral-Small-24B-Instruct-2501", 40, Kept::Heads(8, 128)),
    model("mistral-large", "mistralai/Mistral-Large-Instruct-2407", 88, Kept::Heads(8, 128)),
    model("mixtral-8x7b", "mistralai/Mixtral-8x7B-v0.1", 32, Kept::Heads(8, 128)),
    model("mixtral-8x22b", "mistralai/Mixtral-8x22B-v0.1", 56, Kept::Heads(8, 128)),
    model("phi-4", "microsoft/phi-4", 40, Kept::Heads(10, 128)),
    model("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B", 24, Kept::Heads(2, 64)),
    model("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B", 28, Kept::Heads(2, 128)),
    model("qwen2.5-3b", "Qwen/Qwen2.5-3B", 36, Kept::Heads(2, 128)),
    model("qwen2.5-7b", "Qwen/Qwen2.5-7B", 28, Kept::Heads(4, 128)),
    model("qwen2.5-14b", "Qwen/Qwen2.5-14B", 48, Kept::Heads(8, 128)),
    model("qwen2.5-32b", "Qwen/Qwen2.5-32B", 64, Kept::Heads(8, 128)),
    model("qwen2.5-72b", "Qwen/Qwen2.5-72B", 80, Kept::Heads(8, 128)),
    model("qwen3-0.6b", "Qwen/Qwen3-0.6B", 28, Kept::Heads(8, 128)),
    model("qwen3-1.7b", "Qwen/Qwen3-1.7B", 28, Kept::Heads(8, 128)),
    model("qwen3-4b", "Qwen/Qwen3-4B", 36, Kept::Heads(8, 128)),
    model("qwen3-8b", "Qwen/Qwen3-8B", 36, Kept::Heads(8, 128)),
    model("qwen3-14b", "Qwen/Qwen3-14B", 40, Kept::Heads(8, 128)),
    model("qwen3-32b", "Qwen/Qwen3-32B", 64, Kept::Heads(8, 128)),
    model("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", 48, Kept::Heads(4, 128)),
    model("qwen3-235b-a22b", "Qwen/Qwen3-235B-A22B", 94, Kept::Heads(4, 128)),
    model("qwen3-coder-480b", "Qwen/Qwen3-Coder-480B-A35B-Instruct", 62, Kept::Heads(8, 128)),
    // Every fourth layer is attention, the others have a recurrent state.
    hybrid("qwen3-next-80b", "Qwen/Qwen3-Next-80B-A3B-Instruct", (12, 36), Kept::Heads(2, 256)),
    // Every sixth layer is global, the others have a window of 1,024 tokens (512 in the smallest).
    hybrid("gemma-3-1b", "google/gemma-3-1b-it", (4, 22), Kept::Heads(1, 256)),
    hybrid("gemma-3-4b", "google/gemma-3-4b-it", (5, 29), Kept::Heads(4, 256)),
    hybrid("gemma-3-12b", "google/gemma-3-12b-it", (8, 40), Kept::Heads(8, 256)),
    hybrid("gemma-3-27b", "google/gemma-3-27b-it", (10, 52), Kept::Heads(16, 128)),
];

impl Model {
    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let known = |name: &str| MODELS.into_iter().find(|model| model.name == name);
        let halved = || name.strip_suffix(FP8_SUFFIX).and_then(known).map(|model| Self { element_bytes: FP8, ..model });
        known(name).or_else(halved)
    }

    /// Bytes of one token over all layers that keep it.
    #[must_use]
    pub const fn bytes_per_token(self) -> u64 {
        let elements = match self.kept {
            Kept::Heads(heads, dim) => 2 * heads * dim,
            Kept::Latent(rank, rope) => rank + rope,
        };
        self.layers * elements * self.element_bytes
    }

    /// Whether it has layers that keep a window of tokens, or a state by sequence, which take room beside.
    #[must_use]
    pub const fn is_hybrid(self) -> bool {
        self.others > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The first three: "Insights into DeepSeek-V3" (ISCA 2025), table 1, KV cache per token.
    #[test]
    fn the_published_figures_are_met() {
        for (name, bytes) in [
            ("deepseek-v3", 70_272),
            ("qwen2.5-72b", 327_680),
            ("llama-3.1-405b", 516_096),
            ("llama-3.1-8b", 131_072),
            ("qwen3-235b-a22b", 192_512),
            ("deepseek-v3-fp8", 35_136),
            ("llama-3.1-70b-fp8", 163_840),
            ("gpt-oss-120b", 36_864),
            ("gemma-3-27b", 81_920),
        ] {
            assert_eq!(Model::named(name).map(Model::bytes_per_token), Some(bytes), "{name}");
        }
        assert_eq!((Model::named("gpt-9"), Model::named("gpt-9-fp8"), Model::named("-fp8")), (None, None, None));
        assert!(MODELS.iter().all(|model| Model::named(model.name) == Some(*model)), "no name twice");
    }

    #[test]
    fn a_hybrid_counts_the_layers_that_keep_every_token() {
        let layers = |name| Model::named(name).map(|model| (model.layers + model.others, model.is_hybrid()));
        assert_eq!(layers("gemma-3-27b"), Some((62, true)));
        assert_eq!(layers("gpt-oss-20b"), Some((24, true)));
        assert_eq!(layers("qwen3-32b"), Some((64, false)));
    }
}
