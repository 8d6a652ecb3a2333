//! How a person names blocks: a namespace, a tenant, and tokens or keys.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;

use super::CliError;
use crate::client::{Chain, Client, NamespaceInfo};
use crate::vocab::{BlockKey, Fingerprint, TenantName};

#[derive(Debug, Args)]
pub(super) struct ChainArgs {
    /// The layout: the name of a namespace, or the 64 hexadecimal digits of its fingerprint.
    #[arg(long, value_name = "NAME", default_value = super::put::BY_HAND)]
    pub(super) namespace: String,
    /// Whose blocks.
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = TenantName::parse)]
    pub(super) tenant: TenantName,
    #[command(flatten)]
    blocks: Blocks,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Blocks {
    /// The prompt's tokens as numbers, such as 1,2,3.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    tokens: Option<Vec<u32>>,
    /// A file of the prompt's tokens as numbers, apart by commas or spaces; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    tokens_file: Option<PathBuf>,
    /// Keys of an engine that hashes for itself: equally long, in hexadecimal digits.
    #[arg(long, value_name = "HEX,HEX,…", value_delimiter = ',')]
    engine_keys: Option<Vec<String>>,
    /// kvtier's own keys, as `inspect` shows them.
    #[arg(long, value_name = "HEX,HEX,…", value_delimiter = ',', value_parser = block_key)]
    block_keys: Option<Vec<BlockKey>>,
}

/// A chain that a person named.
pub(super) struct Named {
    pub(super) chain: Chain,
    pub(super) fingerprint: Fingerprint,
    /// Whole blocks of it.
    pub(super) blocks: usize,
    /// Tokens or keys that make one block.
    pub(super) step: usize,
    /// Tokens of a block.
    pub(super) block_tokens: u32,
    /// The largest payload of a block.
    pub(super) payload_max: u32,
}

impl ChainArgs {
    /// Asks the daemon for the namespace, and names the blocks in its layout.
    pub(super) async fn name(&self, client: &Client) -> Result<Named, CliError> {
        let namespace = self.find(client).await?.ok_or_else(|| CliError::Unknown {
            what: "namespace",
            name: self.namespace.clone(),
            hint: "see `kvtier inspect namespaces`",
        })?;
        self.named(&namespace)
    }

    /// The namespace of this name (the last one registered) or fingerprint; `None` where the daemon has none.
    pub(super) async fn find(&self, client: &Client) -> Result<Option<NamespaceInfo>, CliError> {
        let known = client.inspect_namespaces().await?;
        let is_it = |info: &NamespaceInfo| info.name == self.namespace || hex(&info.fingerprint) == self.namespace;
        Ok(known.into_iter().rev().find(is_it))
    }

    pub(super) fn named(&self, namespace: &NamespaceInfo) -> Result<Named, CliError> {
        let spec = namespace.spec.clone().unwrap_or_default();
        let bytes = <[u8; 32]>::try_from(&namespace.fingerprint[..]).unwrap_or_default();
        let fingerprint = Fingerprint(bytes);
        let tenant = &self.tenant;
        let (chain, count, step) = if let Some(keys) = &self.blocks.engine_keys {
            let (length, packed) = packed(keys)?;
            let count = keys.len();
            (Chain::of_engine_keys(fingerprint, tenant, length, packed), count, spec.stride.max(1))
        } else if let Some(keys) = &self.blocks.block_keys {
            (Chain::of_block_keys(fingerprint, tenant, keys), keys.len(), 1)
        } else {
            let tokens = self.blocks.tokens()?;
            let count = tokens.len();
            (Chain::of_tokens(fingerprint, tenant, tokens), count, spec.block_tokens.max(1))
        };
        let step = step as usize;
        let (block_tokens, payload_max) = (spec.block_tokens, spec.max_payload_bytes);
        Ok(Named { chain, fingerprint, blocks: count / step, step, block_tokens, payload_max })
    }
}

impl Named {
    /// Refuses a chain without a whole block.
    pub(super) fn some_block(self) -> Result<Self, CliError> {
        if self.blocks > 0 {
            return Ok(self);
        }
        let rule = format!("enough for one block: {} tokens or keys of this namespace", self.step);
        Err(CliError::usage("--tokens", &"too short", rule))
    }
}

impl Blocks {
    fn tokens(&self) -> Result<Vec<u32>, CliError> {
        if let Some(tokens) = &self.tokens {
            return Ok(tokens.clone());
        }
        let Some(path) = &self.tokens_file else { return Ok(Vec::new()) };
        let bytes = read_file(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        let token = |word: &str| {
            let rule = "token numbers from 0 to 4294967295, apart by commas or spaces";
            word.parse().map_err(|_| CliError::usage("--tokens-file", &format!("{word:?}"), rule))
        };
        words.map(token).collect()
    }
}

/// A whole file, or standard input for `-`.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let read = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(path)
    };
    read.map_err(|source| CliError::File { path: path.into(), source })
}

/// A block's key from its digits.
pub(super) fn block_key(text: &str) -> Result<BlockKey, String> {
    BlockKey::from_hex(text).ok_or_else(|| format!("block key is {text:?}, it must be 64 hexadecimal digits"))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Equally long keys, one after another.
fn packed(keys: &[String]) -> Result<(u32, Bytes), CliError> {
    let length = keys.first().map_or(0, String::len);
    let mut bytes = Vec::with_capacity(keys.len() * length / 2);
    for key in keys {
        let digits = key.is_ascii().then_some(key.as_bytes()).filter(|digits| digits.len() == length);
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let parsed: Option<Vec<u8>> = digits.and_then(|digits| {
            digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(pair).collect::<Option<Vec<u8>>>()).flatten()
        });
        let rule = "keys of 16 to 256 hexadecimal digits, all of one length";
        bytes.extend(parsed.ok_or_else(|| CliError::usage("--engine-keys", &format!("{key:?}"), rule))?);
    }
    Ok((u32::try_from(length / 2).unwrap_or(u32::MAX), bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_keys_are_packed_and_unequal_ones_refused() {
        let key = |text: &str| text.repeat(8);
        let (length, bytes) = packed(&[key("01"), key("ff")]).unwrap();
        assert_eq!((length, &bytes[..]), (8, [[1; 8], [255; 8]].concat().as_slice()));
        for bad in [vec![key("01"), "02".into()], vec!["zz".repeat(8)], vec!["123".into()], vec!["éé".into()]] {
            let error = packed(&bad).unwrap_err();
            assert!(matches!(error, CliError::Usage { .. }), "{error}");
        }
    }
}
