//! By what a summary has its rows: sums over all that is not named.

use std::collections::{BTreeMap, BTreeSet};

use super::LedgerError;
use super::rollup::{RollupKey, Usage, UsageRow, UsageSummary};
use crate::vocab::limits::SUMMARY_ROWS_MAX;
use crate::vocab::{ApiKeyId, Fingerprint, NamespaceName, TenantName, UserName};

/// One thing that rows are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// Who pays.
    Tenant,
    /// What people called the layout, with its fingerprint.
    Namespace,
    /// The hour of the settle.
    Hour,
    /// The tenant's end user.
    User,
    /// The tenant's API key.
    ApiKey,
}

/// What the rows of a summary are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping(pub BTreeSet<Dimension>);

/// A row's place: what it is not told apart by is absent.
type Place =
    (Option<TenantName>, Option<NamespaceName>, Option<u32>, Option<Fingerprint>, Option<UserName>, Option<ApiKeyId>);

/// Rows being summed.
pub(super) struct Groups<'a> {
    by: &'a Grouping,
    sums: BTreeMap<Place, Usage>,
}

impl Default for Grouping {
    fn default() -> Self {
        Self([Dimension::Tenant, Dimension::Namespace, Dimension::Hour].into())
    }
}

impl Dimension {
    /// All, in the order in which rows are sorted.
    pub const ALL: [Self; 5] = [Self::Tenant, Self::Namespace, Self::Hour, Self::User, Self::ApiKey];

    /// Its name on the wire and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Namespace => "namespace",
            Self::Hour => "hour",
            Self::User => "user",
            Self::ApiKey => "api_key",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.name() == name)
    }
}

impl<'a> Groups<'a> {
    pub(super) fn new(by: &'a Grouping) -> Self {
        Self { by, sums: BTreeMap::new() }
    }

    /// Takes in a rollup.
    pub(super) fn add(&mut self, key: RollupKey, usage: &Usage) -> Result<(), LedgerError> {
        let by = |dimension| self.by.0.contains(&dimension);
        let place = (
            by(Dimension::Tenant).then_some(key.tenant),
            by(Dimension::Namespace).then_some(key.namespace),
            by(Dimension::Hour).then_some(key.hour),
            by(Dimension::Namespace).then_some(key.fingerprint),
            key.user.filter(|_| by(Dimension::User)),
            key.api_key.filter(|_| by(Dimension::ApiKey)),
        );
        self.sums.entry(place).or_default().add(usage);
        if self.sums.len() > SUMMARY_ROWS_MAX { Err(LedgerError::ManyRows) } else { Ok(()) }
    }

    pub(super) fn summary(self) -> UsageSummary {
        let mut total = Usage::default();
        let row = |((tenant, namespace, hour, fingerprint, user, api_key), usage)| {
            total.add(&usage);
            UsageRow { tenant, namespace, hour, fingerprint, user, api_key, usage }
        };
        let rows = self.sums.into_iter().map(row).collect();
        UsageSummary { total, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::settlement;
    use super::super::{Settlement, UsageRecord};
    use super::*;
    use crate::vocab::{TokenCount, UsageDetail};

    fn grouped(by: &[Dimension]) -> Vec<(String, String, Option<u32>, i64)> {
        let grouping = Grouping(by.iter().copied().collect());
        let mut groups = Groups::new(&grouping);
        for (tenant, user, tokens) in [("acme", "ann", 1), ("acme", "bob", 2), ("bolt", "ann", 4), ("acme", "", 8)] {
            let detail = UsageDetail { user: UserName::parse(user).ok(), ..UsageDetail::default() };
            let settled = Settlement { output_tokens: TokenCount(tokens), detail, ..settlement(tenant, "b") };
            let record = UsageRecord::of(settled, 1).unwrap();
            groups.add(RollupKey::of(&record), &Usage::from(&record)).unwrap();
        }
        let summary = groups.summary();
        assert_eq!((summary.total.records, summary.total.counts.output), (4, 15));
        let word = |word: Option<String>| word.unwrap_or_default();
        let row = |row: UsageRow| {
            let names = (word(row.tenant.map(|name| name.to_string())), word(row.user.map(|name| name.to_string())));
            (names.0, names.1, row.hour, row.usage.counts.output)
        };
        summary.rows.into_iter().map(row).collect()
    }

    #[test]
    fn rows_are_told_apart_by_what_is_named_and_by_nothing_else() {
        let row = |tenant: &str, user: &str, tokens: i64| (tenant.to_owned(), user.to_owned(), None, tokens);
        assert_eq!(grouped(&[]), [row("", "", 15)]);
        assert_eq!(grouped(&[Dimension::Tenant]), [row("acme", "", 11), row("bolt", "", 4)]);
        assert_eq!(grouped(&[Dimension::User]), [row("", "", 8), row("", "ann", 5), row("", "bob", 2)]);
        assert_eq!(grouped(&[Dimension::Tenant, Dimension::User]).len(), 4);
        assert_eq!(grouped(&[Dimension::Hour]), [(String::new(), String::new(), Some(473_352), 15)]);
    }

    #[test]
    fn names_read_back() {
        assert!(Dimension::ALL.into_iter().all(|dimension| Dimension::named(dimension.name()) == Some(dimension)));
        assert_eq!(Dimension::named("tier"), None);
    }
}
