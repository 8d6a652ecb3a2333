//! Days and hours of the book's time zone.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;

use crate::vocab::Timestamp;

/// Minutes of a day.
pub(super) const DAY_MINUTES: u16 = 24 * 60;

/// Some days, in the book's time zone: from one (inclusive) until another (exclusive); open where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Days {
    /// The first day.
    pub from: Option<Date>,
    /// The day after the last one.
    pub until: Option<Date>,
}

impl Days {
    /// Whether the day is one of them.
    #[must_use]
    pub fn has(self, day: Date) -> bool {
        self.from.is_none_or(|from| from <= day) && self.until.is_none_or(|until| day < until)
    }

    /// Whether a day is in both.
    pub(super) fn meets(self, other: Self) -> bool {
        let before = |a: Self, b: Self| matches!((a.until, b.from), (Some(until), Some(from)) if until <= from);
        !before(self, other) && !before(other, self)
    }
}

/// A moment as the clocks on the wall of the book's zone show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) day: Date,
    weekday: Weekday,
    /// Minutes since midnight by the clock: on the day of a change of the clock an hour comes twice, or never.
    minute: u16,
}

impl Moment {
    /// Nothing for a moment beyond the year 9999.
    pub(super) fn of(at: Timestamp, zone: &TimeZone) -> Option<Self> {
        let time = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
        let local = zone.to_datetime(time);
        let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        Some(Self { day: local.date(), weekday: local.date().weekday(), minute })
    }
}

/// Hours of some days of the week, by the clock: `from` inclusive, `until` exclusive, both in minutes since midnight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Window {
    /// Numbers of days, Monday 1 to Sunday 7, sorted.
    pub(super) days: Vec<i8>,
    pub(super) from: u16,
    pub(super) until: u16,
}

impl Window {
    pub(super) fn has(&self, moment: Moment) -> bool {
        self.days.contains(&moment.weekday.to_monday_one_offset()) && (self.from..self.until).contains(&moment.minute)
    }
}

/// `09:30` in minutes since midnight, `24:00` as the end of the day.
pub(super) fn clock(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| match digits.len() {
        2 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<u16>().ok(),
        _ => None,
    };
    // A time of TOML is written with its seconds.
    let (hours, minutes) = (two(hours)?, two(minutes.strip_suffix(":00").unwrap_or(minutes))?);
    (minutes < 60).then_some(hours * 60 + minutes).filter(|at| *at <= DAY_MINUTES)
}

/// The number of a day of the week by its English name: `mon`, or in full.
pub(super) fn weekday(name: &str) -> Option<i8> {
    let days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    days.iter().zip(1..).find(|(day, _)| **day == name || day[..3] == *name).map(|(_, number)| number)
}
