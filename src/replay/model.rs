//! How many bytes the KV cache of a token takes, for the common open models: layers × what a layer keeps, as their published
//! `config.json` says. Without an engine's padding, and without states that are kept by sequence and not by token.

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
    layers: u64,
    kept: Kept,
    /// Bytes of an element: 2 of bf16, 1 of fp8.
    element_bytes: u64,
}

const BF16: u64 = 2;
const FP8: u64 = 1;

const fn model(name: &'static str, layers: u64, kept: Kept, element_bytes: u64) -> Model {
    Model { name, layers, kept, element_bytes }
}

/// All that are known, by family and size.
pub const MODELS: [Model; 13] = [
    model("deepseek-v3", 61, Kept::Latent(512, 64), BF16),
    model("deepseek-v3-fp8", 61, Kept::Latent(512, 64), FP8),
    model("kimi-k2", 61, Kept::Latent(512, 64), BF16),
    model("llama-3.1-8b", 32, Kept::Heads(8, 128), BF16),
    model("llama-3.1-70b", 80, Kept::Heads(8, 128), BF16),
    model("llama-3.1-70b-fp8", 80, Kept::Heads(8, 128), FP8),
    model("llama-3.1-405b", 126, Kept::Heads(8, 128), BF16),
    model("qwen2.5-7b", 28, Kept::Heads(4, 128), BF16),
    model("qwen2.5-72b", 80, Kept::Heads(8, 128), BF16),
    model("qwen3-8b", 36, Kept::Heads(8, 128), BF16),
    model("qwen3-32b", 64, Kept::Heads(8, 128), BF16),
    model("qwen3-30b-a3b", 48, Kept::Heads(4, 128), BF16),
    model("qwen3-235b-a22b", 94, Kept::Heads(4, 128), BF16),
];

impl Model {
    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        MODELS.into_iter().find(|model| model.name == name)
    }

    /// Bytes of one token over all layers.
    #[must_use]
    pub const fn bytes_per_token(self) -> u64 {
        let elements = match self.kept {
            Kept::Heads(heads, dim) => 2 * heads * dim,
            Kept::Latent(rank, rope) => rank + rope,
        };
        self.layers * elements * self.element_bytes
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
        ] {
            assert_eq!(Model::named(name).map(Model::bytes_per_token), Some(bytes), "{name}");
        }
        assert_eq!(Model::named("gpt-9"), None);
        assert!(MODELS.iter().all(|model| Model::named(model.name) == Some(*model)), "no name twice");
    }
}
