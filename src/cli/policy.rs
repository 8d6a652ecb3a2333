//! The `--policy` flag.

use crate::replay::PolicyKind;

/// Reads a policy's name.
pub(super) fn parse(name: &str) -> Result<PolicyKind, String> {
    PolicyKind::from_name(name).ok_or_else(|| format!("policy is {name:?}, it must be lru"))
}
