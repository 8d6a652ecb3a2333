//! What a settle says beside its counts: for whom, how the request ended, and on which side of a pair it ran.

use std::collections::BTreeMap;

use super::{ApiKeyId, ClassName, TokenCount, UserName};

/// The part of a settle that older workers leave out: all of it has a value that says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageDetail {
    /// The tenant's end user.
    pub user: Option<UserName>,
    /// The tenant's key that the request came with, by its id: never the key itself.
    pub api_key: Option<ApiKeyId>,
    /// How the request ended.
    pub finish: FinishReason,
    /// On which side of a disaggregated pair it was served.
    pub role: NodeRole,
    /// Tokens stored by retention class; in all at most the tokens stored.
    pub written_by_class: BTreeMap<ClassName, TokenCount>,
    /// Prompt tokens that were prefilled again after a preemption: told, and never billed.
    pub preempted_tokens: TokenCount,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FinishReason {
    /// Nobody said.
    #[default]
    Unspecified,
    /// The model ended it.
    Stop,
    /// It reached its length.
    Length,
    /// The caller went away: it settles what it used.
    Aborted,
    /// The engine took it out and did not resume it.
    Preempted,
    /// The engine failed.
    Failed,
}

/// On which side of a disaggregated pair a request was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeRole {
    /// One engine did both.
    #[default]
    Unified,
    /// The engine that computed the prompt: what was delivered to it is billed.
    Prefill,
    /// The engine that generated from another's KV: nothing that was loaded there is billed.
    Decode,
}

impl FinishReason {
    /// All, in the order of their codes.
    pub const ALL: [Self; 6] =
        [Self::Unspecified, Self::Stop, Self::Length, Self::Aborted, Self::Preempted, Self::Failed];

    /// Its name in exports; empty where nobody said.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["", "stop", "length", "aborted", "preempted", "failed"][usize::from(self.code())]
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// Its number in rows and on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The one of that number.
    #[must_use]
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

impl NodeRole {
    /// All, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Unified, Self::Prefill, Self::Decode];

    /// Its name in exports.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["unified", "prefill", "decode"][usize::from(self.code())]
    }

    /// The one of that name; unified where there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name || name.is_empty() && *role == Self::Unified)
    }

    /// Its number in rows and on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The one of that number.
    #[must_use]
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_read_back() {
        for reason in FinishReason::ALL {
            assert_eq!(
                (FinishReason::named(reason.name()), FinishReason::of_code(reason.code())),
                (Some(reason), Some(reason))
            );
        }
        for role in NodeRole::ALL {
            assert_eq!((NodeRole::named(role.name()), NodeRole::of_code(role.code())), (Some(role), Some(role)));
        }
        assert_eq!((FinishReason::named("x"), FinishReason::of_code(6), NodeRole::of_code(3)), (None, None, None));
        assert_eq!((NodeRole::named(""), NodeRole::named("x")), (Some(NodeRole::Unified), None));
    }
}
