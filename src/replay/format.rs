//! The formats that traces come in.

/// A format that traces come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// Mooncake's: lines of JSON, milliseconds, ids of whole prefixes.
    Mooncake,
    /// Alibaba's usage traces: lines of JSON, seconds, chats.
    Bailian,
    /// kv-cache-tester's: a file of JSON a session, a folder of them a trace.
    Sessions,
    /// Text or token ids: lines of JSON, a prompt or a chat each.
    Chats,
    /// What a daemon recorded.
    Kvtier,
}

impl TraceFormat {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Mooncake, Self::Bailian, Self::Sessions, Self::Chats, Self::Kvtier];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mooncake => "mooncake",
            Self::Bailian => "bailian",
            Self::Sessions => "sessions",
            Self::Chats => "chats",
            Self::Kvtier => "kvtier",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Tokens of a block where nobody says otherwise: those of the published files. Sessions and recordings say so themselves.
    #[must_use]
    pub const fn block_tokens(self) -> u32 {
        match self {
            Self::Mooncake | Self::Chats | Self::Kvtier => 512,
            Self::Bailian => 16,
            Self::Sessions => 64,
        }
    }

    /// By what only one of them has in its first bytes.
    pub(super) fn of(head: &[u8]) -> Self {
        let has = |name: &str| has_field(head, name);
        let is_chat =
            || ["token_ids", "input_ids", "prompt_token_ids", "prompt", "messages", "conversations"].into_iter();
        if has("kvtier_record") {
            Self::Kvtier
        } else if has("chat_id") {
            Self::Bailian
        } else if is_chat().any(has) || head.trim_ascii_start().starts_with(b"[") {
            Self::Chats
        } else if has("requests") || has("block_size") {
            Self::Sessions
        } else {
            Self::Mooncake
        }
    }
}

/// Whether there is a field of that name. Within a text its quotes would have backslashes.
fn has_field(head: &[u8], name: &str) -> bool {
    let quoted = format!("\"{name}\"");
    let ends = head.windows(quoted.len()).enumerate().filter(|(_, part)| *part == quoted.as_bytes());
    let rests = ends.filter_map(|(at, _)| head.get(at + quoted.len()..));
    rests.map(<[u8]>::trim_ascii_start).any(|rest| rest.starts_with(b":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_told_by_its_fields_and_not_by_words_of_a_text() {
        for (head, format) in [
            (r#"{"timestamp": 1, "input_length": 3"#, TraceFormat::Mooncake),
            (r#"{"chat_id": 1, "#, TraceFormat::Bailian),
            (r#"{"id": "x", "block_size" : 64"#, TraceFormat::Sessions),
            (r#"{"kvtier_record":1,"#, TraceFormat::Kvtier),
            (r#"{"prompt": "a \"chat_id\": 3 and \"kvtier_record\": 1"}"#, TraceFormat::Chats),
            (r#"{"id": "prompt", "requests": ["#, TraceFormat::Sessions),
            ("\n[\n", TraceFormat::Chats),
        ] {
            assert_eq!(TraceFormat::of(head.as_bytes()), format, "{head}");
        }
        assert!(TraceFormat::ALL.into_iter().all(|format| TraceFormat::from_name(format.name()) == Some(format)));
    }
}
