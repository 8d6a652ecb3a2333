//! `kvtier usage storage`: what was held, for how long.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::CliError;
use super::filter::Filter;
use super::output::Output;
use super::server::Server;
use super::table::numbers;
use crate::client::StorageRow;
use crate::ledger::price::token_hours;
use crate::ledger::{StorageKey, StorageRow as Metered};
use crate::vocab::{AccountName, DomainName, NamespaceName, TenantName};

const GUARANTEED: &str = "guaranteed";
const BEST_EFFORT: &str = "best-effort";

#[derive(Debug, Args)]
pub(super) struct Storage {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// One hour of one account and class, as programs see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// Which ledger has metered it: the same hour of another one is another one's.
    ledger: String,
    tenant: Option<String>,
    domain: Option<String>,
    namespace: String,
    hour: u32,
    /// `guaranteed` or `best-effort`.
    class: String,
    /// Tokens × milliseconds, whole: a text, since it can be more than JSON readers take for a number.
    token_ms: String,
}

impl Row {
    fn of(ledger: &str, row: StorageRow) -> Self {
        let word = |word: String| (!word.is_empty()).then_some(word);
        Self {
            ledger: ledger.to_owned(),
            tenant: word(row.tenant),
            domain: word(row.domain),
            namespace: row.namespace,
            hour: row.hour,
            class: if row.guaranteed { GUARANTEED } else { BEST_EFFORT }.to_owned(),
            token_ms: row.token_ms,
        }
    }

    /// The ledger, and the row as it is there.
    pub(super) fn metered(&self) -> Result<(&str, Metered), String> {
        let account = match (&self.tenant, &self.domain) {
            (Some(tenant), None) => AccountName::Tenant(TenantName::parse(tenant).map_err(|error| error.to_string())?),
            (None, Some(domain)) => AccountName::Domain(DomainName::parse(domain).map_err(|error| error.to_string())?),
            _ => return Err("it must have either a tenant or a domain".to_owned()),
        };
        let guaranteed = match self.class.as_str() {
            GUARANTEED => true,
            BEST_EFFORT => false,
            other => return Err(format!("class is {other}, it must be {GUARANTEED} or {BEST_EFFORT}")),
        };
        let namespace = NamespaceName::parse(&self.namespace).map_err(|error| error.to_string())?;
        let token_ms =
            self.token_ms.parse().map_err(|_| format!("token_ms is {}, it must be a whole number", self.token_ms))?;
        Ok((&self.ledger, Metered { key: StorageKey { account, namespace, guaranteed }, hour: self.hour, token_ms }))
    }
}

impl Storage {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let filter = self.filter.request(&[]);
        let summary = self.server.ask(async |client| Ok(client.summarize_storage(&filter).await?))?;
        let rows: Vec<Row> = summary.rows.into_iter().map(|row| Row::of(&summary.ledger_id, row)).collect();
        if self.json {
            return output.json(&rows);
        }
        if rows.is_empty() {
            return output.text("No storage was metered in these hours: it is once a minute.");
        }
        let row = |row: &Row| {
            let name = match (&row.tenant, &row.domain) {
                (Some(tenant), _) => tenant.clone(),
                (None, domain) => format!("public domain {}", domain.as_deref().unwrap_or("-")),
            };
            [name, row.namespace.clone(), row.class.clone(), row.hour.to_string(), held(&row.token_ms)]
        };
        output.text(numbers(["account", "namespace", "class", "hour", "token-hours"], rows.iter().map(row)))
    }
}

fn held(token_ms: &str) -> String {
    token_ms.parse().map_or_else(|_| "-".to_owned(), token_hours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_hours_are_exact_to_a_thousandth() {
        assert_eq!(held("3600000"), "1.000");
        assert_eq!(held("3599999"), "0.999");
        assert_eq!(held("340282366920938463463374607431"), "94522879700260684295381.835");
    }
}
