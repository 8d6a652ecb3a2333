//! How long a block is kept, as its writer asks for it.

use std::fmt;
use std::time::Duration;

use super::limits::LIFETIME_MAX;

/// How long a block is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// Until something else needs the room.
    #[default]
    BestEffort,
    /// The same, and no longer than this.
    Ttl(Lifetime),
    /// At least so long on NVMe, whatever else needs the room; then as `BestEffort`.
    Guaranteed(Lifetime),
}

/// A lifetime in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// From when it was stored or asked for.
    pub seconds: u32,
    /// Whether every use begins it anew.
    pub refreshed: bool,
}

/// The furthest tier that a request's blocks may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Furthest {
    /// None: nothing of it is stored.
    Nothing,
    /// RAM: it is gone with the daemon, or when RAM needs the room.
    Ram,
    /// The drives.
    #[default]
    Nvme,
}

/// What is promised of the prefix that ends with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Until when, in seconds since 1970; 0 where only a pin keeps it.
    pub until_s: u32,
    /// What a use begins anew, where it does.
    pub refresh: Option<Lifetime>,
    /// Whether an admin keeps it until he lets it go.
    pub pinned: bool,
}

/// Words that name no retention.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "retention {0:?} must be best-effort, ttl:TIME or guaranteed:TIME, where TIME is a number with s, m, h or d (1s to 366d), \
         and may end in :refreshed"
)]
pub struct RetentionError(String);

impl Retention {
    /// Reads `best-effort`, `ttl:10m`, `guaranteed:72h`, `guaranteed:5m:refreshed`; nothing is `best-effort`.
    ///
    /// # Errors
    /// For other words.
    pub fn parse(text: &str) -> Result<Self, RetentionError> {
        let wrong = || RetentionError(text.chars().take(40).collect());
        let mut parts = text.split(':');
        let (kind, time, rest) = (parts.next(), parts.next(), parts.next());
        let refreshed = match rest {
            None => false,
            Some("refreshed") => true,
            Some(_) => return Err(wrong()),
        };
        let lifetime = |time: &str| {
            let seconds = seconds(time).filter(|seconds| (1..=LIFETIME_MAX.as_secs()).contains(seconds));
            let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok()).ok_or_else(wrong)?;
            Ok(Lifetime { seconds, refreshed })
        };
        match (kind, time, parts.next()) {
            (Some("" | "best-effort"), None, None) => Ok(Self::BestEffort),
            (Some("ttl"), Some(time), None) => lifetime(time).map(Self::Ttl),
            (Some("guaranteed"), Some(time), None) => lifetime(time).map(Self::Guaranteed),
            _ => Err(wrong()),
        }
    }

    /// The lifetime, where it has one.
    #[must_use]
    pub const fn lifetime(self) -> Option<Lifetime> {
        match self {
            Self::BestEffort => None,
            Self::Ttl(lifetime) | Self::Guaranteed(lifetime) => Some(lifetime),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BestEffort => f.write_str("best-effort"),
            Self::Ttl(lifetime) => write!(f, "ttl:{lifetime}"),
            Self::Guaranteed(lifetime) => write!(f, "guaranteed:{lifetime}"),
        }
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.seconds {
            seconds if seconds.is_multiple_of(3_600) => (seconds / 3_600, "h"),
            seconds if seconds.is_multiple_of(60) => (seconds / 60, "m"),
            seconds => (seconds, "s"),
        };
        write!(f, "{number}{unit}{}", if self.refreshed { ":refreshed" } else { "" })
    }
}

fn seconds(time: &str) -> Option<u64> {
    let unit = time.chars().last()?;
    let number: u64 = time.strip_suffix(unit)?.parse().ok().filter(|_| !time.starts_with('+'))?;
    let of = match unit {
        's' => Duration::from_secs(1),
        'm' => Duration::from_secs(60),
        'h' => Duration::from_secs(3_600),
        'd' => Duration::from_secs(86_400),
        _ => return None,
    };
    number.checked_mul(of.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back() {
        for (text, seconds, refreshed, shown) in [
            ("ttl:600s", 600, false, "ttl:10m"),
            ("guaranteed:72h", 259_200, false, "guaranteed:72h"),
            ("guaranteed:3d", 259_200, false, "guaranteed:72h"),
            ("guaranteed:5m:refreshed", 300, true, "guaranteed:5m:refreshed"),
            ("ttl:7s", 7, false, "ttl:7s"),
        ] {
            let read = Retention::parse(text).unwrap();
            assert_eq!(read.lifetime(), Some(Lifetime { seconds, refreshed }), "{text}");
            assert_eq!(read.to_string(), shown);
            assert_eq!(Retention::parse(shown), Ok(read));
        }
        assert_eq!(Retention::parse(""), Ok(Retention::BestEffort));
        assert_eq!(Retention::parse("best-effort"), Ok(Retention::BestEffort));
    }

    #[test]
    fn other_words_are_refused_with_the_rule() {
        for text in [
            "forever",
            "ttl",
            "ttl:",
            "ttl:5",
            "ttl:-5m",
            "ttl:+5m",
            "ttl:0s",
            "guaranteed:367d",
            "guaranteed:5m:often",
            "best-effort:5m",
            "ttl:5m:refreshed:x",
            "guaranteed:99999999999999999999d",
            "ttl:5µ",
        ] {
            let error = Retention::parse(text).unwrap_err().to_string();
            assert!(error.contains("must be best-effort, ttl:TIME"), "{error}");
        }
    }
}
