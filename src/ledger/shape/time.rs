//! Moments as exports write them: RFC 3339 in UTC with milliseconds, which is exactly what a record knows.

use crate::vocab::Timestamp;

/// `2024-01-01T00:00:00.000Z`. A clock beyond the year 9999 reads as its end, since the format has no later one.
pub(super) fn written(at: Timestamp) -> String {
    let milliseconds = i64::try_from(at.0).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Reads a moment of any offset; nothing where it is none, lies before 1970 or between two milliseconds.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    let is_whole = time.subsec_nanosecond() % 1_000_000 == 0;
    u64::try_from(time.as_millisecond()).ok().filter(|_| is_whole && time >= jiff::Timestamp::UNIX_EPOCH).map(Timestamp)
}
