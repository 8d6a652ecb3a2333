//! `kvtier usage storage`: what was held, for how long.

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::output::Output;
use super::server::Server;
use super::table::numbers;
use crate::client::{StorageRow, UsageFilter};
use crate::vocab::TenantName;

/// Milliseconds of an hour.
const HOUR_MS: u128 = 3_600_000;

#[derive(Debug, Args)]
pub(super) struct Storage {
    /// Only this tenant.
    #[arg(long, value_name = "NAME", value_parser = TenantName::parse)]
    tenant: Option<TenantName>,
    /// Only from this hour on, in hours since 1970.
    #[arg(long, value_name = "HOUR", default_value_t = 0)]
    from_hour: u32,
    /// Only before this hour.
    #[arg(long, value_name = "HOUR", value_parser = clap::value_parser!(u32).range(1..))]
    until_hour: Option<u32>,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// One hour of one account and class, as programs see it.
#[derive(Serialize)]
struct Row {
    tenant: Option<String>,
    domain: Option<String>,
    namespace: String,
    hour: u32,
    class: &'static str,
    /// Tokens × milliseconds, whole: a text, since it can be more than JSON readers take for a number.
    token_ms: String,
}

impl Row {
    fn of(row: StorageRow) -> Self {
        let word = |word: String| (!word.is_empty()).then_some(word);
        Self {
            tenant: word(row.tenant),
            domain: word(row.domain),
            namespace: row.namespace,
            hour: row.hour,
            class: if row.guaranteed { "guaranteed" } else { "best-effort" },
            token_ms: row.token_ms,
        }
    }
}

impl Storage {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let filter = UsageFilter {
            tenant: self.tenant.clone(),
            from_hour: self.from_hour,
            until_hour: self.until_hour,
            ..UsageFilter::default()
        };
        let rows = self.server.ask(async |client| Ok(client.summarize_storage(&filter).await?))?;
        let rows: Vec<Row> = rows.into_iter().map(Row::of).collect();
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
            [name, row.namespace.clone(), row.class.to_owned(), row.hour.to_string(), token_hours(&row.token_ms)]
        };
        output.text(numbers(["account", "namespace", "class", "hour", "token-hours"], rows.iter().map(row)))
    }
}

/// Tokens × hours, to a thousandth, rounded down.
fn token_hours(token_ms: &str) -> String {
    let Ok(sum) = token_ms.parse::<u128>() else { return "-".into() };
    let thousandths = sum * 1_000 / HOUR_MS;
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_hours_are_exact_to_a_thousandth() {
        assert_eq!(token_hours("3600000"), "1.000");
        assert_eq!(token_hours("3599999"), "0.999");
        assert_eq!(token_hours("340282366920938463463374607431"), "94522879700260684295381.835");
    }
}
