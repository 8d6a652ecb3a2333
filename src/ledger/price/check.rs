//! Only one period may have the price of a record.

use super::book::Period;
use super::error::BookError;
use super::fields::refuse;

/// Refuses two periods of one namespace that share a day and could both be the one: with the same labels, or with labels
/// that one record may have, where neither asks for all of the other's (then the one that asks for more is meant).
pub(super) fn overlaps(periods: &[Period]) -> Result<(), BookError> {
    for (later, period) in periods.iter().enumerate() {
        for (earlier, other) in periods[..later].iter().enumerate() {
            let is_same = period.labels == other.labels;
            if period.namespace != other.namespace || !period.days.meets(other.days) {
                continue;
            }
            if is_same {
                let rule = format!("of days that price[{earlier}], of the same namespace and labels, does not have");
                return Err(refuse(format!("price[{later}].valid_from"), &days(period), &rule));
            }
            if is_ambiguous(period, other) {
                let rule =
                    format!("such that no record fits this and price[{earlier}] alike: give one of them all labels");
                return Err(refuse(format!("price[{later}].labels"), &format!("{:?}", period.labels), &rule));
            }
        }
    }
    Ok(())
}

fn is_ambiguous(one: &Period, other: &Period) -> bool {
    let excludes =
        one.labels.iter().any(|(label, value)| other.labels.get(label).is_some_and(|wanted| wanted != value));
    let has_all = |more: &Period, fewer: &Period| fewer.labels.keys().all(|label| more.labels.contains_key(label));
    !excludes && !has_all(one, other) && !has_all(other, one)
}

fn days(period: &Period) -> String {
    let day = |day: Option<jiff::civil::Date>| day.map_or("open".to_owned(), |day| day.to_string());
    format!("{} until {}", day(period.days.from), day(period.days.until))
}
